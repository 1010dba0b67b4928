"""Header blocks of SPDY/3 (draft-mbelshe-httpbis-spdy-00, 2.6.10): names and values, and their compression.

`wire.spdy` packs and unpacks through it; `wire.portforward` makes the blocks of its streams from `field`s.

A block is a count and then length-prefixed names and values. All blocks of one direction are one zlib stream
for the life of the connection, with the dictionary below preset and a sync flush after each block, so every
block must pass through here in the order of the wire, also one that nobody reads.
"""

from __future__ import annotations

import struct
import zlib

MAX_BLOCK = 64 * 1024
"""Bytes of one block after inflating. The kubelet answers with empty blocks of 4 bytes."""

_LENGTH = struct.Struct("!I")

# 2.6.10.1: a list of likely names and values, each with its length in front, and then likely text without.
_WORDS = (
    "options head post put delete trace accept accept-charset accept-encoding accept-language accept-ranges "
    "age allow authorization cache-control connection content-base content-encoding content-language "
    "content-length content-location content-md5 content-range content-type date etag expect expires from "
    "host if-match if-modified-since if-none-match if-range if-unmodified-since last-modified location "
    "max-forwards pragma proxy-authenticate proxy-authorization range referer retry-after server te trailer "
    "transfer-encoding upgrade user-agent vary via warning www-authenticate method get status 200_OK version "
    "HTTP/1.1 url public set-cookie keep-alive origin"
)
_TEXT = (
    "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505203 "
    "Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 "
    "Forbidden404 Not Found500 Internal Server Error501 Not Implemented503 Service UnavailableJan Feb Mar "
    "Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMTchunked,text/html,"
    "image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,text/plain,text/javascript,public"
    "privatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0."
)
DICTIONARY = b"".join(
    _LENGTH.pack(len(word)) + word.replace("_", " ").encode() for word in _WORDS.split(" ")
) + _TEXT.encode()  # fmt: skip
"""The preset dictionary of both directions, 1423 bytes."""

# 11 bits (2 KiB) hold the dictionary and the last blocks; zlib's defaults would take 256 KiB a connection.
_WINDOW_BITS = 11
_MEMORY_LEVEL = 5


class BlockError(ValueError):
    """The peer sent a header block that is not one; the zlib stream, and so the connection, is lost."""


def field(name: str, value: str) -> bytes:
    """One header of a block. Names travel in lower case (2.6.10)."""
    low, text = name.lower().encode("ascii"), value.encode()
    return b"".join((_LENGTH.pack(len(low)), low, _LENGTH.pack(len(text)), text))


def block(*fields: bytes) -> bytes:
    """Put together what `field` returned, not yet compressed."""
    return _LENGTH.pack(len(fields)) + b"".join(fields)


def fields_of(raw: bytes) -> dict[str, str]:
    """Headers of an uncompressed block.

    Raises BlockError when it is cut short, has bytes behind it, or names a header twice or in upper case.
    """
    headers: dict[str, str] = {}
    try:
        (count,) = _LENGTH.unpack_from(raw)
        at = _LENGTH.size
        for _ in range(count):
            name, at = _text(raw, at)
            value, at = _text(raw, at)
            if name in headers or name != name.lower():
                raise BlockError(f"the header block has {name!r} twice or in upper case")
            headers[name] = value
    except struct.error as err:
        raise BlockError("the header block is cut short") from err
    if at != len(raw):
        raise BlockError("the header block has bytes behind its last header")
    return headers


def _text(raw: bytes, at: int) -> tuple[str, int]:
    (length,) = _LENGTH.unpack_from(raw, at)
    start = at + _LENGTH.size
    if start + length > len(raw):
        raise BlockError("the header block is cut short")
    return raw[start : start + length].decode("latin-1"), start + length


class Deflater:
    """Compresses the blocks that one side sends."""

    __slots__ = ("_zlib",)

    def __init__(self) -> None:
        self._zlib = zlib.compressobj(
            zlib.Z_BEST_SPEED, zlib.DEFLATED, _WINDOW_BITS, _MEMORY_LEVEL, zdict=DICTIONARY
        )

    def deflate(self, raw: bytes) -> bytes:
        """Return `raw` as it goes into a frame: it inflates without waiting for the next block."""
        return self._zlib.compress(raw) + self._zlib.flush(zlib.Z_SYNC_FLUSH)


class Inflater:
    """Inflates the blocks that one side receives."""

    __slots__ = ("_zlib",)

    def __init__(self) -> None:
        self._zlib = zlib.decompressobj(zdict=DICTIONARY)

    def inflate(self, packed: bytes | memoryview) -> bytes:
        """Return the raw block; raises BlockError when it is no zlib data or longer than MAX_BLOCK."""
        try:
            raw = self._zlib.decompress(packed, MAX_BLOCK + 1)
        except zlib.error as err:
            raise BlockError(f"the header block is not compressed as SPDY/3 says: {err}") from err
        if len(raw) > MAX_BLOCK or self._zlib.unconsumed_tail:
            raise BlockError(f"the header block is longer than {MAX_BLOCK} bytes")
        return raw

"""What a client says first: the host that it asks for, in HTTP/1.x or in the ClientHello of TLS. No I/O.

`kecs.net.front` feeds it what comes, in pieces of any size; each byte is looked at once. In HTTP the first
`Host` decides, or the target's own host where there is one, which comes before it (RFC 9112, 3.2.2); in TLS
the server name (RFC 6066, 3). Nothing is decoded further than that, and nothing is changed: whoever is
asked for gets every byte as it was said.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

LIMIT = 16 * 1024
"""Bytes within which the host has to be said: a ClientHello with post-quantum keys has 2 KB, the heads that
servers accept have 8 to 16 KB, and browsers say `Host` first."""


class Speech(enum.Enum):
    """What the client speaks."""

    HTTP = "HTTP/1.x"
    HTTP2 = "HTTP/2 without TLS"
    TLS = "TLS"
    UNKNOWN = "something else"


@dataclass(frozen=True, slots=True)
class Asked:
    """What the client asks for."""

    speech: Speech
    host: str | None
    """In lower case, without port, brackets and final dot; None: it named none."""
    method: str = ""
    """Of HTTP/1.x: what is answered to HEAD has no body."""
    too_long: bool = False
    """It named none within `LIMIT`."""


class Greeting:
    """The first bytes of one connection."""

    __slots__ = ("_at", "_hello", "_line", "_method", "_scanned", "said")

    def __init__(self) -> None:
        self.said = bytearray()
        """All that was fed."""
        self._method: str | None = None
        """Of the request line; None before that."""
        self._line = 0
        """Where the line that is not whole yet begins."""
        self._scanned = 0
        """Up to where there is no end of that line."""
        self._at = 0
        """Where the record of TLS that is not whole yet begins."""
        self._hello = bytearray()
        """The handshake's bytes out of whole records."""

    @property
    def speech(self) -> Speech:
        """What the client seems to speak, from its first byte."""
        if self.said[:1] == b"\x16":
            return Speech.TLS
        return Speech.HTTP if self.said[:1].isalpha() or self.said[:1] in b"\r\n" else Speech.UNKNOWN

    def feed(self, data: bytes | memoryview) -> Asked | None:
        """Take the next bytes; return what is asked for as soon as that is clear. Do not feed it then."""
        self.said += data
        if not self.said:
            return None
        speech = self.speech
        if speech is Speech.UNKNOWN:
            return Asked(speech, None)
        asked = self._read_records() if speech is Speech.TLS else self._read_lines()
        if asked is None and len(self.said) >= LIMIT:
            return Asked(speech, None, self._method or "", too_long=True)
        return asked

    # HTTP/1.x (RFC 9112)

    def _read_lines(self) -> Asked | None:
        while (end := self.said.find(b"\n", self._scanned, LIMIT)) >= 0:
            line = bytes(self.said[self._line : end]).removesuffix(b"\r")
            self._line = self._scanned = end + 1
            asked = self._read_header(line) if self._method is not None else self._read_request(line)
            if asked is not None:
                return asked
        self._scanned = len(self.said)
        return None

    def _read_request(self, line: bytes) -> Asked | None:
        if not line:
            return None  # empty lines before a request are passed over (2.2)
        words = line.split(b" ")
        if words == [b"PRI", b"*", b"HTTP/2.0"]:
            return Asked(Speech.HTTP2, None)
        if len(words) != 3 or not words[2].startswith(b"HTTP/1."):
            return Asked(Speech.UNKNOWN, None)
        self._method = words[0].decode("latin-1")
        scheme, separator, rest = words[1].partition(b"://")
        if separator and scheme.isalpha():
            return Asked(Speech.HTTP, _host(rest.partition(b"/")[0].rpartition(b"@")[2]), self._method)
        return None

    def _read_header(self, line: bytes) -> Asked | None:
        if not line:
            return Asked(Speech.HTTP, None, self._method or "")
        name, separator, value = line.partition(b":")
        if separator and name.lower() == b"host":
            return Asked(Speech.HTTP, _host(value), self._method or "")
        return None

    # TLS (RFC 8446, 4.1.2 and 5.1; the versions before have the same shape)

    def _read_records(self) -> Asked | None:
        said, there = self.said, min(len(self.said), LIMIT)
        while there >= self._at + 5:
            kind, major = said[self._at], said[self._at + 1]
            size = int.from_bytes(said[self._at + 3 : self._at + 5])
            if kind != 22 or major != 3 or not size:
                return Asked(Speech.UNKNOWN, None)
            if there < self._at + 5 + size:
                break
            self._hello += said[self._at + 5 : self._at + 5 + size]
            self._at += 5 + size
            if len(self._hello) >= 4:
                if self._hello[0] != 1:
                    return Asked(Speech.UNKNOWN, None)
                end = 4 + int.from_bytes(self._hello[1:4])
                if len(self._hello) >= end:
                    return Asked(Speech.TLS, _server_name(bytes(self._hello[4:end])))
        return None


def _host(value: bytes) -> str | None:
    """Return the host of `host[:port]`."""
    text = value.strip(b" \t").decode("latin-1").lower()
    if text.startswith("["):
        return text[1:].partition("]")[0] or None
    return text.partition(":")[0].removesuffix(".") or None


def _server_name(hello: bytes) -> str | None:
    """Return the server name in the body of a ClientHello; None when it has none, or is not whole."""
    fields = _Fields(hello)
    fields.take(2 + 32)  # the version and the random
    for length in (1, 2, 1):  # the session's id, the cipher suites, the ways to compress
        fields.vector(length)
    extensions = _Fields(fields.vector(2))
    while extensions.left:
        kind = int.from_bytes(extensions.take(2))
        content = extensions.vector(2)
        if kind == 0:
            names = _Fields(_Fields(content).vector(2))
            while names.left:
                of_a_host = names.take(1) == b"\0"
                name = names.vector(2)
                if of_a_host:
                    return _host(name)
    return None


class _Fields:
    """Fields one after the other; what is not there is empty."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def left(self) -> bool:
        """Whether there is more."""
        return self._at < len(self._data)

    def take(self, size: int) -> bytes:
        """Take `size` bytes."""
        begin, self._at = self._at, min(self._at + size, len(self._data))
        return self._data[begin : self._at]

    def vector(self, length: int) -> bytes:
        """Take what a number of `length` bytes tells the size of."""
        return self.take(int.from_bytes(self.take(length)))

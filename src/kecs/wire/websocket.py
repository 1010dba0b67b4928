"""A WebSocket (RFC 6455) as the carrier of a SPDY byte stream, the client's side: bytes in, bytes out.

Kubernetes serves port-forward this way too (KEP-4006): `GET …/portforward` with the subprotocol below; binary
messages carry the SPDY connection, where one ends and the next begins means nothing. `kube.upgrade` makes the
handshake with `request` and `check_response`, the tunnel puts a `Framing` between its socket and its session.
No I/O: pongs and closing frames wait in `take`.

**The masking key is zero.** A client masks what it sends so that scripts in a browser cannot choose the
bytes that a proxy on the way sees, and for that reason alone RFC 6455 wants a key that nobody can guess (5.3,
10.3). Here is no script, and the bytes travel inside TLS or to this very machine. With zeros they go out as
they are, uncopied. Measured for 16 KiB on one core: wsproto's masker 43 µs, an XOR of big integers 54 µs,
either more than all else that a tunnel does for those bytes. So wsproto reads, and what is written is ours.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, cast

from wsproto.frame_protocol import CloseReason, FrameProtocol, Opcode, ParseFailed
from wsproto.utilities import generate_accept_token

from kecs.wire.spdy import Buffer, ProtocolError

SUBPROTOCOL: Final = "SPDY/3.1+portforward.k8s.io"
"""What Kubernetes 1.31 and later tunnels (apimachinery pkg/util/portforward/constants.go)."""

_FINAL = 0x80
_MASKED = 0x80
_SHORT = struct.Struct("!BBI")
_MIDDLE = struct.Struct("!BBHI")
_LONG = struct.Struct("!BBQI")
_CODE = struct.Struct("!H")


class HandshakeError(Exception):
    """The answer to the upgrade is not a WebSocket with our subprotocol."""


def request(nonce: bytes) -> dict[str, str]:
    """Return the headers that ask for the WebSocket. `nonce`: 16 random bytes, used once (RFC 6455, 4.1)."""
    return {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": base64.b64encode(nonce).decode(),
        "Sec-WebSocket-Protocol": SUBPROTOCOL,
    }


def check_response(status: int, headers: Mapping[str, str], nonce: bytes) -> None:
    """Raise HandshakeError unless the answer opens the WebSocket (RFC 6455, 4.1).

    `headers` have lower-case names; several of one name are joined by commas.
    """
    if status != 101:
        raise HandshakeError(f"the server answered {status} instead of switching to a WebSocket")
    tokens = [token.strip().lower() for token in headers.get("connection", "").split(",")]
    if headers.get("upgrade", "").strip().lower() != "websocket" or "upgrade" not in tokens:
        raise HandshakeError("the server switched to something that is not a WebSocket")
    expected = generate_accept_token(base64.b64encode(nonce)).decode()
    if headers.get("sec-websocket-accept", "").strip() != expected:
        raise HandshakeError("the server's Sec-WebSocket-Accept does not belong to our key")
    if headers.get("sec-websocket-protocol", "").strip() != SUBPROTOCOL:
        raise HandshakeError(f"the server did not choose the subprotocol {SUBPROTOCOL}")
    if headers.get("sec-websocket-extensions", "").strip():
        raise HandshakeError("the server uses an extension that nobody offered")


@dataclass(frozen=True, slots=True)
class Closed:
    """The peer's closing frame. 1000 is the ordinary end of the byte stream; 1005: it gave no code."""

    code: int
    reason: str


class Framing:
    """The frames of one WebSocket after its handshake."""

    __slots__ = ("_closing", "_frames", "_out", "closed")

    def __init__(self) -> None:
        self._frames = FrameProtocol(client=True, extensions=[])
        self._out: list[Buffer] = []
        self._closing = False
        self.closed: Closed | None = None
        """How the peer closed; no bytes follow."""

    def receive(self, data: Buffer) -> list[bytes]:
        """Take what was read and return the pieces of the byte stream in it, as far as they have come in.

        Pings and the closing frame are answered through `take`. Raises spdy.ProtocolError for what is no
        WebSocket, and for text.
        """
        self._frames.receive_bytes(data)  # type: ignore[arg-type]  # it extends a bytearray
        pieces: list[bytes] = []
        try:
            for frame in self._frames.received_frames():
                if frame.opcode is Opcode.BINARY:
                    if frame.payload:
                        pieces.append(cast("bytes", frame.payload))
                elif frame.opcode is Opcode.PING:
                    payload = cast("bytes", frame.payload)
                    self._out.append(_header(Opcode.PONG, len(payload)) + payload)
                elif frame.opcode is Opcode.CLOSE:
                    code, reason = cast("tuple[int, str]", frame.payload)
                    self.closed = Closed(int(code), reason)
                    self.close()
                elif frame.opcode is Opcode.TEXT:
                    raise ProtocolError("a text message, where only binary ones carry SPDY")
        except ParseFailed as err:
            raise ProtocolError(f"not a WebSocket frame: {err}") from err
        return pieces

    def wrap(self, buffers: Iterable[Buffer]) -> list[Buffer]:
        """Put `buffers` (of `Session.take`) into one message; return what is to be written, uncopied."""
        body = list(buffers)
        length = sum(map(len, body))
        if length:
            body.insert(0, _header(Opcode.BINARY, length))
        return body

    def take(self) -> list[Buffer]:
        """Hand over the pongs and the closing frame that are to be written, in front of the next message."""
        out, self._out = self._out, []
        return out

    def close(self) -> None:
        """Queue the closing frame: the ordinary end. No `wrap` after it."""
        if not self._closing:
            self._closing = True
            self._out.append(_header(Opcode.CLOSE, 2) + _CODE.pack(CloseReason.NORMAL_CLOSURE))


def _header(opcode: int, length: int) -> bytes:
    """Return the header of a final, masked frame (RFC 6455, 5.2) with the key 0."""
    if length < 126:
        return _SHORT.pack(_FINAL | opcode, _MASKED | length, 0)
    if length < 1 << 16:
        return _MIDDLE.pack(_FINAL | opcode, _MASKED | 126, length, 0)
    return _LONG.pack(_FINAL | opcode, _MASKED | 127, length, 0)

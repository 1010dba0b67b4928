"""SPDY/3.1 (draft-mbelshe-httpbis-spdy-00), the client's side of one connection: bytes in, events out.

`wire.portforward` drives it. No I/O: give `receive` what was read, write what `take` returns.

It speaks what Kubernetes speaks (github.com/moby/spdystream), which is less than the draft: no flow control
(WINDOW_UPDATE and SETTINGS are skipped, none is sent), no pushed streams (refused), no priorities.

This is the hot path of a tunnel. So an event is a bare pair `(stream, what)`, DATA is a memoryview of the
bytes that were received (no copy, no object but the pair), a long frame is passed on as it comes in, and
frames queue up until `take`, so that those of many streams leave in one write.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from kecs.wire import spdy_headers

Buffer = bytes | bytearray | memoryview

PROTOCOL_ERROR = 1
INVALID_STREAM = 2
REFUSED_STREAM = 3
CANCEL = 5
STREAM_IN_USE = 8
STREAM_ALREADY_CLOSED = 9
"""Statuses of RST_STREAM (2.6.3)."""

MAX_CONTROL = 64 * 1024
"""Bytes of a control frame's body that are accepted. The largest that Kubernetes sends is below 100."""
MAX_DATA = (1 << 24) - 1
"""Bytes of one DATA frame; longer payloads are sent as several."""
LAST_STREAM = 0x7FFFFFFF
"""The highest stream id (2.3.2). Ids are never used again: a connection ends with them."""

_COPIED = 2048
"""A payload up to this many bytes is copied behind its header: cheaper than a buffer of its own."""

_VERSION = 0x8003
_CONTROL = 0x80000000
_SYN_STREAM, _RST_STREAM, _PING, _GOAWAY = 1, 3, 6, 7
_FIN = 0x01

_FRAME = struct.Struct("!II")
_SYN = struct.Struct("!HHIIIH")
_TWO_WORDS = struct.Struct("!HHIII")
_ONE_WORD = struct.Struct("!HHII")
_WORD = struct.Struct("!I")
_PAIR = struct.Struct("!II")

# What may still happen on a stream; a stream on which nothing may is forgotten.
_WRITABLE, _UNFINISHED, _REPLIED = 1, 2, 4
_READABLE = _UNFINISHED | _REPLIED


class ProtocolError(Exception):
    """The peer broke the protocol in a way that concerns the whole connection: only closing it is left."""


@dataclass(frozen=True, slots=True)
class Replied:
    """The peer took the stream (SYN_REPLY)."""

    headers: dict[str, str]


@dataclass(frozen=True, slots=True)
class Finished:
    """The peer sends nothing more on the stream (FIN)."""


@dataclass(frozen=True, slots=True)
class Reset:
    """The stream is over in both directions, what was on its way is lost.

    `by_peer` is False where this side reset it, because what came on it was against the protocol.
    """

    status: int
    by_peer: bool = True


@dataclass(frozen=True, slots=True)
class Pong:
    """The answer to `Session.ping`."""

    ping: int


@dataclass(frozen=True, slots=True)
class GoAway:
    """The peer takes no more streams. It never saw those above `last_good`: Reset(REFUSED_STREAM) each."""

    last_good: int
    status: int


FINISHED = Finished()

What = memoryview | Replied | Finished | Reset | Pong | GoAway
Event = tuple[int, What]
"""A stream's id (0: the connection) and what happened. A memoryview is its next bytes, never empty."""

_Handler = Callable[["Session", int, memoryview, list[Event]], None]


class Session:
    """One connection after its upgrade.

    `late` counts bytes that came for streams which had been reset: they were dropped, and yet they took their
    time on the way, so whoever judges how busy the connection is has to count them.
    """

    __slots__ = (
        "_deflater", "_fin", "_inflater", "_left", "_next", "_out", "_ping", "_pings", "_rest", "_stream",
        "_streams", "goes_away", "late", "pending",
    )  # fmt: skip

    def __init__(self) -> None:
        self.pending = 0
        """Bytes that `take` would return."""
        self.late = 0
        self.goes_away = False
        """One side said GOAWAY."""
        self._out: list[Buffer] = []
        self._streams: dict[int, int] = {}
        self._next = 1
        self._ping = 1
        self._pings: set[int] = set()
        self._deflater = spdy_headers.Deflater()
        self._inflater = spdy_headers.Inflater()
        self._rest = b""
        """The start of a control frame, or of a frame's header."""
        self._stream = 0
        """The stream of the DATA frame that is coming in."""
        self._left = 0
        """Bytes of that frame that are missing."""
        self._fin = False
        """Whether it is the stream's last."""

    # What to send. Nothing leaves before `take`.

    @property
    def next_stream(self) -> int:
        """The id that `open` gives next."""
        return self._next

    def can_open(self, count: int = 1) -> bool:
        """Whether `count` more streams can be opened: nobody went away and there are ids left."""
        return not self.goes_away and self._next + 2 * (count - 1) <= LAST_STREAM

    def skip(self, count: int) -> None:
        """Leave out the next `count` stream ids: they only have to increase (2.3.2)."""
        self._next += 2 * count

    def open(self, block: bytes, *, fin: bool = False) -> int:
        """Open a stream with the headers of `block` (`spdy_headers.block`) and return its id.

        It may be written to at once. `fin`: nothing will be. Raises ValueError when `can_open` is False.
        """
        if not self.can_open():
            raise ValueError("this SPDY connection opens no more streams")
        stream = self._next
        self._next = stream + 2
        packed = self._deflater.deflate(block)
        length = fin << 24 | len(packed) + 10
        self._queue(_SYN.pack(_VERSION, _SYN_STREAM, length, stream, 0, 0) + packed)
        self._streams[stream] = _UNFINISHED if fin else _UNFINISHED | _WRITABLE
        return stream

    def data(self, stream: int, payload: Buffer, *, fin: bool = False) -> None:
        """Send `payload`; with `fin` it is the last of this side.

        The buffer must not change until it has been written. What is sent on a stream that this side finished
        or that is over is dropped: its end is among the events, seen already or about to be.
        """
        state = self._streams.get(stream, 0)
        if not state & _WRITABLE:
            return
        length = len(payload)
        if length > _COPIED:
            if length > MAX_DATA:
                whole = memoryview(payload)
                self.data(stream, whole[:MAX_DATA])
                self.data(stream, whole[MAX_DATA:], fin=fin)
                return
            self._out.append(_FRAME.pack(stream, fin << 24 | length))
            self._out.append(payload)
        elif length or fin:
            self._out.append(_FRAME.pack(stream, fin << 24 | length) + payload)
        else:
            return
        self.pending += length + 8
        if fin:
            self._keep(stream, state & ~_WRITABLE)

    def reset(self, stream: int, status: int = CANCEL) -> None:
        """End the stream in both directions at once; no event of it follows. One that is over stays so."""
        if self._streams.pop(stream, 0):
            self._send_reset(stream, status)

    def ping(self) -> int:
        """Ask for a sign of life; the answer is a Pong with the returned number."""
        number = self._ping
        self._ping = number + 2 if number < 0xFFFFFFFF else 1
        self._pings.add(number)
        self._queue(_ONE_WORD.pack(_VERSION, _PING, 4, number))
        return number

    def goaway(self) -> None:
        """Say that this side opens nothing more, without a fault. Streams that are open stay so."""
        self.goes_away = True
        self._queue(_TWO_WORDS.pack(_VERSION, _GOAWAY, 8, 0, 0))

    def take(self) -> list[Buffer]:
        """Hand over everything that is to be written, in order: for `sendmsg`, or to be joined."""
        out, self._out = self._out, []
        self.pending = 0
        return out

    # What comes in.

    @property
    def partial(self) -> int:
        """The stream of the DATA frame whose end has not come yet, or 0."""
        return self._stream if self._left else 0

    def receive(self, data: Buffer) -> list[Event]:
        """Take the next bytes of the connection, split anywhere, and return what they say.

        The views in it are views of `data`: it must not be written to while one is in use. PINGs of the peer
        are answered here. Raises ProtocolError; events of the same call are lost with the connection.
        """
        if self._rest:
            data = self._rest + data
        events: list[Event] = []
        view = memoryview(data)
        size = len(data)
        at = self._continue(view, events) if self._left else 0
        streams = self._streams
        while size - at >= 8:
            stream, length = _FRAME.unpack_from(data, at)
            start = at + 8
            if stream & _CONTROL:
                at = start + (length & MAX_DATA)
                if at - start > MAX_CONTROL:
                    raise ProtocolError(f"a control frame of {at - start} bytes (the limit is {MAX_CONTROL})")
                if at > size:
                    at = start - 8
                    break
                self._control(stream, length >> 24, view[start:at], events)
                continue
            at = start + (length & MAX_DATA)
            if at > size:
                self._stream, self._left, self._fin = stream, at - size, bool(length >> 24 & _FIN)
                length, at = 0, size
            if streams.get(stream, 0) & _READABLE == _READABLE:
                if at > start:
                    events.append((stream, view[start:at]))
                if length >> 24 & _FIN:
                    self._finish(stream, events)
            else:
                self._stray(stream, at - start, events)
        self._rest = bytes(view[at:])
        return events

    def _continue(self, view: memoryview, events: list[Event]) -> int:
        """Pass on more of the DATA frame that is coming in; return how many bytes of `view` were its."""
        count = min(self._left, len(view))
        self._left -= count
        stream = self._stream
        if self._streams.get(stream, 0) & _READABLE != _READABLE:
            self._stray(stream, count, events)
        elif count:
            events.append((stream, view[:count]))
            if self._fin and not self._left:
                self._finish(stream, events)
        return count

    def _stray(self, stream: int, count: int, events: list[Event]) -> None:
        """Judge DATA where none may be."""
        state = self._streams.get(stream)
        if state is None:
            self._known(stream, "DATA")
            self.late += count
        else:
            self._fail(stream, STREAM_ALREADY_CLOSED if state & _REPLIED else PROTOCOL_ERROR, events)
            self.late += count

    def _control(self, word: int, flags: int, body: memoryview, events: list[Event]) -> None:
        if word >> 16 != _VERSION:
            raise ProtocolError(f"a frame of version {word >> 16 & 0x7FFF}, not of SPDY/3")
        found = self._CONTROLS.get(word & 0xFFFF)
        if found is None:
            return
        name, least, most, handle = found
        if not least <= len(body) <= most:
            raise ProtocolError(f"{name} of {len(body)} bytes")
        handle(self, flags, body, events)

    def _on_syn_stream(self, _flags: int, body: memoryview, _events: list[Event]) -> None:
        """Refuse a pushed stream; its headers are part of the zlib stream all the same."""
        (stream,) = _WORD.unpack_from(body)
        if not stream or stream & 1:
            raise ProtocolError(f"SYN_STREAM with the id {stream}, which is not the server's to give")
        self._inflate(body[10:])
        self._send_reset(stream, REFUSED_STREAM)

    def _on_syn_reply(self, flags: int, body: memoryview, events: list[Event]) -> None:
        stream, state, headers = self._with_headers("SYN_REPLY", body)
        if state & _REPLIED:
            self._fail(stream, STREAM_IN_USE, events)
        elif state:
            self._streams[stream] = state | _REPLIED
            events.append((stream, Replied(headers)))
            if flags & _FIN:
                self._finish(stream, events)

    def _on_headers(self, flags: int, body: memoryview, events: list[Event]) -> None:
        """More headers: nobody needs them, only their FIN counts."""
        stream, state, _ = self._with_headers("HEADERS", body)
        if state and state & _READABLE != _READABLE:
            self._fail(stream, STREAM_ALREADY_CLOSED if state & _REPLIED else PROTOCOL_ERROR, events)
        elif state and flags & _FIN:
            self._finish(stream, events)

    def _on_rst_stream(self, _flags: int, body: memoryview, events: list[Event]) -> None:
        stream, status = _PAIR.unpack(body)
        self._known(stream, "RST_STREAM")
        if self._streams.pop(stream, 0):
            events.append((stream, Reset(status)))

    def _on_ping(self, _flags: int, body: memoryview, events: list[Event]) -> None:
        (number,) = _WORD.unpack(body)
        if not number & 1:
            self._queue(_ONE_WORD.pack(_VERSION, _PING, 4, number))
        elif number in self._pings:
            self._pings.remove(number)
            events.append((0, Pong(number)))

    def _on_goaway(self, _flags: int, body: memoryview, events: list[Event]) -> None:
        last, status = _PAIR.unpack(body)
        self.goes_away = True
        for stream in [stream for stream in self._streams if stream > last]:
            del self._streams[stream]
            events.append((stream, Reset(REFUSED_STREAM)))
        events.append((0, GoAway(last, status)))

    _CONTROLS: ClassVar[dict[int, tuple[str, int, int, _Handler]]] = {
        1: ("SYN_STREAM", 10, MAX_CONTROL, _on_syn_stream),
        2: ("SYN_REPLY", 4, MAX_CONTROL, _on_syn_reply),
        3: ("RST_STREAM", 8, 8, _on_rst_stream),
        6: ("PING", 4, 4, _on_ping),
        7: ("GOAWAY", 8, 8, _on_goaway),
        8: ("HEADERS", 4, MAX_CONTROL, _on_headers),
    }
    """By type: name, least and most bytes of the body, handler. Control frames of other types are skipped."""

    def _with_headers(self, name: str, body: memoryview) -> tuple[int, int, dict[str, str]]:
        """Stream, its state (0: it is over) and headers of a frame that has them."""
        (stream,) = _WORD.unpack_from(body)
        self._known(stream, name)
        return stream, self._streams.get(stream, 0), self._inflate(body[4:])

    def _inflate(self, packed: memoryview) -> dict[str, str]:
        try:
            return spdy_headers.fields_of(self._inflater.inflate(packed))
        except spdy_headers.BlockError as err:
            raise ProtocolError(str(err)) from err

    def _known(self, stream: int, name: str) -> None:
        if not stream & 1 or stream >= self._next:
            raise ProtocolError(f"{name} for stream {stream}, which was never opened")

    def _finish(self, stream: int, events: list[Event]) -> None:
        self._keep(stream, self._streams[stream] & ~_UNFINISHED)
        events.append((stream, FINISHED))

    def _fail(self, stream: int, status: int, events: list[Event]) -> None:
        """Something of this stream alone broke the rules: it ends, the others live on (2.4.2)."""
        self.reset(stream, status)
        events.append((stream, Reset(status, by_peer=False)))

    def _keep(self, stream: int, state: int) -> None:
        if state & (_WRITABLE | _UNFINISHED):
            self._streams[stream] = state
        else:
            del self._streams[stream]

    def _send_reset(self, stream: int, status: int) -> None:
        self._queue(_TWO_WORDS.pack(_VERSION, _RST_STREAM, 8, stream, status))

    def _queue(self, frame: bytes) -> None:
        self._out.append(frame)
        self.pending += len(frame)

"""A carrier of the simplest kind, and its far end in the hands of a test.

Each frame is a kind, a channel, a length and that many bytes. From the loop: open (its port), data, end,
abort; from the far end: data, finished, cut, reset, untouched (refused).
"""

from __future__ import annotations

import socket
import struct

from tests.net.peers import DEADLINE

from kecs.net.messages import Endpoint
from kecs.net.poller import IN, OUT

_FRAME = struct.Struct("!cII")
OPEN, DATA, END, ABORT = b"O", b"D", b"E", b"A"
FINISHED, CUT, RESET, UNTOUCHED = b"F", b"C", b"R", b"U"
FULL = 256 * 1024


def carried(
    name: str = "t", port: int = 80, *, carrier: str = "ns/pod", rank: int = 1, **members
) -> Endpoint:
    """An endpoint that is reached through a carrier."""
    return Endpoint(name, "", port, rank=rank, carrier=carrier, **members)


class FakeCarrier:
    """The loop's side; `far` is the other one."""

    def __init__(self) -> None:
        self.sock, there = socket.socketpair()
        self.sock.setblocking(False)
        self.fd = self.sock.fileno()
        self.far = FarEnd(there)
        self.congested = False
        self.silent = False
        self.takes = True
        self.retired = False
        self.relieves = 0
        self.roused = 0
        self.piece = 0
        """How large the pieces are in which it hands out what came in one frame; 0: in one."""
        self._streams: dict = {}
        self._channels = 0
        self._out = b""
        self._in = b""
        self._waiting: dict = {}

    @property
    def load(self):
        return len(self._streams)

    def begin(self, loop, name):
        self._loop, self._name = loop, name
        loop.add(self, IN)

    def open(self, port, stream):
        self._channels += 1
        self._streams[self._channels] = stream
        self._write(OPEN, self._channels, str(port).encode())
        return self._channels

    def send(self, channel, data):
        if len(self._out) >= FULL:
            self._waiting[self._streams[channel]] = None
            return 0
        self._write(DATA, channel, bytes(data))
        return len(data)

    def quieten(self, _channel):
        pass

    def end(self, channel):
        self._write(END, channel)

    def abort(self, channel):
        self._streams.pop(channel, None)
        self._write(ABORT, channel)

    def relieved(self, _stream):
        self.relieves += 1

    def rouse(self):
        self.roused += 1

    def retire(self):
        self.retired = True
        if not self._streams:
            self._close()

    def on_event(self, mask):
        if mask & OUT:
            self._flush()
        if mask & ~OUT:
            self._read()

    def resume(self):
        self._read()

    def fail(self, error):
        raise error

    def _write(self, kind, channel, data=b""):
        self._out += _FRAME.pack(kind, channel, len(data)) + data
        self._flush()

    def _flush(self):
        try:
            self._out = self._out[self.sock.send(self._out) :] if self._out else b""
        except BlockingIOError:
            pass
        except OSError:
            return
        self._loop.poller.modify(self.fd, IN | OUT if self._out else IN)
        if not self._out:
            waiting, self._waiting = self._waiting, {}
            for stream in waiting:
                stream.go_on()

    def _read(self):
        try:
            data = self.sock.recv(1 << 20)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._close()
            self._loop.carriers.lost(self._name, self, "it ended")
            streams, self._streams = self._streams, {}
            for stream in streams.values():
                stream.lose("it ended")
            return
        self._in += data
        while len(self._in) >= _FRAME.size:
            kind, channel, size = _FRAME.unpack_from(self._in)
            if len(self._in) < _FRAME.size + size:
                return
            body = self._in[_FRAME.size : _FRAME.size + size]
            self._in = self._in[_FRAME.size + size :]
            self._hand_out(kind, channel, body)

    def _hand_out(self, kind, channel, body):
        stream = self._streams.get(channel)
        if stream is None:
            return
        if kind == DATA:
            step = self.piece or len(body)
            stream.received([memoryview(body)[at : at + step] for at in range(0, len(body), step)])
            return
        del self._streams[channel]
        if kind in (FINISHED, CUT):
            stream.finish(whole=kind == FINISHED)
        else:
            stream.fail(body.decode(), untouched=kind == UNTOUCHED)
        if self.retired and not self._streams:
            self._close()

    def _close(self):
        self._loop.ends.pop(self.fd, None)
        self.sock.close()


class FarEnd:
    """What the test says and hears."""

    def __init__(self, sock) -> None:
        self.sock = sock
        sock.settimeout(DEADLINE)
        self._in = b""

    def heard(self) -> tuple[bytes, int, bytes]:
        """Return the next frame."""
        while len(self._in) < _FRAME.size:
            self._more()
        kind, channel, size = _FRAME.unpack_from(self._in)
        while len(self._in) < _FRAME.size + size:
            self._more()
        body, self._in = self._in[_FRAME.size : _FRAME.size + size], self._in[_FRAME.size + size :]
        return kind, channel, body

    def opened(self, port: int = 80) -> int:
        """Expect an opening; return its channel."""
        kind, channel, body = self.heard()
        assert (kind, body) == (OPEN, str(port).encode())
        return channel

    def read(self, channel: int, size: int) -> bytes:
        """Read so many bytes of one stream."""
        data = b""
        while len(data) < size:
            kind, on, body = self.heard()
            assert (kind, on) == (DATA, channel)
            data += body
        return data

    def say(self, kind: bytes, channel: int, data: bytes = b"") -> None:
        """Send a frame."""
        self.sock.sendall(_FRAME.pack(kind, channel, len(data)) + data)

    def quiet(self, seconds: float) -> bool:
        """Whether nothing comes for so long."""
        self.sock.settimeout(seconds)
        try:
            self._more()
        except TimeoutError:
            return True
        finally:
            self.sock.settimeout(DEADLINE)
        return False

    def close(self) -> None:
        self.sock.close()

    def _more(self) -> None:
        data = self.sock.recv(1 << 20)
        assert data, "the carrier was closed"
        self._in += data

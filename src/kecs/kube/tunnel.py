"""The tunnel into one pod: many connections over one socket to the API server.

`kecs.agent.tunnels` makes one of what `kecs.kube.upgrade` opened and hands it to the relay loop by `Carry`;
it is a `kecs.net.carrier.Carrier`, and everything in here runs on the loop's thread and waits for nothing.

What it costs is decided at the far end, where the API server, the kubelet and the container runtime pass
the bytes on: each of them works per wake-up. So what the connections have to say leaves in one write, when
the loop has nothing else left to do: frames, openings and resets of any number of them.

The rules of the protocol are `wire.portforward`'s, what a slow client costs is `net.congestion`'s, what is
kept from the far end for the others' sake `kube.courtesy`'s and whether the far end lives `kube.pulse`'s.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import struct
import termios
from typing import TYPE_CHECKING

from kecs.kube.courtesy import Courtesy
from kecs.kube.pipe import pipe
from kecs.kube.pulse import QUIET, Pulse
from kecs.kube.uploads import WORKERS
from kecs.net import lull, precedence
from kecs.net.congestion import Congestion
from kecs.net.poller import ERROR, HANG_UP, IN, OUT
from kecs.wire.portforward import Client, Ended, Failure, Kind
from kecs.wire.spdy import Buffer, GoAway, Pong, ProtocolError
from kecs.wire.websocket import Framing

if TYPE_CHECKING:
    from kecs.kube.upgrade import Upgraded
    from kecs.net.loop import RelayLoop
    from kecs.net.stream import Stream

FULL = 256 * 1024
"""Bytes that wait for the socket at which connections keep what more they have, and are not read."""
UNUSED = 30.0
"""Seconds after which a second tunnel into a pod, that nobody uses any more, is closed."""
PORTION = 240 * 1024
"""Bytes that are worth waiting for while nobody else has anything to say (`kecs.net.lull`)."""
LITTLE = 16 * 1024
"""What is less than that is no part of a body at full speed: it is not delayed."""
REST = 0.001
"""Seconds to wait for them: each wake-up of this side is also one for the API server to give."""
FAST = 20e6
"""Bytes a second from which on that is tried."""
LOOK = 0.5
"""Seconds between two looks at who waits, while a client that does not read stops the tunnel."""

_WORDS = {
    Kind.REFUSED: "connection refused in the pod",
    Kind.RESET: "reset",
    Kind.GONE: "the pod is gone",
    Kind.TIMEOUT: "no answer in the pod",
}
"""What a person is told; the far end's own text is about its network namespaces."""

_log = logging.getLogger(__name__)


class Tunnel:
    """One connection to the API server that leads into one pod."""

    def __init__(self, upgraded: Upgraded) -> None:
        self.sock = upgraded.sock
        self.fd = upgraded.sock.fileno()
        self._loop: RelayLoop
        self._name = ""
        self._pipe = pipe(upgraded.sock)
        self._websocket = Framing() if upgraded.framing == "websocket" else None
        self._first = upgraded.rest
        self._client = Client()
        self._streams: dict[int, Stream] = {}
        """By channel, which is the connection's id in `wire.portforward`."""
        self._out = memoryview(b"")
        """What is being written."""
        self._blocked = False
        """The socket takes no more: epoll says when it does."""
        self._flushing = False
        """A flush is among the loop's `writes`."""
        self._queued = False
        """Among the loop's `ready`: there is more to be read that epoll does not know of."""
        self._gives_way = False
        """It reads nothing for a moment, for the sake of others."""
        self._waiting: dict[Stream, None] = {}
        """Streams whose clients have more to say than there is room for, in their turn."""
        self._congestion = Congestion()
        self._courtesy: Courtesy
        self._hopeless = False
        """A part of the far end stands still for ever."""
        self._said = (False, False)
        """Whether it is congested and paused, as far as the loop knows."""
        self._closed = False
        self._retired = False
        self._pulse = Pulse(0.0)
        self._flow: lull.Flow
        """What comes from the far end, of all connections together."""
        self._look_at = 0.0
        """When the far end is looked after next."""
        self._sent = 0
        """Bytes that the socket took."""
        self._used_at = 0.0

    # What `Carrier` says

    @property
    def load(self) -> int:
        """Streams that are open."""
        return len(self._streams)

    @property
    def takes(self) -> bool:
        """Whether it opens streams at all."""
        return not (self._closed or self._retired or self._hopeless) and self._client.can_open()

    @property
    def congested(self) -> bool:
        """Whether a stream holds up the others."""
        return self._courtesy.jammed or self._congestion.congested

    @property
    def silent(self) -> bool:
        """Whether it owes a sign of life."""
        return self._pulse.silent(self._loop.now) and not self._congestion.paused

    def begin(self, loop: RelayLoop, name: str) -> None:
        """Begin to serve."""
        self._loop, self._name = loop, name
        self._courtesy = Courtesy(loop, self._client, self)
        self._pulse, self._used_at = Pulse(loop.now), loop.now
        self._flow = lull.Flow(loop.now, FAST)
        loop.add(self, IN)
        self._look_at = self._pulse.next_look(loop.now)
        loop.at(self._look_at, self._tick)
        if self._first:
            self._take(memoryview(self._first))
            self._first = b""

    def open(self, port: int, stream: Stream) -> int:
        """Begin a stream."""
        channel = self._courtesy.open(port)
        self._streams[channel] = stream
        if self._pulse.due(self._loop.now, QUIET):
            self._ask()
        self._soon()
        if not self._client.can_open():
            self._loop.chores.append(self._exhausted)
        return channel

    def send(self, channel: int, data: memoryview) -> int:
        """Take bytes for the far end, all or none."""
        if not self._has_room() or not self._courtesy.may_send(channel):
            self._waiting[self._streams[channel]] = None
            return 0
        self._client.send(channel, bytes(data))
        self._courtesy.uploads.sent(channel)
        self._soon()
        if self._congestion.paused:
            self._loop.chores.append(self._reconsider)
        return len(data)

    def quieten(self, channel: int) -> None:
        """Note that this side of the stream sends nothing more."""
        self._courtesy.uploads.quietened(channel)

    def end(self, channel: int) -> None:
        """Say that this side of the stream sends nothing more."""
        self._client.half_close(channel)
        self._soon()

    def abort(self, channel: int) -> None:
        """End the stream at once."""
        stream = self._streams.pop(channel, None)
        if stream is not None:
            self._client.abort(channel)
            self._gone(channel, stream, given_up=False)
            self._soon()

    def relieved(self, stream: Stream) -> None:
        """Note that a client took what was kept for it."""
        self._congestion.note(stream, self._streams.values(), self._loop.now)
        self._tell()

    def retire(self) -> None:
        """Close when the last stream has ended."""
        self._retired = True
        self._close_if_done()

    def rouse(self) -> None:
        """Ask for a sign of life now."""
        if not self._closed and self._pulse.due(self._loop.now, 0.0):
            self._ask()

    def fail(self, error: Exception) -> None:
        """Keep an unexpected error with this tunnel."""
        _log.error("the tunnel to %s failed", self._name, exc_info=error)
        self._die(f"{type(error).__name__}: {error}")

    # Reading

    def on_event(self, mask: int) -> None:
        """Do what epoll saw."""
        self._loop.patient += 1
        if mask & OUT:
            self._write()
        if mask & ~OUT:
            if not self._congestion.paused:
                self._read()
            elif mask & (ERROR | HANG_UP):
                self._die("the connection broke")

    def resume(self) -> None:
        """Read on where the last turn was cut short."""
        self._loop.patient += 1
        self._queued = False
        if not (self._congestion.paused or self._gives_way):
            self._read()

    def _read(self) -> None:
        """Read what there is, at most one bufferful, and hand it out."""
        if self._closed:
            return
        view = self._loop.wide
        size, limit, more = 0, len(view), True
        why = None
        try:
            while more and size < limit:
                got = self._pipe.read(view[size:])
                if not got:
                    if got == 0:
                        why = "the API server closed the connection"
                    more = False
                    break
                size += got
                more = self._pipe.more()
        except OSError as error:
            why = error.strerror or str(error)
        if size:
            if self._pulse.heard(self._loop.now):
                self._loop.carriers.heard()
            self._take(view[:size])
            self._flow.moved(size, self._loop.now)
            if size >= LITTLE and self._loop.hurried:
                self._give_way()
            elif self._flow.resting and LITTLE <= size < PORTION:
                self._loop.may_rest[self] = REST
        if why is not None:
            self._die(self._reason(why))
        elif more and not self._closed:
            self._later()

    def _give_way(self) -> None:
        """Read nothing for a moment."""
        if not (self._gives_way or self._closed):
            self._gives_way = True
            self._watch()
            self._loop.at(self._loop.now + precedence.EVERY, self._come_back)

    def _come_back(self) -> None:
        self._gives_way = False
        if not self._closed:
            self._watch()
            self._later()  # there may be more that epoll does not know of

    def _take(self, data: memoryview) -> None:
        """Hand out what the far end says."""
        try:
            if self._websocket is None:
                self._hand_out(data)
                return
            for piece in self._websocket.receive(data):
                self._hand_out(memoryview(piece))
            if self._websocket.closed is not None:
                self._die(self._reason("the API server closed the connection"))
        except ProtocolError as error:
            self._die(f"the API server does not speak SPDY: {error}")

    def _hand_out(self, data: memoryview) -> None:
        run: list[memoryview] = []
        """Bytes for one stream, of frames that follow each other: its client gets them in one call."""
        speaker = 0
        for channel, what in self._client.receive(data):
            if type(what) is memoryview:
                if channel != speaker and run:
                    self._pass_on(speaker, run)
                    run = []
                speaker = channel
                run.append(what)
                continue
            if run:
                self._pass_on(speaker, run)
                run = []
            if isinstance(what, Ended | Failure):
                self._ended(channel, what)
            elif isinstance(what, GoAway):
                self._loop.chores.append(self._exhausted)
            elif isinstance(what, Pong):
                self._courtesy.pong(what.ping)
        if run:
            self._pass_on(speaker, run)
        self._tell()
        if self._client.session.pending:  # an answer to its ping, or resets
            self._soon()

    def _pass_on(self, channel: int, pieces: list[memoryview]) -> None:
        """Hand a stream what came for it."""
        stream = self._streams.get(channel)
        if stream is None:
            return
        self._courtesy.answered(channel, stream.port)
        try:
            stream.received(pieces)
        except Exception as error:  # noqa: BLE001 - the top of this connection's handling
            stream.connection.fail(error)
        if stream.buffered:
            self._congestion.note(stream, self._streams.values(), self._loop.now)

    def _ended(self, channel: int, what: Ended | Failure) -> None:
        stream = self._streams.pop(channel, None)
        if stream is None:
            return
        self._gone(channel, stream, given_up=True)
        if isinstance(what, Failure) and what.untouched:
            self._courtesy.refused(stream.port)
        try:
            if isinstance(what, Ended):
                stream.finish(whole=what.whole)
            else:
                stream.fail(_WORDS.get(what.kind, what.text), untouched=what.untouched)
        except Exception as error:  # noqa: BLE001 - the top of this connection's handling
            stream.connection.fail(error)

    def _reason(self, why: str) -> str:
        closed = self._websocket.closed if self._websocket is not None else None
        return why if closed is None or not closed.reason else f"{why}: {closed.reason}"

    def _later(self) -> None:
        if not (self._queued or self._gives_way):
            self._queued = True
            self._loop.ready.append(self)

    # Writing

    def _soon(self) -> None:
        """Write when the loop has nothing else to do, with what more there is to say by then."""
        if not self._flushing and not self._blocked and not self._closed:
            self._flushing = True
            self._loop.writes.append(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        try:
            self._write()
        except Exception as error:  # noqa: BLE001 - the top of this tunnel's handling
            self.fail(error)

    def _write(self) -> None:
        """Write all there is, and let those go on who waited for room."""
        while not self._closed:
            if not len(self._out):
                self._out = memoryview(b"".join(self._frames()))
                if not len(self._out):
                    break
            try:
                taken = self._pipe.write(self._out)
            except OSError as error:
                self._die(error.strerror or str(error))
                return
            if not taken:
                self._block(blocked=True)
                return
            self._sent += taken
            self._out = self._out[taken:]
        self._block(blocked=False)
        self._let_go_on()

    def _frames(self) -> list[Buffer]:
        self._courtesy.ask_if_due()
        frames = self._client.session.take()
        if self._websocket is None:
            return frames
        return [*self._websocket.take(), *self._websocket.wrap(frames)]

    def _let_go_on(self) -> None:
        """Let each that waits fill what room there is; who gets none, or has more, is behind the others."""
        if not self._waiting:
            return
        waiting, self._waiting = list(self._waiting), {}
        for index, stream in enumerate(waiting):
            if not self._has_room():
                self._waiting = dict.fromkeys(waiting[index:]) | self._waiting
                return
            try:
                stream.go_on()
            except Exception as error:  # noqa: BLE001 - the top of this connection's handling
                stream.connection.fail(error)

    def _has_room(self) -> bool:
        return self._client.session.pending + len(self._out) < FULL

    def _block(self, *, blocked: bool) -> None:
        if blocked != self._blocked and not self._closed:
            self._blocked = blocked
            self._watch()

    def _watch(self) -> None:
        mask = 0 if self._said[1] or self._gives_way else IN
        self._loop.poller.modify(self.fd, mask | OUT if self._blocked else mask)

    # Slow clients

    def _tell(self) -> None:
        """Act on a change: new connections go elsewhere, reading stops."""
        congestion = self._congestion
        before, self._said = self._said, (self.congested, congestion.paused)
        if before == self._said or self._closed:
            return
        if before[0] != self.congested:
            self._loop.carriers.changed(self._name, self)
        if before[1] != congestion.paused:
            self._watch()
            if congestion.paused:
                self._loop.at(self._loop.now + LOOK, self._look)
            else:
                self._later()

    def _reconsider(self) -> None:
        """Read on for a connection that waits for an answer now."""
        self._congestion.look(self._streams.values(), self._loop.now)
        self._tell()

    def _look(self) -> None:
        """End the client that does not read, when others wait because of it."""
        if self._closed or not self._congestion.paused:
            return
        culprit = self._congestion.culprit(self._streams.values(), self._loop.now)
        if culprit is not None:
            culprit.connection.reset("it did not read while others waited for the same tunnel")
        if self._congestion.paused:
            self._loop.at(self._loop.now + LOOK, self._look)

    # Uploads (`Face` of `kube.courtesy`)

    def ping(self) -> int:
        """Send a PING, with what else there is to say."""
        self._soon()
        return self._client.session.ping()

    def is_backlogged(self) -> bool:
        """Whether answers may be late for a reason on this side."""
        return self._congestion.paused or self._blocked or self._unsent() > FULL

    def go_on(self) -> None:
        """Let connections send that could not."""
        if self._waiting:
            self._loop.chores.append(self._let_go_on)

    def judged(self) -> None:
        """Tell the loop when new connections are better off elsewhere."""
        self._tell()

    def give_up(self, workers: set[int]) -> None:
        """End what needs these workers of the far end, or open it elsewhere; open nothing more."""
        if self._closed:
            return
        if not self._hopeless:
            self._hopeless = True
            self._loop.carriers.changed(self._name, self)
        uploads = self._courtesy.uploads
        for channel, stream in list(self._streams.items()):
            if uploads.has_not_begun(channel, workers):
                del self._streams[channel]
                self._client.abort(channel)
                self._gone(channel, stream, given_up=False)
                stream.fail("the tunnel is jammed", untouched=True)
            elif channel % WORKERS in workers and (stream.pending is not None or uploads.is_behind(channel)):
                stream.connection.reset("the tunnel is jammed")
        self._soon()

    # Life and death

    def _tick(self) -> None:
        """Ask for a sign of life when there was none, and let go of a tunnel that is not needed any more."""
        loop, pulse = self._loop, self._pulse
        if self._closed or loop.now < self._look_at:
            return  # an earlier one did it
        if self._streams:
            self._used_at = loop.now
        elif loop.now - self._used_at >= UNUSED and loop.carriers.others(self._name, self):
            loop.carriers.spare(self._name, self)
            return
        if pulse.lost(loop.now, reached=self._reached(), paused=self._congestion.paused):
            self._die(f"no sign of life for {pulse.silence(loop.now):.1f} s")
            return
        if pulse.due(loop.now):
            self._ask()
        else:
            self._look_after(pulse.next_look(loop.now))

    def _ask(self) -> None:
        """Ask for a sign of life."""
        if self._courtesy.uploads.exhausted:
            self._pulse.heard(self._loop.now)  # TCP's own keep-alive has to do
        else:
            self._courtesy.ask()
            behind = self._sent + len(self._out) + self._client.session.pending
            self._pulse.asked(self._loop.now, reached=self._reached(), behind=behind)
        self._look_after(self._pulse.next_look(self._loop.now))

    def _look_after(self, when: float) -> None:
        """Look after the far end at `when`, or before."""
        if when < self._look_at or self._look_at <= self._loop.now:
            self._look_at = when
            self._loop.at(when, self._tick)

    def _reached(self) -> int:
        """Bytes that have reached the other side's kernel. A piece of TLS that leaves slowly counts, too."""
        return self._sent + self._pipe.begun() - self._unsent()

    def _unsent(self) -> int:
        """Bytes (of TLS) that have not reached the other side's kernel (tcp(7), SIOCOUTQ)."""
        with contextlib.suppress(OSError):
            raw = fcntl.ioctl(self.fd, termios.TIOCOUTQ, b"\0\0\0\0")
            return int(struct.unpack("i", raw)[0])
        return 0

    def _exhausted(self) -> None:
        """Have another tunnel opened: this one takes no more streams, and ends with those it has."""
        if not self._closed:
            self._loop.carriers.changed(self._name, self)

    def _gone(self, channel: int, stream: Stream, *, given_up: bool) -> None:
        """Forget a stream."""
        self._courtesy.over(channel, given_up=given_up)
        self._waiting.pop(stream, None)
        self._congestion.over(stream, self._streams.values(), self._loop.now)
        self._tell()
        if self._retired and not self._streams:
            self._loop.chores.append(self._close_if_done)

    def _close_if_done(self) -> None:
        if not self._streams and not self._closed:
            self._close()

    def _close(self) -> None:
        self._closed = True
        self._loop.ends.pop(self.fd, None)
        self.sock.close()
        self._out = memoryview(b"")
        self._waiting.clear()
        self._courtesy.close()

    def _die(self, why: str) -> None:
        """Close, and tell everyone whose connection ends with it."""
        if self._closed:
            return
        self._close()
        streams, self._streams = self._streams, {}
        self._loop.carriers.lost(self._name, self, why)
        for stream in streams.values():
            stream.lose(f"the tunnel was lost: {why}")

"""The relay loop: one thread that owns every listener and every relayed socket (contracts, 1).

The agent starts it, sends it messages (`kecs.net.messages`) and is called back on the loop's thread.
Nothing here waits but `poll`; nothing is shared with other threads but the inbox and one wake-up.

A turn: wait for events and handle them; go on with those whose last turn was cut short; then the
chores (accepting, dialling anew, messages); then what is due by time; and once no event is left, what
carriers have to write. Descriptors are closed while
events are handled but made only after, in the chores: so an event can never meet a descriptor
that was closed and given out again in the same round.
"""

from __future__ import annotations

import collections
import heapq
import itertools
import logging
import resource
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from kecs.net import lull, poller, precedence
from kecs.net.bell import Bell
from kecs.net.bulk import Pipes
from kecs.net.carrier import Pools
from kecs.net.front import Front
from kecs.net.messages import (
    Awake,
    Barrier,
    Carry,
    Close,
    CloseFront,
    Died,
    Drained,
    FromLoop,
    Listen,
    Names,
    OpenFront,
    Query,
    Refused,
    Retire,
    Seen,
    Snapshot,
    Stats,
    Stop,
    ToLoop,
    Watch,
)
from kecs.net.relay import BUFFER
from kecs.net.served import Served
from kecs.net.udp import ServedByDatagrams

if TYPE_CHECKING:
    from kecs.net.accept import Accepting

_log = logging.getLogger(__name__)

CONNECT_TIMEOUT = 3.0
"""Seconds for a connect on a direct route: one lost SYN is sent again after 1 s (RFC 6298, 2.1)."""

PAUSE = 0.1
"""Seconds until accepting is tried again after descriptors ran out, unless one is freed before."""

RESERVE = 48
"""Descriptors that are left for what the rest of the process may still open: files, its own sockets."""

WIDE = 256 * 1024
"""Size of the buffer into which carriers read, made with the first of them."""

NARROW = 16 * 1024
"""How much of it one may fill in a turn in which others have something to say: a record of TLS. So a body
that comes by a tunnel takes a direct forward some 50 microseconds a turn, and not a millisecond."""

PUT_OFF = 8
"""Turns for which carriers' writes are put off while there are events: what eight connections have to say
then leaves in one write. The far end of a tunnel works per write, not per byte (`kecs.kube.tunnel`); with 8
clients this saves a fifth to a third of all that a request costs."""

_EVENTS = 256
"""Events fetched at once."""


class Watched(Protocol):
    """What stands behind a descriptor."""

    fd: int

    def on_event(self, mask: int, /) -> None:
        """Handle these events."""

    def fail(self, error: Exception, /) -> None:
        """Handle an unexpected error of `on_event`."""


class Resumable(Protocol):
    """What goes on after its turn was cut short."""

    def resume(self) -> None:
        """Go on."""

    def fail(self, error: Exception, /) -> None:
        """Handle an unexpected error of `resume`."""


class RelayLoop:
    """The thread. `start`, `send` and `join` are for other threads, all else is the loop's own."""

    def __init__(
        self, on_message: Callable[[FromLoop], None], *, connect_timeout: float = CONNECT_TIMEOUT
    ) -> None:
        """`on_message` is called on the loop's thread and must only hand the message on."""
        self.say = on_message
        self.connect_timeout = connect_timeout
        self.pause = PAUSE
        self.poller = poller.new()
        self.view = memoryview(bytearray(BUFFER))
        """The one buffer; only what is done within one call is ever in it."""
        self.ends: dict[int, Watched] = {}
        """What stands behind each descriptor."""
        self.ready: list[Resumable] = []
        """Those whose turn was cut short."""
        self.chores: list[Callable[[], None]] = []
        self.writes: list[Callable[[], None]] = []
        """What carriers write when nothing else is left to do; a write must not raise."""
        self.now = time.monotonic()
        """The time when this turn began."""
        self.turn = 0
        self.may_rest: dict[Resumable, float] = {}
        """Streams of which there will be more if this thread rests now, for so many seconds each."""
        self.patient = 0
        """Times so far that a carrier, who comes by it or a bulk stream had something to say."""
        self.held = 0
        """Held connections of all forwards: each will need a descriptor more."""
        self.carriers = Pools(self)
        self.pipes = Pipes(self.has_room)
        self._wide: memoryview | None = None
        self._narrow: memoryview | None = None
        self._events: list[tuple[int, int]] = []
        self._resumed: list[Resumable] = []
        """What this turn is about."""
        self._crowded: bool | None = None
        """Several descriptors have something to say in this turn; None: nobody has asked."""
        self._forwards: dict[str, Served | ServedByDatagrams] = {}
        self._front = Front(self)
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._heard = 0
        """Times so far that anybody had something to say."""
        self._precedence = precedence.Precedence(self.now)
        self._put_off = 0
        """Turns for which `writes` have waited."""
        self._paused: list[Accepting] = []
        self._starved_at = float("-inf")
        self._hungry: dict[Served, None] = {}
        """Forwards with connections that no descriptor was left to dial for; before new ones."""
        self._ceiling = _ceiling(ours=0)
        self._inbox: collections.deque[ToLoop] = collections.deque()
        self._bell = Bell(self)
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="relay-loop", daemon=True)
        self.add(self._bell, poller.IN)

    # For other threads

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def send(self, message: ToLoop) -> None:
        """Have `message` handled, after all that were sent before. Sockets in it are the loop's now."""
        self._inbox.append(message)
        if not self._bell.ring():
            self._drop_inbox()

    def join(self, timeout: float | None = None) -> bool:
        """Wait for the thread's end (`Stop`); False when it goes on after `timeout` seconds."""
        self._thread.join(timeout)
        return not self._thread.is_alive()

    # The thread

    def _run(self) -> None:
        why = None
        try:
            while not self._stopping:
                self._turn()
        except Exception as error:  # noqa: BLE001 - the top of the thread
            _log.exception("the relay loop failed")
            why = f"{type(error).__name__}: {error}"
        finally:
            self._close_all()
        if why is not None:
            self.say(Died(why))

    def _turn(self) -> None:
        events = self.poller.poll(self._timeout(), _EVENTS)
        self.now = time.monotonic()
        self.turn += 1
        ready, self.ready = self.ready, []
        self._heard += len(events) + len(ready)
        self._events, self._resumed, self._crowded = events, ready, None
        behind = self.ends.get
        for fd, mask in events:
            watched = behind(fd)
            if watched is not None:
                try:
                    watched.on_event(mask)
                except Exception as error:  # noqa: BLE001 - the top of this connection's handling
                    watched.fail(error)
        for end in ready:
            try:
                end.resume()
            except Exception as error:  # noqa: BLE001 - the top of this connection's handling
                end.fail(error)
        if self.chores:
            chores, self.chores = self.chores, []
            for chore in chores:
                chore()
        timers = self._timers
        while timers and timers[0][0] <= self.now:
            heapq.heappop(timers)[2]()
        if self.writes:
            self._write(busy=bool(events))
        if self.may_rest:
            self._rest()
        if ready:
            self._resumed = []

    def _rest(self) -> None:
        """Let more come (`kecs.net.lull`), unless somebody else has something to say or to do."""
        streams, self.may_rest = self.may_rest, {}
        if self._speakers() <= len(streams) and not self.chores and not self.writes:
            time.sleep(lull.together(streams.values()))

    def _speakers(self) -> int:
        """Count those that have something to say in this turn.

        A socket that takes more again has not. And one may be in both lists: cut short, and news of it since.
        """
        speakers: set[object] = {self.ends.get(fd) for fd, mask in self._events if mask != poller.OUT}
        speakers.update(self._resumed)
        return len(speakers)

    def _write(self, *, busy: bool) -> None:
        """Have carriers write, unless there were events just now: their connections may have more to say."""
        if busy and self._put_off < PUT_OFF:
            self._put_off += 1
            return
        self._put_off = 0
        writes, self.writes = self.writes, []
        for write in writes:
            write()

    def _timeout(self) -> float:
        if self.ready or self.chores or self.writes:
            return 0
        if not self._timers:
            return -1
        return max(0.0, self._timers[0][0] - time.monotonic())

    @property
    def wide(self) -> memoryview:
        """The buffer into which carriers read: `view` may be used while what was read is handed out.

        It is as long as what one may read in this turn.
        """
        if self._wide is None or self._narrow is None:
            self._wide = memoryview(bytearray(WIDE))
            self._narrow = self._wide[:NARROW]
        if self._precedence.look(self._heard - self.patient, self.now):
            return self._wide[: precedence.PORTION]
        if self._crowded is None:
            self._crowded = self._speakers() > 1
        return self._narrow if self._crowded else self._wide

    @property
    def hurried(self) -> bool:
        """Whether who has read into `wide` is to give way to others now (`kecs.net.precedence`)."""
        return self._precedence.given

    def at(self, when: float, what: Callable[[], None]) -> None:
        """Have `what` called at `when` (monotonic seconds)."""
        heapq.heappush(self._timers, (when, next(self._order), what))

    def add(self, watched: Watched, mask: int) -> None:
        """Begin to watch."""
        self.ends[watched.fd] = watched
        self.poller.register(watched.fd, mask)

    def _close_all(self) -> None:
        self._bell.close()
        self._drop_inbox()
        for watched in list(self.ends.values()):
            sock: Any = getattr(watched, "sock", None)
            if sock is not None:
                sock.close()
        self.ends.clear()
        self._forwards.clear()
        self.pipes.close()
        self.carriers = Pools(self)
        self.poller.close()

    def _drop_inbox(self) -> None:
        """Close what came too late."""
        while self._inbox:
            try:
                message = self._inbox.popleft()
            except IndexError:
                return
            if isinstance(message, Listen | OpenFront):
                for sock in message.sockets:
                    sock.close()
            elif isinstance(message, Carry):
                message.carrier.sock.close()

    # Messages

    def handle_messages(self) -> None:
        """Handle all that was sent, in order."""
        while self._inbox:
            message = self._inbox.popleft()
            _HANDLERS[type(message)](self, message)

    def _listen(self, message: Listen) -> None:
        served = self._forwards.get(message.forward)
        if message.datagrams is not None:
            if not isinstance(served, ServedByDatagrams):
                self._end(served)
                served = self._forwards[message.forward] = ServedByDatagrams(self, message.forward)
            served.listen(message.sockets, message.datagrams)
        else:
            if not isinstance(served, Served):
                self._end(served)
                served = self._forwards[message.forward] = Served(self, message.forward, message.hold)
            served.listen(message.sockets, message.hold)
        self._measure()  # with a forward come its log and its listeners

    def _snapshot(self, message: Snapshot) -> None:
        served = self._forwards.get(message.forward)
        if served is not None:
            served.snapshot(message.endpoints)
            return
        for name in sorted({endpoint.id for endpoint in message.endpoints if endpoint.draining}):
            self.say(Drained(message.forward, name))  # a forward that was closed has no connections

    def _barrier(self, message: Barrier) -> None:
        self.say(Seen(message.version))

    def _close(self, message: Close) -> None:
        served = self._forwards.get(message.forward)
        if served is not None:
            served.close(connections=message.connections)
            self.freed(served)

    def _end(self, served: Served | ServedByDatagrams | None) -> None:
        """End all of a forward that becomes one of another protocol."""
        if served is not None:
            served.close(connections=True)
            self.freed(served)

    def _query(self, message: Query) -> None:
        self.say(Stats(message.token, {name: s.counters() for name, s in self._forwards.items()}))

    def _open_front(self, message: OpenFront) -> None:
        self._front.listen(message.sockets)

    def _close_front(self, _message: CloseFront) -> None:
        self._front.close()

    def _name(self, message: Names) -> None:
        self._front.names = message.forwards

    def hand_over(self, forward: str, sock: socket.SocketType, peer: object, said: bytes) -> bool:
        """Give a client that is watched and has said this much to a forward; False when there is none."""
        served = self._forwards.get(forward)
        if not isinstance(served, Served) or served.closing:
            return False
        served.handed(sock, peer, said)
        return True

    def _watch(self, message: Watch) -> None:
        served = self._forwards.get(message.forward)
        if served is not None:
            served.watch(on=message.on)

    def _carry(self, message: Carry) -> None:
        self.carriers.add(message.name, message.carrier)
        self._measure()
        self.try_again()

    def _retire(self, message: Retire) -> None:
        self.carriers.retire(message.name)

    def _awake(self, _message: Awake) -> None:
        for carrier in list(self.carriers):
            carrier.rouse()
        for served in self._forwards.values():
            served.rouse()

    def _stop(self, _message: Stop) -> None:
        self._stopping = True

    def try_again(self) -> None:
        """Have all connections that wait tried again."""
        for served in self._forwards.values():
            served.try_again()

    # Descriptors

    def _measure(self) -> None:
        self._ceiling = _ceiling(ours=len(self.ends) + self.pipes.descriptors)

    def has_room(self) -> bool:
        """Whether one more connection, with its two descriptors, leaves the reserve alone."""
        used = len(self.ends) + self.held + self.pipes.descriptors
        return not self._hungry and used + 2 <= self._ceiling

    def has_room_for_clients(self) -> bool:
        """Whether a UDP client may have a descriptor: of the last quarter none, that is for connections.

        Such a client can be forgotten at any time; a connection that is not accepted waits.
        """
        return len(self.ends) + self.held + 1 <= self._ceiling - self._ceiling // 4

    def pause_accepting(self, listener: Accepting, why: str) -> None:
        """Let new connections wait in the kernel until a descriptor is freed, or a moment is over."""
        listener.pause()
        self.pipes.trim()
        if not self._paused:
            self.at(self.now + self.pause, self._resume)
        self._paused.append(listener)
        self._report(listener.served.name, why)

    def exhausted(self, served: Served, error: OSError) -> None:
        """Note that a dial of `served` found no descriptor: until one does, nothing is accepted."""
        self._hungry[served] = None
        self._report(served.name, error.strerror or str(error))

    def fed(self, served: Served) -> None:
        """Note that `served` found a descriptor, or needs none any more."""
        self._hungry.pop(served, None)

    def freed(self, served: Served | ServedByDatagrams) -> None:
        """Note that a connection of `served` is being closed."""
        self.unpause()
        if served.closing and not served.connections and self._forwards.get(served.name) is served:
            del self._forwards[served.name]

    def unpause(self) -> None:
        """Note that a descriptor is being closed."""
        if self._paused or self._hungry:
            self.chores.append(self._resume)

    def _resume(self) -> None:
        for served in list(self._hungry):
            served.serve_held()
        paused, self._paused = self._paused, []
        for listener in paused:
            listener.resume()

    def _report(self, forward: str, why: str) -> None:
        if self.now - self._starved_at >= 1.0:
            self._starved_at = self.now
            self.say(Refused(forward, "", f"new connections wait: {why}", time.time()))


_HANDLERS: dict[type, Callable[[RelayLoop, Any], None]] = {
    Listen: RelayLoop._listen,  # noqa: SLF001 - this class's own table
    Snapshot: RelayLoop._snapshot,  # noqa: SLF001
    Barrier: RelayLoop._barrier,  # noqa: SLF001
    Close: RelayLoop._close,  # noqa: SLF001
    Query: RelayLoop._query,  # noqa: SLF001
    OpenFront: RelayLoop._open_front,  # noqa: SLF001
    CloseFront: RelayLoop._close_front,  # noqa: SLF001
    Names: RelayLoop._name,  # noqa: SLF001
    Watch: RelayLoop._watch,  # noqa: SLF001
    Stop: RelayLoop._stop,  # noqa: SLF001
    Carry: RelayLoop._carry,  # noqa: SLF001
    Retire: RelayLoop._retire,  # noqa: SLF001
    Awake: RelayLoop._awake,  # noqa: SLF001
}


def _ceiling(ours: int) -> int:
    """Descriptors that the loop may use: the soft limit less the others' and the reserve.

    `ours` is how many it has. Of a tiny limit the reserve is not more than a quarter.
    """
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return 1 << 30
    others = sum(1 for _ in Path("/dev/fd").iterdir()) - ours
    return soft - others - min(RESERVE, soft // 4)

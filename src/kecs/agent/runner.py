"""One forward at work: it drives a `ForwardMachine`, owns the timer, tells who wants to know.

The machine decides, the relay loop moves bytes, the manager keeps the dictionary; in here effects become
calls (docs/design/design.md, 2).
"""

from __future__ import annotations

import asyncio
import logging
import random
import socket
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, Protocol

import msgspec

from kecs.agent.audience import Audience, Tell
from kecs.agent.history import History, moves
from kecs.agent.relay import listen
from kecs.agent.resolution import Resolution
from kecs.agent.rows import row_of
from kecs.agent.state import Entry
from kecs.client.rpc_types import ConnectionEvent, ForwardEvent, ForwardRow, LastError
from kecs.errors import KecsError
from kecs.forward import machine as m
from kecs.forward.backoff import Backoff
from kecs.net import listener
from kecs.net.messages import (
    Close,
    Counters,
    Ended,
    Endpoint,
    Opened,
    Refused,
    Snapshot,
    ToLoop,
    Waiting,
    Watch,
)

OnState = Callable[["Runner", m.State, m.State, str | None], None]
"""Called with a forward, its state before and now, and the reason of now."""


class Sends(Protocol):
    """What is needed of `kecs.agent.relay.Relay`."""

    def send(self, message: ToLoop) -> None:
        """Hand a message to the relay loop."""


class KeepsTunnels(Protocol):
    """What is needed of `kecs.agent.tunnels.Tunnels`."""

    def want(self, forward: str, names: Collection[str]) -> None:
        """Keep tunnels to these Pods open for the forward."""

    def error(self, name: str) -> str | None:
        """Say why there is none to this Pod."""


class Runner:
    """A forward that exists."""

    def __init__(
        self,
        entry: Entry,
        relay: Sends,
        *,
        addresses: Sequence[str],
        log_file: Path,
        on_change: Callable[[Runner], None],
        on_state: OnState | None = None,
        tunnels: KeepsTunnels | None = None,
    ) -> None:
        """`addresses` are those that are really listened on.

        `on_change` is called after each change, `on_state` when the state or its reason is another one.
        Without `tunnels` it leads nowhere by one.
        """
        self.entry = entry
        self.addresses = list(addresses)
        self._relay = relay
        self._on_change = on_change
        self._on_state = on_state
        self._tunnels = tunnels
        self._loop = asyncio.get_running_loop()
        self._machine = self._new_machine()
        self._state = self._machine.state
        """The one that was told last."""
        self._timer: asyncio.TimerHandle | None = None
        self._listening = False
        self._version = 0
        self._resolution = Resolution((), (), m.NoEndpoint(m.NEVER_HEARD))
        self._last_error: LastError | None = None
        self._refusals: dict[str, str] = {}
        """Endpoint id -> how the last connect to it failed."""
        self._holding = False
        self._counters = Counters()
        self._audience = Audience(self._report_connections)
        self._history = History(entry.name, log_file)

    @property
    def id(self) -> str:
        """The forward's id."""
        return self.entry.id

    @property
    def state(self) -> m.State:
        """State of the forward."""
        return self._machine.state

    @property
    def reason(self) -> str | None:
        """Why it is in that state."""
        return self._machine.reason

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """What the relay loop may hold connections to: nothing while the forward does not listen."""
        return self._resolution.endpoints if self._listening else ()

    @property
    def counters(self) -> Counters:
        """What was counted when the relay loop was asked last."""
        return self._counters

    @property
    def events(self) -> list[ForwardEvent]:
        """What happened to it since the agent began, as much as is kept; oldest first."""
        return list(self._history.events)

    # What happens to it

    def adopt(self, sockets: tuple[socket.socket, ...]) -> None:
        """Begin with sockets that are bound already."""
        self._history.note("state", f"started on port {self.entry.local_port} for {self.entry.target}")
        self._listen(sockets)
        self.handle(m.Bound())

    def restore(self) -> None:
        """Begin by binding the port that the forward had before; one that ended stays so."""
        if self.state is m.State.STARTING:
            self._history.note("state", f"restored on port {self.entry.local_port} for {self.entry.target}")
            self.handle(m.Started())

    def retry(self) -> None:
        """Try again at once when the port could not be bound."""
        if self.state is m.State.FAILED:
            self.handle(m.RetryDue())

    def become(self, entry: Entry, changes: Sequence[str]) -> None:
        """Be `entry` from now on, on the same port; who calls it tells it what it leads to then."""
        self._history.note("state", f"changed: {', '.join(changes)}")
        if self._listening and listen(entry, ()) != listen(self.entry, ()):
            self._relay.send(listen(entry, ()))
        self.entry = entry
        if self.state is m.State.FAILED:  # its retries may be other ones now, and a person has asked
            self._cancel_timer()
            self._machine = self._new_machine()
            self.restore()
        self._on_change(self)

    def leave_port(self, entry: Entry, addresses: Sequence[str]) -> None:
        """Listen no more, and be `entry` from now on; `renew` comes next.

        Open connections go on, unless it becomes one of another protocol.
        """
        self._cancel_timer()
        other = entry.protocol != self.entry.protocol
        if self._listening or other:
            self._relay.send(Close(self.id, connections=other))
        self._listening = False
        self._want_tunnels()
        self.entry, self.addresses = entry, list(addresses)
        self._machine = self._new_machine()
        self._resolution = Resolution((), (), m.NoEndpoint(m.NEVER_HEARD))
        self._on_change(self)

    def renew(self, sockets: tuple[socket.socket, ...] | None) -> None:
        """Begin anew after `leave_port`: with bound sockets, or by binding when None."""
        if sockets is not None:
            self.adopt(sockets)
        else:
            self.restore()

    def resolved(self, resolution: Resolution, version: int) -> None:
        """Take what the forward leads to as of `version` of the endpoints."""
        last, self._resolution, self._version = self._resolution, resolution, version
        # A task that was passed over and now leaves is told of, although that changes no endpoint: the relay
        # loop then says anew when it has no connection any more (docs/design/contracts.md, 2).
        moved = (resolution.endpoints, resolution.older) != (last.endpoints, last.older)
        for text in moves(last, resolution):
            self._history.note("endpoint", text)
        self._pin(resolution)
        if moved:
            self._want_tunnels()
        if moved and self._listening:
            self._relay.send(Snapshot(self.id, version, resolution.endpoints))
        before = self.state, self.reason
        self.handle(resolution.verdict)
        if _shown(resolution) != _shown(last) and (self.state, self.reason) == before:
            self._changed()

    def _pin(self, resolution: Resolution) -> None:
        """Keep to the first task that was chosen, where that is wanted."""
        entry, chosen = self.entry, resolution.chosen
        if chosen is None or entry.has_whole_task_id:
            return
        if not entry.auto_reconnect or entry.task_id is not None:
            self.entry = msgspec.structs.replace(entry, task_id=chosen.task_id)
            self._history.note("endpoint", f"it keeps to task {chosen.task_id[:8]} from now on")
            self._on_change(self)

    def tunnels_changed(self) -> None:
        """Take that a tunnel works again, or fails for another reason."""
        self._changed()

    def lost(self, reason: str) -> None:
        """Take that the control plane cannot be reached."""
        self.handle(m.ControlPlaneLost(reason))

    def stop(self) -> None:
        """Close everything, for good."""
        self.handle(m.Stopped())
        self._want_tunnels()
        self._history.note("state", "stopped")
        self.close()

    def close(self) -> None:
        """Let go of the log and the timer; the forward itself is not changed."""
        self._cancel_timer()
        self._history.close()

    def handle(self, event: m.Event) -> None:
        """Feed the machine, and perform what it asks for."""
        for effect in self._machine.handle(event, self._loop.time()):
            match effect:
                case m.Bind():
                    self._try_to_bind()
                case m.Close(connections):
                    self._close(connections=connections)
                case m.RetryAt(moment):
                    self._cancel_timer()
                    self._timer = self._loop.call_at(moment, self._retry_due)
                case m.CancelRetry():
                    self._cancel_timer()
                case m.Changed(state, reason):
                    self._note_state(state, reason)
                    self._changed()

    # What the relay loop says

    def refused(self, message: Refused) -> None:
        """Take that a connect failed (said once a second at most); it was tried elsewhere, or is held."""
        text = f"{_short(message.endpoint)}: {message.error}" if message.endpoint else message.error
        self._refusals[message.endpoint] = message.error
        self._last_error = LastError(message=text, time=message.time)
        what = "datagrams are lost" if self.entry.protocol == "udp" else "connect failed"
        self._history.note("refused", f"{what}: {text}", level=logging.WARNING, endpoint=message.endpoint)

    def waiting(self, message: Waiting) -> None:
        """Take that connections are held, or no longer."""
        if message.held and self.state is not m.State.ACTIVE:
            self._holding = True
            self._history.note("held", "holding new connections")
        elif self._holding and not message.held:
            self._holding = False
            self._history.note("held", "no connection is held any more")

    def opened(self, message: Opened) -> None:
        """Take that a connection was accepted (while somebody watches)."""
        self._tell_of_a_connection("opened", number=message.number, peer=message.peer)

    def ended(self, message: Ended) -> None:
        """Take that a connection ended (while somebody watches)."""
        self._tell_of_a_connection(
            "ended",
            number=message.number,
            why=message.why,
            received=message.received,
            sent=message.sent,
            seconds=message.seconds,
        )

    def _tell_of_a_connection(self, what: str, **members: Any) -> None:
        event = ConnectionEvent(
            type=what, time=time.time(), forward=self.id, protocol=self.entry.protocol, **members
        )
        self._audience.tell(event)

    # What people see

    async def change(self) -> None:
        """Wait for the next change of state, reason or endpoints."""
        await self._audience.change()

    def watch(self, tell: Tell) -> Callable[[], None]:
        """Call `tell` with each connection and change of state, until the returned function is called."""
        return self._audience.watch(tell)

    def row(self, counters: Counters | None = None) -> ForwardRow:
        """Return the forward as `list` shows it; without `counters`, with those last known."""
        if counters is not None:
            self._counters = counters
        return row_of(
            self.entry,
            self.state,
            self.reason,
            self._resolution,
            self._counters,
            addresses=self.addresses,
            last_error=self._last_error,
            error_of=self._error,
        )

    def _error(self, endpoint: Endpoint) -> str | None:
        broken = self._tunnels.error(endpoint.carrier) if endpoint.carrier and self._tunnels else None
        return broken or self._refusals.get(endpoint.id)

    # How it is done

    def _want_tunnels(self) -> None:
        if self._tunnels is not None:
            names = {endpoint.carrier for endpoint in self.endpoints if endpoint.carrier}
            self._tunnels.want(self.id, names)

    def _try_to_bind(self) -> None:
        try:
            udp = self.entry.protocol == "udp"
            sockets = listener.bind(self.addresses, self.entry.local_port, udp=udp)
        except KecsError as error:
            self._last_error = LastError(message=error.message, time=time.time())
            self.handle(m.BindFailed(error.message))
        else:
            self._listen(sockets)
            self.handle(m.Bound())

    def _listen(self, sockets: tuple[socket.socket, ...]) -> None:
        self._relay.send(listen(self.entry, sockets))
        self._listening = True
        self._want_tunnels()
        if self._resolution.endpoints:
            self._relay.send(Snapshot(self.id, self._version, self._resolution.endpoints))
        if self._audience.is_watching:
            self._report_connections(True)

    def _report_connections(self, on: bool) -> None:
        if self._listening:
            self._relay.send(Watch(self.id, on=on))

    def _close(self, *, connections: bool) -> None:
        self._cancel_timer()
        if self._listening or connections:
            self._relay.send(Close(self.id, connections=connections))
        self._listening = False
        self._want_tunnels()

    def _retry_due(self) -> None:
        self._timer = None
        self.handle(m.RetryDue())

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _changed(self) -> None:
        self._on_change(self)
        self._audience.changed()
        if self._audience.is_watching:
            event = ConnectionEvent(type="state", time=time.time(), forward=self.id, row=self.row())
            self._audience.tell(event)

    def _note_state(self, state: m.State, reason: str | None) -> None:
        level = logging.WARNING if state is m.State.FAILED else logging.INFO
        text = f"{state.value}: {reason}" if reason else state.value
        self._history.note("state", text, level=level, state=state.value, reason=reason)
        before, self._state = self._state, state
        if self._on_state is not None:
            self._on_state(self, before, state, reason)

    def _new_machine(self) -> m.ForwardMachine:
        retry = self.entry.retry
        backoff = Backoff(retry.initial, retry.max, retry.factor, retry.jitter)
        return m.ForwardMachine(random.random, retry=backoff, attempts=retry.attempts, ended=self.entry.ended)


def _shown(resolution: Resolution) -> object:
    """Return what people see of it, beside the machine's state and reason."""
    return (resolution.rows, resolution.chosen, resolution.matched, resolution.older, resolution.note)


def _short(endpoint: str) -> str:
    """Return the first 8 digits of a task's id, or a node's address."""
    return endpoint if "/" in endpoint else endpoint[:8]

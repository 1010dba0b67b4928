"""The life of one forward: events in, effects out.

Everything that decides a forward's state lives here, as a table. The agent's runner feeds events and
performs effects (docs/design/contracts.md, section 3). No I/O, no clock: `now` is an argument, in seconds
of any one clock; `RetryAt` answers in the same.

The local port is not in here at all: whatever happens, the machine cannot move it. The listener opens
once and closes only for good, whatever becomes of the endpoints.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum

from kecs.forward.backoff import Backoff


class State(Enum):
    """States as people see them; the values are words of the wire and of files."""

    STARTING = "STARTING"
    ACTIVE = "ACTIVE"
    """Listening, and an endpoint is ready."""
    WAITING = "WAITING"
    """Listening, none is ready: new connections are held."""
    FAILED = "FAILED"
    """Not listening; tried again, unless its `retry.attempts` are used up."""
    ENDED = "ENDED"
    """What it led to is gone, or it was stopped: closed for good."""


# Events


@dataclass(frozen=True, slots=True)
class Started:
    """The forward shall listen."""


@dataclass(frozen=True, slots=True)
class Bound:
    """It listens."""


@dataclass(frozen=True, slots=True)
class BindFailed:
    """It cannot listen; `reason` names the port and its holder."""

    reason: str


@dataclass(frozen=True, slots=True)
class EndpointsReady:
    """At least one endpoint takes connections."""


@dataclass(frozen=True, slots=True)
class NoEndpoint:
    """None does; `reason` says for what the forward waits."""

    reason: str


@dataclass(frozen=True, slots=True)
class ControlPlaneLost:
    """Nobody tells about endpoints any more; `reason` says since when. Those last known stay."""

    reason: str


@dataclass(frozen=True, slots=True)
class TargetGone:
    """What the forward leads to ended and cannot come back.

    That is a task, also one that `autoReconnect: false` pinned for a service or tags; a service never is.
    """

    reason: str


@dataclass(frozen=True, slots=True)
class RetryDue:
    """The time of `RetryAt` has come, or somebody asks for a try now."""


@dataclass(frozen=True, slots=True)
class Stopped:
    """The forward is taken away by a person."""


Event = (
    Started
    | Bound
    | BindFailed
    | EndpointsReady
    | NoEndpoint
    | ControlPlaneLost
    | TargetGone
    | RetryDue
    | Stopped
)

# Effects


@dataclass(frozen=True, slots=True)
class Bind:
    """Bind the forward's own port; answer `Bound` or `BindFailed`."""


@dataclass(frozen=True, slots=True)
class Close:
    """Close the listener, and either the held connections only or all of them."""

    connections: bool


@dataclass(frozen=True, slots=True)
class RetryAt:
    """Send `RetryDue` at `time`; it replaces an earlier one."""

    time: float


@dataclass(frozen=True, slots=True)
class CancelRetry:
    """No `RetryDue` is wanted any more."""


@dataclass(frozen=True, slots=True)
class Changed:
    """State or reason are other than before."""

    state: State
    reason: str | None


Effect = Bind | Close | RetryAt | CancelRetry | Changed

# The table


class Next(Enum):
    """Where a transition leads when that is not one fixed state."""

    SAME = "the state as it is"
    LISTENING = "ACTIVE or WAITING, by whether an endpoint is ready"


class Do(Enum):
    """What a transition does."""

    BIND = "Bind"
    RETRY = "RetryAt, or CancelRetry once the retries are used up"
    CANCEL_RETRY = "CancelRetry"
    CLOSE_LISTENER = "Close(connections=False)"
    CLOSE_ALL = "Close(connections=True)"


@dataclass(frozen=True, slots=True)
class Transition:
    """One entry of the table."""

    to: State | Next
    do: tuple[Do, ...] = ()


_STAY = Transition(Next.SAME)
_LISTEN = Transition(Next.LISTENING)

TRANSITIONS: Mapping[tuple[State, type[Event]], Transition] = {
    (State.STARTING, Started): Transition(State.STARTING, (Do.BIND,)),
    (State.STARTING, Bound): _LISTEN,
    (State.STARTING, BindFailed): Transition(State.FAILED, (Do.RETRY,)),
    (State.STARTING, EndpointsReady): _STAY,
    (State.STARTING, NoEndpoint): _STAY,
    (State.STARTING, ControlPlaneLost): _STAY,
    (State.STARTING, TargetGone): Transition(State.ENDED, (Do.CLOSE_LISTENER,)),
    (State.STARTING, Stopped): Transition(State.ENDED, (Do.CLOSE_ALL,)),
    **{
        key: transition
        for state in (State.ACTIVE, State.WAITING)
        for key, transition in {
            (state, EndpointsReady): _LISTEN,
            (state, NoEndpoint): _LISTEN,
            (state, ControlPlaneLost): _STAY,
            (state, TargetGone): Transition(State.ENDED, (Do.CLOSE_LISTENER,)),
            (state, RetryDue): _STAY,  # a timer that was on its way when the port was bound
            (state, Stopped): Transition(State.ENDED, (Do.CLOSE_ALL,)),
        }.items()
    },
    # FAILED stays FAILED while it tries again: a state that flickers tells a person nothing.
    (State.FAILED, RetryDue): Transition(State.FAILED, (Do.BIND,)),
    (State.FAILED, Bound): Transition(Next.LISTENING, (Do.CANCEL_RETRY,)),
    (State.FAILED, BindFailed): Transition(State.FAILED, (Do.RETRY,)),
    (State.FAILED, EndpointsReady): _STAY,
    (State.FAILED, NoEndpoint): _STAY,
    (State.FAILED, ControlPlaneLost): _STAY,
    (State.FAILED, TargetGone): Transition(State.ENDED, (Do.CANCEL_RETRY,)),
    # Connections of the port that it had before a file gave it another one, which is taken.
    (State.FAILED, Stopped): Transition(State.ENDED, (Do.CANCEL_RETRY, Do.CLOSE_ALL)),
    (State.ENDED, Bound): Transition(State.ENDED, (Do.CLOSE_ALL,)),  # asked for before the end
    (State.ENDED, BindFailed): _STAY,
    (State.ENDED, EndpointsReady): _STAY,
    (State.ENDED, NoEndpoint): _STAY,
    (State.ENDED, ControlPlaneLost): _STAY,
    (State.ENDED, TargetGone): _STAY,
    (State.ENDED, RetryDue): _STAY,
    (State.ENDED, Stopped): Transition(State.ENDED, (Do.CLOSE_ALL,)),  # connections that outlived the task
}
"""A missing key is a mistake of the caller: `handle` raises `ImpossibleEvent`."""


class ImpossibleEvent(RuntimeError):  # noqa: N818 - h11 calls its like LocalProtocolError; this one says what it is
    """An event that cannot happen in this state."""


NEVER_HEARD = "the control plane has not told yet what it leads to"
BIND_RETRY = Backoff(first=0.5, cap=15.0)
"""A holder of a port often is a process that restarts: try soon, then seldom."""
GIVEN_UP = "given up after"
"""Stands in the reason of a forward that does not try again by itself."""


class ForwardMachine:
    """State, reason, and the facts behind them."""

    def __init__(
        self,
        random: Callable[[], float],
        *,
        retry: Backoff = BIND_RETRY,
        attempts: int = 0,
        ended: str | None = None,
    ) -> None:
        """Begin STARTING, or ENDED for the reason `ended`.

        After `attempts` retries of a port that cannot be bound it gives up and stays FAILED; 0: it never
        gives up. A `RetryDue` that comes all the same is one more try.
        """
        self.state = State.STARTING if ended is None else State.ENDED
        self._random = random
        self._retry = retry
        self._attempts = attempts
        self._failures = 0
        self._failure: str | None = None
        self._ready = False
        self._waits_for = NEVER_HEARD
        self._lost: str | None = None
        self._ended = ended

    @property
    def reason(self) -> str | None:
        """Why the state is what it is; None when there is nothing to explain."""
        match self.state:
            case State.ACTIVE:
                return self._lost
            case State.WAITING:
                return self._lost or self._waits_for
            case State.FAILED:
                return f"{self._failure}; {self._given_up}" if self._gave_up else self._failure
            case State.ENDED:
                return self._ended
            case State.STARTING:
                return None

    @property
    def _gave_up(self) -> bool:
        return 0 < self._attempts < self._failures

    @property
    def _given_up(self) -> str:
        retries = "1 retry" if self._attempts == 1 else f"{self._attempts} retries"
        return f"{GIVEN_UP} {retries}: free the port, then start it again"

    def handle(self, event: Event, now: float) -> list[Effect]:
        """Take one event; return what is to be done about it, in order."""
        transition = TRANSITIONS.get((self.state, type(event)))
        if transition is None:
            raise ImpossibleEvent(f"{type(event).__name__} in {self.state.value}")
        before = (self.state, self.reason)
        self._learn(event)
        match transition.to:
            case State() as state:
                self.state = state
            case Next.LISTENING:
                self.state = State.ACTIVE if self._ready else State.WAITING
            case Next.SAME:
                pass
        effects = [self._effect(do, now) for do in transition.do]
        if (self.state, self.reason) != before:
            effects.append(Changed(self.state, self.reason))
        return effects

    def _learn(self, event: Event) -> None:
        """Keep the facts that `event` brings, in whatever state."""
        match event:
            case EndpointsReady():
                self._ready, self._lost = True, None
            case NoEndpoint(reason):
                self._ready, self._waits_for, self._lost = False, reason, None
            case ControlPlaneLost(reason):
                self._lost = reason
            case Bound():
                self._failures, self._failure = 0, None
            case BindFailed(reason):
                self._failures, self._failure = self._failures + 1, reason
            case TargetGone(reason) if self.state is not State.ENDED:
                self._ended = reason
            case Stopped() if self.state is not State.ENDED:
                self._ended = "it was stopped"

    def _effect(self, do: Do, now: float) -> Effect:
        match do:
            case Do.BIND:
                return Bind()
            case Do.RETRY:
                if self._gave_up:
                    return CancelRetry()
                return RetryAt(now + self._retry.delay(self._failures - 1, self._random))
            case Do.CANCEL_RETRY:
                return CancelRetry()
            case Do.CLOSE_LISTENER:
                return Close(connections=False)
            case Do.CLOSE_ALL:
                return Close(connections=True)

"""When a person is told of a forward, and of what: pure, with times as arguments (monotonic seconds).

`kecs.agent.notifier` keeps one `Coalescer` for each forward with `notify` and sends what it answers. A
forward that stops serving for a moment is no news, and one that flaps is told of once in `WINDOW`: each
notice says how many interruptions were left out before it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import msgspec

from kecs.agent.state import Entry
from kecs.forward.machine import State

Kind = Literal["reconnecting", "reconnected", "failed"]

PATIENCE = 2.0
"""Seconds without a ready endpoint after which it is an interruption: a task that is replaced takes less."""
WINDOW = 30.0
"""Seconds in which a forward is told of as `reconnecting` and `reconnected` once each, at most."""


@dataclass(frozen=True, slots=True)
class Notice:
    """What a person is to be told."""

    kind: Kind
    state: State
    reason: str | None
    seconds: float | None = None
    """For how long it did not serve (`reconnected`)."""
    left_out: int = 0
    """Interruptions since the notice before, of which nothing was told."""


class Event(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A notice as commands and webhooks get it, in JSON (docs/guides/health-and-notifications.md)."""

    event: Kind
    time: float
    """Epoch seconds."""
    instance: str
    forward: str
    """Its name."""
    id: str
    target: str
    local_port: int
    state: str
    reason: str | None
    seconds: float | None
    left_out: int
    text: str
    """All of it in a sentence."""


def event_of(notice: Notice, entry: Entry, *, instance: str, time: float) -> Event:
    """Return what is sent of a notice about this forward."""
    return Event(
        event=notice.kind,
        time=time,
        instance=instance,
        forward=entry.name,
        id=entry.id,
        target=f"{entry.target}:{entry.port}",
        local_port=entry.local_port,
        state=notice.state.value,
        reason=notice.reason,
        seconds=None if notice.seconds is None else round(notice.seconds, 1),
        left_out=notice.left_out,
        text=_text(notice, entry),
    )


def _text(notice: Notice, entry: Entry) -> str:
    text = f"{entry.target}:{entry.port} on port {entry.local_port} "
    if notice.kind == "reconnected":
        text += "is served again"
        text += f" after {notice.seconds:.0f} s" if notice.seconds is not None else ""
    else:
        text += "is waited for" if notice.kind == "reconnecting" else f"is {notice.state.value}"
        text += f": {notice.reason}" if notice.reason else ""
    if notice.left_out:
        plural = "" if notice.left_out == 1 else "s"
        text += f" ({notice.left_out} more interruption{plural} before that)"
    return text


class Coalescer:
    """What one forward has been through, and what the person believes of it.

    A forward that never served is not reconnecting: until its first ACTIVE only `failed` is told.
    """

    def __init__(self) -> None:
        self._state = State.STARTING
        self._reason: str | None = None
        self._served = False
        self._down_since: float | None = None
        """When it stopped serving; None while it serves, or before it ever did."""
        self._counted = False
        """The interruption that lasts was told, or counted as left out."""
        self._told: Kind = "reconnected"
        """What the person believes: `reconnected` stands for serving."""
        self._failure: str | None = None
        self._window_ends = -math.inf
        self._left_out = 0

    def took(self, state: State, reason: str | None, now: float) -> list[Notice]:
        """Take a change of the forward's state; return what is to be told at once."""
        notices = self.due(now)  # what fell due before this
        self._state, self._reason = state, reason
        if state is State.ACTIVE:
            return notices + self._up(now)
        if self._served and self._down_since is None:
            self._down_since, self._counted = now, False
        if state in (State.FAILED, State.ENDED):
            return notices + self._failed(reason)
        return notices

    def due(self, now: float) -> list[Notice]:
        """Return what is to be told by now because nothing has changed."""
        when = self.next()
        if when is None or now < when:
            return []
        if self._down_since is None:
            return [self._summary(now)]
        if now < self._window_ends:
            self._counted = True
            self._left_out += 1
            return self.due(now)
        if not self._counted:
            return [self._reconnecting(now)]
        self._left_out -= 1  # this one is told after all
        return [self._reconnecting(now)]

    def next(self) -> float | None:
        """Return when `due` has something to say, or to count; None: not before the next change."""
        if self._told == "failed" or self._state in (State.FAILED, State.ENDED):
            return None
        if self._down_since is None:
            return self._window_ends if self._left_out and self._told == "reconnected" else None
        if self._told == "reconnecting":
            return None
        noticed = self._down_since + PATIENCE
        return max(noticed, self._window_ends) if self._counted else noticed

    def _up(self, now: float) -> list[Notice]:
        since, self._down_since = self._down_since, None
        self._served = True
        if self._told == "reconnected":
            return []
        self._told = "reconnected"
        seconds = None if since is None else now - since
        return [Notice("reconnected", self._state, self._reason, seconds, self._take())]

    def _failed(self, reason: str | None) -> list[Notice]:
        if self._told == "failed" and (self._state is State.FAILED or reason == self._failure):
            return []  # it tries again and again; the reason may name another holder of the port
        self._told, self._failure = "failed", reason
        return [Notice("failed", self._state, reason, left_out=self._take())]

    def _reconnecting(self, now: float) -> Notice:
        self._told, self._counted = "reconnecting", True
        self._window_ends = now + WINDOW
        return Notice("reconnecting", self._state, self._reason, left_out=self._take())

    def _summary(self, now: float) -> Notice:
        """Say at the end of a window that it serves, and how often it did not."""
        self._window_ends = now + WINDOW
        return Notice("reconnected", self._state, self._reason, left_out=self._take())

    def _take(self) -> int:
        taken, self._left_out = self._left_out, 0
        return taken

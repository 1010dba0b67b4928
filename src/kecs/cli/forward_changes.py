"""Following the forwards of an instance through restarts of its agent.

For `port-forward list --watch`, `run --wait` and `run --watch`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from kecs.cli.forward_row import Row
from kecs.cli.session import Session
from kecs.errors import ExitCode, KecsError

if TYPE_CHECKING:
    from kecs.client.agent import AgentClient

Change = tuple[list[Row], list[str]]
"""Rows that are new or other than before, and ids that are gone."""


class Listener:
    """Lets another thread end `changes`."""

    def __init__(self) -> None:
        self.left = threading.Event()
        self._agent: AgentClient | None = None

    def hears(self, agent: AgentClient) -> None:
        """Note whom `changes` listens to now."""
        self._agent = agent
        if self.left.is_set():
            agent.hang_up()

    def leave(self) -> None:
        """Have `changes` end, whatever it waits for."""
        self.left.set()
        if self._agent is not None:
            self._agent.hang_up()


def changes(session: Session, end: float | None = None, listener: Listener | None = None) -> Iterator[Change]:
    """Yield all forwards, then each change, until `end` (`time.monotonic`) or `listener` leaves.

    What an agent that came back says is compared with what was known. Starts no agent that a person stopped:
    raises `KecsError` (exit 5) then.
    """
    from kecs.client import launch
    from kecs.client.agent import WentAway

    listener = listener or Listener()
    known: dict[str, Row] | None = None
    while not listener.left.is_set() and (end is None or time.monotonic() < end):
        _require(session)
        try:
            with launch.connect_agent(session.paths, session.note) as agent:
                listener.hears(agent)
                snapshot = True
                for rows, removed in agent.subscribe(end):
                    change = _since(known, rows) if snapshot else (rows, removed)
                    if known is None or any(change):
                        yield change
                    known = _after(known or {}, change)
                    snapshot = False
        except WentAway:
            continue  # it died, or is being replaced: it comes back with the same forwards


def _since(known: dict[str, Row] | None, rows: list[Row]) -> Change:
    """Return how `rows`, which are all of now, differ from what was known."""
    before = known or {}
    there = {row["id"] for row in rows}
    return [row for row in rows if before.get(row["id"]) != row], [one for one in before if one not in there]


def _after(known: dict[str, Row], change: Change) -> dict[str, Row]:
    rows, removed = change
    left = {identity: row for identity, row in known.items() if identity not in removed}
    return left | {row["id"]: row for row in rows}


def _require(session: Session) -> None:
    """Raise when the agent is not wanted: following starts nothing that a person stopped."""
    from kecs.client import launch

    if launch.require_running(session.paths).agent == "stopped":
        raise KecsError(
            "the agent is stopped",
            f"start it by {session.command('port-forward agent restart')}",
            ExitCode.UNREACHABLE,
        )

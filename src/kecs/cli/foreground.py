"""`--foreground`: print what happens to forwards, and end them when the person leaves."""

from __future__ import annotations

import queue
import signal
import threading
import time
from types import FrameType
from typing import TYPE_CHECKING

from kecs.cli import output as out
from kecs.cli.session import Session
from kecs.errors import KecsError

if TYPE_CHECKING:
    from kecs.client.rpc_types import ConnectionEvent, ForwardRow, StartReply

GLANCE = 0.5
"""Seconds in which Ctrl-C is noticed at the latest where a queue's wait cannot be interrupted."""


def stay(session: Session, reply: StartReply) -> None:
    """Print events until Ctrl-C, SIGTERM or the end of all forwards; then stop those that are ours.

    Raises `KeyboardInterrupt` when the person left, `KecsError` when the forwards ended by themselves.
    """
    ours = [one.forward.id for one in reply.forwards if one.created]
    events: queue.SimpleQueue[ForwardRow | ConnectionEvent | KecsError] = queue.SimpleQueue()
    for one in reply.forwards:
        threading.Thread(target=_watch, args=(session, one.forward.id, events), daemon=True).start()
    before = signal.signal(signal.SIGTERM, _leave)
    session.note("Ctrl-C ends the forward" if ours else "Ctrl-C leaves the forward: it was there before")
    try:
        left = len(reply.forwards)
        while left:
            try:
                event = events.get(timeout=GLANCE)
            except queue.Empty:
                continue
            if isinstance(event, KecsError):
                session.note(event.message)
                left -= 1
            elif text := describe(event):
                out.line(text)
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        _stop(session, ours)
        signal.signal(signal.SIGTERM, before)
    raise KecsError("the forward has ended", "see `kecs ps --stopped`")


def describe(event: ForwardRow | ConnectionEvent) -> str | None:
    """Return the line for an event; None for the row that a watch begins with."""
    from kecs.client.rpc_types import ConnectionEvent

    if not isinstance(event, ConnectionEvent):
        return None
    clock = time.strftime("%H:%M:%S", time.localtime(event.time))
    if event.type == "state" and event.row is not None:
        why = f" ({out.clean(event.row.reason)})" if event.row.reason else ""
        return f"{clock}  {event.row.name}  {event.row.state}{why}"
    what = "client" if event.protocol == "udp" else "connection"
    text = f"{clock}  {event.forward}  {what} {event.number} {event.type}"
    if event.type == "opened":
        return f"{text} from {event.peer}" if event.peer else text
    amount = f", {out.size(event.received or 0)} in, {out.size(event.sent or 0)} out"
    return (
        text
        + amount
        + (f", {event.seconds:.1f} s" if event.seconds is not None else "")
        + (f": {out.clean(event.why)}" if event.why else "")
    )


def _watch(
    session: Session, forward: str, events: queue.SimpleQueue[ForwardRow | ConnectionEvent | KecsError]
) -> None:
    """Follow one forward on a thread of its own, through restarts of the agent, until it ends."""
    from kecs.client import launch
    from kecs.client.agent import WentAway
    from kecs.client.rpc_types import ForwardRow

    while True:
        try:
            with launch.connect_agent(session.paths) as agent:
                for event in agent.watch(forward):
                    events.put(event)
                    row = event if isinstance(event, ForwardRow) else event.row
                    if row is not None and row.state == "ENDED":
                        events.put(KecsError(f"`{row.name}` has ended: {row.reason or 'its task is gone'}"))
                        return
        except WentAway:
            continue  # the agent died and comes back with the same forwards
        except KecsError as error:
            events.put(error)
            return


def _stop(session: Session, forwards: list[str]) -> None:
    from kecs.client.agent import AgentClient
    from kecs.client.rpc_types import StopRequest

    if not forwards:
        return
    with AgentClient(session.paths) as agent:
        for forward in forwards:
            try:
                agent.stop(StopRequest(forwards=[forward]))
            except KecsError as error:
                session.note(f"{forward}: {error.message}")


def _leave(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt

"""The relay loop as asyncio sees it: messages to it, its messages on this loop, and questions answered.

The loop's own thread calls back; everything here runs on asyncio's thread but `_receive`.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from kecs.agent.state import Entry
from kecs.errors import ExitCode, KecsError
from kecs.net.messages import (
    Counters,
    Datagrams,
    Died,
    FromLoop,
    HoldLimits,
    Listen,
    Query,
    Stats,
    ToLoop,
)

M = TypeVar("M")
ANSWER = 3.0
"""Seconds for an answer of the loop. It takes microseconds; a loop that hangs is reported."""
END = 2.0
"""Seconds for the loop's thread to end."""


class Loop(Protocol):
    """What is needed of `kecs.net.loop.RelayLoop`."""

    def start(self) -> None:
        """Start the thread."""

    def send(self, message: ToLoop) -> None:
        """Hand a message to the thread; from any thread."""

    def join(self, timeout: float) -> Any:
        """Wait for the thread's end."""


def real_loop(on_message: Callable[[FromLoop], None]) -> Loop:
    """Make the real relay loop."""
    from kecs.net.loop import RelayLoop

    return RelayLoop(on_message)


def listen(entry: Entry, sockets: tuple[socket.socket, ...]) -> Listen:
    """Return what the relay loop is told to serve a forward by these sockets."""
    limits = HoldLimits(entry.hold_seconds, entry.hold_connections)
    return Listen(
        entry.id, sockets, limits, Datagrams(entry.idle_seconds) if entry.protocol == "udp" else None
    )


class Relay:
    """One relay loop and who listens to it."""

    def __init__(self, make: Callable[[Callable[[FromLoop], None]], Loop] = real_loop) -> None:
        self._asyncio = asyncio.get_running_loop()
        self._handlers: dict[type, Callable[[Any], None]] = {}
        self._questions: dict[int, asyncio.Future[dict[str, Counters]]] = {}
        self._tokens = itertools.count(1)
        self.died: asyncio.Future[str] = self._asyncio.create_future()
        """Done with an error's text when the loop's thread ended by itself."""
        self._handlers[Stats] = self._answered
        self._handlers[Died] = self._ended
        self._loop = make(self._receive)

    def on(self, kind: type[M], handler: Callable[[M], None]) -> None:
        """Call `handler` with each message of this kind, on asyncio's thread."""
        self._handlers[kind] = handler

    def start(self) -> None:
        """Start the thread."""
        self._loop.start()

    def send(self, message: ToLoop) -> None:
        """Hand a message to the loop; messages are taken in this order."""
        self._loop.send(message)

    async def stats(self) -> dict[str, Counters]:
        """Ask for the counters of all forwards; every message sent before is in effect then."""
        token = next(self._tokens)
        answer: asyncio.Future[dict[str, Counters]] = self._asyncio.create_future()
        self._questions[token] = answer
        try:
            self.send(Query(token))
            async with asyncio.timeout(ANSWER):
                return await answer
        except TimeoutError as error:
            raise KecsError(
                f"the agent's relay loop did not answer in {ANSWER:g} s",
                "see `kecs logs --daemon agent`; `kecs port-forward agent restart` replaces it",
                ExitCode.UNREACHABLE,
            ) from error
        finally:
            del self._questions[token]

    def join(self) -> None:
        """Wait for the thread's end after a `Stop`."""
        self._loop.join(END)

    def _receive(self, message: FromLoop) -> None:
        with contextlib.suppress(RuntimeError):  # asyncio's loop is closed: the agent is leaving
            self._asyncio.call_soon_threadsafe(self._dispatch, message)

    def _dispatch(self, message: FromLoop) -> None:
        handler = self._handlers.get(type(message))
        if handler is not None:
            handler(message)

    def _answered(self, stats: Stats) -> None:
        question = self._questions.get(stats.token)
        if question is not None and not question.done():
            question.set_result(stats.forwards)

    def _ended(self, died: Died) -> None:
        if not self.died.done():
            self.died.set_result(died.error)

"""The control plane's end of a shim: starting one, finding one, hearing its states, giving it orders."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from kecs.runtimes import process, shim
from kecs.runtimes.process import Process
from kecs.runtimes.records import Report
from kecs.runtimes.shim import SOCKET, TASK_VARIABLE

WORDS_FILE = "shim.err"
"""What the shim itself had to complain about; no container's log can have this name."""

_PROGRAM = str(Path(shim.__file__).parent / "__main__.py")
_LIBRARY_VARIABLES = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "DYLD_FALLBACK_LIBRARY_PATH")
"""Without which some builds of Python do not start; containers do not get them."""
_EXIT_POLL = 0.25


class Link(asyncio.Protocol):
    """A connection to a shim. Its states are whole, so only the newest is kept."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._received = bytearray()
        self._latest: Report | None = None
        self._ended = False
        self._news = asyncio.Event()

    async def hear(self) -> Report | None:
        """Wait for the next state and return it; None when the shim has gone and all was heard."""
        while self._latest is None and not self._ended:
            self._news.clear()
            await self._news.wait()
        latest, self._latest = self._latest, None
        return latest

    def order(self, word: str, **members: Any) -> None:
        """Give an order: `run` with `task`, `stop` or `kill`. Lost without a trace when the shim has gone."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(msgspec.json.encode({"order": word, **members}) + b"\n")

    def close(self) -> None:
        """Leave; the shim goes on."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Take states."""
        self._received += data
        end = self._received.rfind(b"\n")
        if end < 0:
            return
        newest = bytes(self._received[:end]).rpartition(b"\n")[2]
        del self._received[: end + 1]
        try:
            self._latest = msgspec.json.decode(newest, type=Report)
        except msgspec.MsgspecError:
            self.close()  # whatever this is, it is no shim of this version
        self._news.set()

    def connection_lost(self, exc: Exception | None) -> None:
        """Take note that the other side has gone."""
        del exc
        self._ended = True
        self._news.set()


async def start(folder: Path, arn: str) -> tuple[Process, Link]:
    """Start a shim in `folder`; it waits for the order `run`. Raises `OSError`."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with theirs:
            pid = _spawn(folder, arn, theirs)
        started = process.process(pid)
        assert started is not None, "nobody else takes the exit status of our child"
        return started, await _link(ours)
    except BaseException:
        ours.close()
        raise


async def find(folder: Path) -> Link:
    """Connect to the shim that serves `folder`. Raises `OSError`."""
    return await _link(process.connect_in(str(folder), SOCKET))


async def _link(connected: socket.socket) -> Link:
    connected.setblocking(False)
    loop = asyncio.get_running_loop()
    _, link = await loop.create_unix_connection(Link, sock=connected)
    return link


def _spawn(folder: Path, arn: str, connected: socket.socket) -> int:
    python = getattr(sys, "_base_executable", None) or sys.executable
    words = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    return os.posix_spawn(
        python,
        [python, "-I", "-S", _PROGRAM, str(folder)],
        {TASK_VARIABLE: arn, **_picked(os.environ, _LIBRARY_VARIABLES)},
        file_actions=[
            (os.POSIX_SPAWN_DUP2, connected.fileno(), 0),
            (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
            (os.POSIX_SPAWN_OPEN, 2, str(folder / WORDS_FILE), words, 0o600),
        ],
        setsigmask=(),
        setsigdef=(signal.SIGPIPE, signal.SIGTERM, signal.SIGCHLD),
    )


def last_words(folder: Path) -> str:
    """Return the last line that the shim of `folder` complained with, or ""."""
    try:
        return (folder / WORDS_FILE).read_text(errors="replace").strip().rpartition("\n")[2]
    except OSError:
        return ""


async def exited(target: Process) -> None:
    """Wait until process `target` has ended, and reap it if it is a child of ours."""
    try:
        descriptor = process.watch_exit(target)
    except OSError:
        while process.is_alive(target.pid, target.start):  # noqa: ASYNC110 - nothing tells us
            await asyncio.sleep(_EXIT_POLL)
    else:
        if descriptor is not None:
            await _readable(descriptor)
    process.reap(target.pid)


async def _readable(descriptor: int) -> None:
    """Wait until `descriptor` is readable; closes it."""
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(descriptor, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


def _picked(environment: Mapping[str, str], names: tuple[str, ...]) -> dict[str, str]:
    return {name: environment[name] for name in names if name in environment}

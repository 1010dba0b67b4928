"""What the tests of the data path stand on: a running relay loop, and sockets to talk to it."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pytest

from kecs.net import listener, lull
from kecs.net.loop import RelayLoop
from kecs.net.messages import (
    Barrier,
    Close,
    Counters,
    Endpoint,
    HoldLimits,
    Listen,
    Query,
    Seen,
    Snapshot,
    Stats,
    Stop,
)

DEADLINE = 10.0
T = TypeVar("T")


def until(condition: Callable[[], Any], what: str = "", seconds: float = DEADLINE) -> Any:
    """Poll `condition` until it holds; return its value."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, f"in vain waited for {what or condition}"
        time.sleep(0.002)
    return value


class Relay:
    """A running loop with one or more forwards."""

    def __init__(self, **options: Any) -> None:
        self.messages: list[Any] = []
        self._changed = threading.Condition()
        self._version = 0
        self.loop = RelayLoop(self._on_message, **options)
        self.loop.start()

    def _on_message(self, message: Any) -> None:
        with self._changed:
            self.messages.append(message)
            self._changed.notify_all()

    def wait(self, kind: type[T], seconds: float = DEADLINE, **members: Any) -> T:
        """Return the first message of `kind` with these members, now or to come."""

        def found() -> T | None:
            for message in self.messages:
                if isinstance(message, kind) and all(getattr(message, k) == v for k, v in members.items()):
                    return message
            return None

        with self._changed:
            assert self._changed.wait_for(found, seconds), f"no {kind.__name__}{members} in {self.messages}"
            message = found()
            assert message is not None
            return message

    def of(self, kind: type[T]) -> list[T]:
        with self._changed:
            return [message for message in self.messages if isinstance(message, kind)]

    def forward(
        self,
        *endpoints: Endpoint,
        name: str = "f",
        addresses: Sequence[str] = ("127.0.0.1",),
        hold: HoldLimits | None = None,
    ) -> int:
        """Start a forward; return its port."""
        sockets = listener.bind(addresses, 0)
        port = sockets[0].getsockname()[1]
        self.loop.send(Listen(name, sockets, hold or HoldLimits()))
        self.snapshot(*endpoints, name=name)
        return int(port)

    def snapshot(self, *endpoints: Endpoint, name: str = "f") -> None:
        """Change the endpoints and wait until that is in effect."""
        self._version += 1
        self.loop.send(Snapshot(name, self._version, endpoints))
        self.settle()

    def settle(self) -> None:
        """Wait until everything sent so far is in effect."""
        self._version += 1
        self.loop.send(Barrier(self._version))
        self.wait(Seen, version=self._version)

    def counters(self, name: str = "f") -> Counters:
        self._version += 1
        self.loop.send(Query(self._version))
        return self.wait(Stats, token=self._version).forwards[name]

    def close(self, name: str = "f", *, connections: bool = True) -> None:
        self.loop.send(Close(name, connections))
        self.settle()

    def stop(self) -> None:
        self.loop.send(Stop())
        assert self.loop.join(DEADLINE)


class Upstream:
    """A listening socket that stands for a task."""

    def __init__(self, host: str = "127.0.0.1", *, backlog: int = 512, window: int | None = None) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.sock = socket.socket(family)
        if window:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
        self.sock.bind((host, 0))
        self.sock.listen(backlog)
        self.sock.settimeout(DEADLINE)
        self.host, self.port = self.sock.getsockname()[:2]

    def endpoint(self, name: str = "a", *, draining: bool = False) -> Endpoint:
        return Endpoint(name, self.host, self.port, draining)

    def accept(self) -> socket.socket:
        sock, _ = self.sock.accept()
        sock.settimeout(DEADLINE)
        return sock

    def close(self) -> None:
        self.sock.close()


def nobody(name: str = "dead", host: str = "127.0.0.1") -> Endpoint:
    """An endpoint at which nobody listens."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as sock:
        sock.bind((host, 0))
        return Endpoint(name, host, sock.getsockname()[1])


def connect(port: int, host: str = "127.0.0.1", *, window: int | None = None) -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    if window:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
    sock.settimeout(DEADLINE)
    try:
        sock.connect((host, port))
    except OSError:
        sock.close()
        raise
    return sock


def reset(sock: socket.socket) -> None:
    """Close with a RST."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def read_all(sock: socket.socket) -> bytes:
    """Read to the FIN; a reset raises."""
    parts = []
    while part := sock.recv(1 << 16):
        parts.append(part)
    return b"".join(parts)


def read(sock: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        part = sock.recv(size - len(data))
        assert part, f"ended after {len(data)} of {size} bytes"
        data += part
    return bytes(data)


def was_reset(sock: socket.socket) -> bool:
    """Read whatever comes until the end; tell whether that was a RST."""
    try:
        while sock.recv(1 << 16):
            pass
    except ConnectionResetError:
        return True
    return False


def fill(sock: socket.socket, block: bytes = bytes(1 << 16), quiet: float = 0.25) -> int:
    """Send until nothing is taken any more for `quiet` seconds; return how many bytes were taken."""
    sock.setblocking(False)
    taken = 0
    last = time.monotonic()
    while time.monotonic() - last < quiet:
        try:
            taken += sock.send(block)
            last = time.monotonic()
        except BlockingIOError:
            time.sleep(0.005)
    sock.settimeout(DEADLINE)
    return taken


def descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def rests(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return what will hold the seconds of each rest of a loop; streams that are slower by them keep them."""
    taken: list[float] = []
    together = lull.together

    def noted(each: Iterable[float]) -> float:
        taken.append(together(each))
        return taken[-1]

    monkeypatch.setattr(lull, "together", noted)
    monkeypatch.setattr(lull, "WINDOW", 0.005)
    monkeypatch.setattr(lull, "LOSS", 0.0)
    return taken

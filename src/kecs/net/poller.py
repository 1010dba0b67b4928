"""What tells the relay loop which sockets are ready: epoll on Linux, kqueue on macOS and BSD.

`select.epoll` itself is the interface, so that Linux pays for no layer; `Kqueue` speaks it too.
"""

from __future__ import annotations

import contextlib
import select
from typing import Any, Protocol

IN = 0x001
URGENT = 0x002
OUT = 0x004
ERROR = 0x008
HANG_UP = 0x010
READ_END = 0x2000
EDGE = 1 << 31
"""The values of EPOLLIN, PRI, OUT, ERR, HUP, RDHUP and ET (Linux' include/uapi/linux/eventpoll.h)."""


class Poller(Protocol):
    """The part of `select.epoll` that the loop uses."""

    def register(self, fd: int, eventmask: int = ..., /) -> None:
        """Begin to report these events of `fd`."""

    def modify(self, fd: int, eventmask: int, /) -> None:
        """Report these events of `fd` from now on; what is so already is reported at once."""

    def poll(self, timeout: float | None = None, maxevents: int = -1, /) -> list[tuple[int, int]]:
        """Wait up to `timeout` seconds (-1: for ever) and return (fd, events) pairs."""
        ...

    def close(self) -> None:
        """Free the descriptor."""


class Kqueue:
    """kqueue with epoll's words. EV_CLEAR makes events edges; a closed descriptor leaves by itself."""

    def __init__(self, kernel: Any = select) -> None:
        """`kernel` has `kqueue`, `kevent` and the constants: the `select` module, or a test's stand-in."""
        self._kernel = kernel
        self._queue = kernel.kqueue()

    def register(self, fd: int, eventmask: int = IN, /) -> None:
        """Begin to report these events of `fd`."""
        k = self._kernel
        flags = k.KQ_EV_ADD | (k.KQ_EV_CLEAR if eventmask & EDGE else 0)
        filters = [(k.KQ_FILTER_READ, IN), (k.KQ_FILTER_WRITE, OUT)]
        changes = [k.kevent(fd, filter=name, flags=flags) for name, event in filters if eventmask & event]
        self._queue.control(changes, 0, 0)

    def modify(self, fd: int, eventmask: int, /) -> None:
        """Report these events of `fd` from now on."""
        self.register(fd, eventmask)
        k = self._kernel
        for name, event in ((k.KQ_FILTER_READ, IN), (k.KQ_FILTER_WRITE, OUT)):
            if not eventmask & event:
                with contextlib.suppress(FileNotFoundError):  # it was not asked for
                    self._queue.control([k.kevent(fd, filter=name, flags=k.KQ_EV_DELETE)], 0, 0)

    def poll(self, timeout: float | None = None, maxevents: int = -1, /) -> list[tuple[int, int]]:
        """Wait up to `timeout` seconds (negative: for ever) and return (fd, events) pairs."""
        wait = None if timeout is None or timeout < 0 else timeout
        return [self._translate(event) for event in self._queue.control(None, maxevents, wait)]

    def close(self) -> None:
        """Free the descriptor."""
        self._queue.close()

    def _translate(self, event: Any) -> tuple[int, int]:
        k = self._kernel
        ended = event.flags & k.KQ_EV_EOF
        if event.filter == k.KQ_FILTER_READ:
            mask = IN | (READ_END if ended else 0)
        else:
            mask = OUT | (HANG_UP if ended else 0)
        if event.flags & k.KQ_EV_ERROR or (ended and event.fflags):  # fflags: the socket's error
            mask |= ERROR
        return event.ident, mask


def new() -> Poller:
    """Return this platform's poller."""
    if hasattr(select, "epoll"):
        return select.epoll()
    return Kqueue()

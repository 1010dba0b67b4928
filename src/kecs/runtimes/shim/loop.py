"""The shim's event loop: descriptors, timers and signals, one thread, standard library only."""

from __future__ import annotations

import heapq
import os
import select
import signal
import time
from collections.abc import Callable

READ = select.POLLIN
WRITE = select.POLLOUT


class Timer:
    """A call that is due at a time; `cancel` takes it back."""

    __slots__ = ("callback", "when")

    def __init__(self, when: float, callback: Callable[[], None]) -> None:
        self.when = when
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        """Never call; harmless when it was called already."""
        self.callback = None

    def __lt__(self, other: Timer) -> bool:
        return self.when < other.when


class Loop:
    """Calls back when a descriptor is ready, a time has come or a signal arrived."""

    def __init__(self) -> None:
        self._poll = select.poll()
        self._callbacks: dict[int, Callable[[], None]] = {}
        self._timers: list[Timer] = []
        self._signals: dict[int, Callable[[], None]] = {}
        self._wake, wakeup = os.pipe()
        for descriptor in (self._wake, wakeup):
            os.set_blocking(descriptor, False)
        signal.set_wakeup_fd(wakeup, warn_on_full_buffer=False)
        self.watch(self._wake, READ, self._take_signals)

    def watch(self, descriptor: int, events: int, callback: Callable[[], None]) -> None:
        """Call `callback` whenever `descriptor` is ready for `events`, has failed or was hung up."""
        self._poll.register(descriptor, events)
        self._callbacks[descriptor] = callback

    def unwatch(self, descriptor: int) -> None:
        """Stop watching; harmless when it is not watched."""
        if self._callbacks.pop(descriptor, None) is not None:
            self._poll.unregister(descriptor)

    def on_signal(self, number: signal.Signals, callback: Callable[[], None]) -> None:
        """Call `callback` (in the loop, not in the handler) once or more after a signal came."""
        self._signals[number] = callback
        signal.signal(number, _ignore)

    def call_later(self, seconds: float, callback: Callable[[], None]) -> Timer:
        """Call `callback` once in `seconds`."""
        timer = Timer(time.monotonic() + seconds, callback)
        heapq.heappush(self._timers, timer)
        return timer

    def turn(self) -> None:
        """Wait for the next thing that happens and call back for all that has."""
        while self._timers and self._timers[0].callback is None:
            heapq.heappop(self._timers)
        wait = None
        if self._timers:
            # poll(2) counts whole milliseconds: rounded up, or the loop would spin before a timer
            wait = max(0.0, self._timers[0].when - time.monotonic()) * 1000 + 1
        for descriptor, _ in self._poll.poll(wait):
            callback = self._callbacks.get(descriptor)
            if callback is not None:
                callback()
        now = time.monotonic()
        while self._timers and self._timers[0].when <= now:
            due = heapq.heappop(self._timers).callback
            if due is not None:
                due()

    def _take_signals(self) -> None:
        try:
            numbers = set(os.read(self._wake, 4096))
        except BlockingIOError:
            return
        for number in sorted(numbers):
            callback = self._signals.get(number)
            if callback is not None:
                callback()


def _ignore(number: int, frame: object) -> None:
    """Be a handler: the signal's number reaches the loop by the wake-up descriptor."""

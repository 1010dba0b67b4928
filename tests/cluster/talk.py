"""A connection that talks all the time, to find out what it notices of a fault."""

from __future__ import annotations

import socket
import threading
import time

EVERY = 0.05
"""Seconds between an answer and the next line."""
PATIENCE = 60.0
"""Seconds for an answer."""


class Talk:
    """Sends lines to the echo port behind a forward, each when the last one has come back, until it ends.

    `answered` counts them, `longest` is the longest time that one took, `broken` is how the connection ended
    before it was to; None: it did not.
    """

    def __init__(self, port: int) -> None:
        self.answered = 0
        self.longest = 0.0
        self.broken: str | None = None
        self._connection = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Talk:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._connection.close()

    def _run(self) -> None:
        with self._connection.makefile("rb") as lines:
            while not self._stop.wait(EVERY):
                began, line = time.monotonic(), b"%d\n" % self.answered
                try:
                    self._connection.sendall(line)
                    heard = lines.readline()
                except OSError as error:
                    self.broken = f"{type(error).__name__}: {error}"
                    return
                if heard != line:
                    self.broken = f"heard {heard!r} instead of {line!r}"
                    return
                self.answered += 1
                self.longest = max(self.longest, time.monotonic() - began)

"""The lock of a cluster: one create, edit, start, stop or delete at a time, over all processes.

Two edits at once leave k3d's load balancer under a wrong name, two creates leave two networks of one name. A
program that was started under the lock holds it too, so that it outlives a KECS that was killed.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kecs import files
from kecs.errors import ExitCode, KecsError
from kecs.k3d.run import Note

LIMIT = 900.0
"""Seconds to wait for another; a first create, which pulls images, takes minutes."""


class Lock:
    """A lock file that a thread may take again while it has it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._mine = threading.RLock()
        self._depth = 0
        self._descriptor: int | None = None

    @property
    def held(self) -> tuple[int, ...]:
        """The descriptor that children must inherit to hold the lock too; none when it is not held."""
        return () if self._descriptor is None else (self._descriptor,)

    def is_busy(self) -> bool:
        """Tell whether another process, or a program that it started, holds the lock."""
        if self._descriptor is not None or not self._path.exists():
            return False
        descriptor = files.try_lock(self._path)
        if descriptor is None:
            return True
        os.close(descriptor)
        return False

    @contextmanager
    def hold(self, note: Note, limit: float = LIMIT, ended: threading.Event | None = None) -> Iterator[None]:
        """Hold the lock while the block runs.

        Raises `KecsError` (exit 5) after `limit` seconds, and once `ended` is set (see `Tools.ended`).
        """
        with self._mine:
            if self._depth == 0:
                self._descriptor = _take(self._path, note, limit, ended or threading.Event())
            self._depth += 1
            try:
                yield
            finally:
                self._depth -= 1
                if self._depth == 0 and self._descriptor is not None:
                    os.close(self._descriptor)
                    self._descriptor = None


def _take(path: Path, note: Note, limit: float, ended: threading.Event) -> int:
    files.make_private_folder(path.parent)
    descriptor = files.try_lock(path)
    end = time.monotonic() + limit
    if descriptor is None:
        note("another command is working on the k3d cluster; waiting for it")
    while descriptor is None:
        if time.monotonic() > end:
            raise KecsError(
                f"another process has held `{path}` for {limit:g} s",
                f"see what it does: `fuser {path}`",
                ExitCode.UNREACHABLE,
            )
        if ended.wait(0.05):
            raise KecsError(
                f"nobody waits for `{path}` any more: KECS stops", "try again", ExitCode.UNREACHABLE
            )
        descriptor = files.try_lock(path)
    return descriptor

"""A folder for the files that `k3d` and `docker` leave behind: gone after the call, or after the next one.

It is locked (flock) by this process and by the program that works in it. So a folder whose processes were
all killed can be told from one in use, whoever made it, and the next call removes it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

PREFIX = "kecs-k3d-"
YOUNG = 60.0
"""Seconds in which a folder is left alone: its owner may not have locked it yet."""


class Scratch(NamedTuple):
    """A folder for one call."""

    path: str
    lock: int
    """A descriptor for the program to inherit: the folder is in use for as long as anybody has it."""


@contextlib.contextmanager
def scratch() -> Iterator[Scratch]:
    """Make a folder among this machine's temporary ones and remove it at the end."""
    _sweep(Path(tempfile.gettempdir()))
    with tempfile.TemporaryDirectory(prefix=PREFIX, ignore_cleanup_errors=True) as path:
        lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(lock, fcntl.LOCK_SH)
            yield Scratch(path, lock)
        finally:
            os.close(lock)


def _sweep(parent: Path) -> None:
    """Remove what killed processes of this user left; what cannot be removed stays."""
    with contextlib.suppress(OSError):
        for path in parent.glob(f"{PREFIX}*"):
            with contextlib.suppress(OSError):
                _remove_unused(path)


def _remove_unused(path: Path) -> None:
    lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        known = os.fstat(lock)
        if known.st_uid == os.geteuid() and abs(time.time() - known.st_mtime) > YOUNG:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(path, ignore_errors=True)
    finally:
        os.close(lock)

"""Reads a container's log: the rotated file, then the current one, then what is added."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import BinaryIO

_CHUNK = 1 << 16
_POLL = 0.1
"""Seconds between two looks while following; the shim does not tell when it writes."""


async def read(path: Path, *, goes_on: Callable[[], bool] | None) -> AsyncIterator[bytes]:
    """Yield what is in the log at `path`, oldest first.

    With `goes_on`, wait for more as long as it says so, through rotations. What was rotated away
    twice between two looks is gone.
    """
    older = path.with_name(f"{path.name}.1")
    file = _open(older) or _open(path)
    try:
        while True:
            going = goes_on is not None and goes_on()  # asked before reading, so that the end is read too
            if file is None:
                file = _open(older) or _open(path)
            while file is not None:
                while chunk := file.read(_CHUNK):
                    yield chunk
                after = _after(file, path, older)
                if after is None:
                    break
                while chunk := file.read(_CHUNK):  # written before it was rotated
                    yield chunk
                file.close()
                file = after
            if not going:
                return
            await asyncio.sleep(_POLL)
    finally:
        if file is not None:
            file.close()


def _after(file: BinaryIO, path: Path, older: Path) -> BinaryIO | None:
    """Return the next file when `file` is no longer the current one."""
    current = _open(path)
    if current is None or _same(file, current):
        if current is not None:
            current.close()
        return None
    rotated = _open(older)
    if rotated is not None and not _same(file, rotated):
        current.close()  # rotated twice: the older file comes first
        return rotated
    if rotated is not None:
        rotated.close()
    return current


def _same(one: BinaryIO, other: BinaryIO) -> bool:
    return os.path.sameopenfile(one.fileno(), other.fileno())


def _open(path: Path) -> BinaryIO | None:
    try:
        return path.open("rb", buffering=0)
    except FileNotFoundError:
        return None

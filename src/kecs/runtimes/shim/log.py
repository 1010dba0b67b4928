"""The log of one container: what it wrote to its output and error, in one file that rotates."""

from __future__ import annotations

import os
import sys

LIMIT = 10 * 1024 * 1024
"""Bytes of one file; one older file is kept beside it as `<name>.1` (Docker's json-file suggests 10m)."""


class Log:
    """Appends to `path`; at `limit` bytes the file becomes `<path>.1` and a new one begins."""

    def __init__(self, path: str, limit: int = LIMIT) -> None:
        self._path = path
        self._limit = limit
        self._complained = False
        self._descriptor = self._open()
        self._size = os.fstat(self._descriptor).st_size

    def write(self, data: bytes) -> None:
        """Append `data`. What the disk has no room for is dropped: a container never waits for its log."""
        try:
            if self._size and self._size + len(data) > self._limit:
                self._rotate()
            while data:
                written = os.write(self._descriptor, data)
                self._size += written
                data = data[written:]
        except OSError as error:
            if not self._complained:
                print(f"{self._path}: {error}; output is lost", file=sys.stderr, flush=True)  # noqa: T201
            self._complained = True

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)

    def _rotate(self) -> None:
        os.rename(self._path, f"{self._path}.1")  # noqa: PTH104 - pathlib takes 8 ms to import
        fresh = self._open()
        os.close(self._descriptor)
        self._descriptor = fresh
        self._size = 0

    def _open(self) -> int:
        return os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

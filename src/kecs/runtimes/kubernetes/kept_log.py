"""The file of one container's log, and the part of it that is there until all of it is.

`<container>.log` is whole. It is written as `.<container>.log.part`; when that has to wait for another
process, `.<container>.log.mark` says how far it came. Used by `pod_logs` only.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import msgspec

from kecs import files
from kecs.errors import KecsError
from kecs.runtimes.kubernetes.stamped_lines import Mark

_PART = ".log.part"


class _Left(msgspec.Struct, frozen=True):
    """What the file with the mark holds."""

    mark: Mark
    size: int
    """Bytes that the part had then: another size, and the mark is not this part's."""


class KeptLog:
    """The log of one container in the folder of its task."""

    def __init__(self, folder: Path, container: str) -> None:
        self.whole = folder / f"{container}.log"
        self._part = folder / f".{container}{_PART}"
        self._mark = folder / f".{container}.log.mark"

    def mark(self) -> Mark | None:
        """Return how far the part came; None when there is none, or nobody knows."""
        try:
            left = msgspec.json.decode(self._mark.read_bytes(), type=_Left)
            return left.mark if self._part.stat().st_size == left.size else None
        except (OSError, msgspec.MsgspecError):
            return None

    def open(self, mark: Mark | None) -> BinaryIO:
        """Open the part to write on from `mark`, or anew. Raises `OSError`, `KecsError`.

        Anew only when there is something to write: an older part is better than none.
        """
        files.make_private_folder(self.whole.parent.parent)
        files.make_private_folder(self.whole.parent)
        self._mark.unlink(missing_ok=True)  # it is not this part's any more
        file = self._part.open("wb" if mark is None else "ab")
        self._part.chmod(0o600)
        return file

    def leave(self, mark: Mark) -> None:
        """Leave the part to be gone on with from `mark`; one that cannot be is begun anew."""
        with contextlib.suppress(OSError, KecsError):
            left = _Left(mark, self._part.stat().st_size)
            files.write_atomic(self._mark, msgspec.json.encode(left))

    def settle(self) -> None:
        """Take that nothing more is to be had: the part is the log."""
        with contextlib.suppress(OSError):
            self._mark.unlink(missing_ok=True)
            if self._part.exists() and not self.whole.exists():
                self._part.replace(self.whole)
            self._part.unlink(missing_ok=True)


def unsettled(folder: Path) -> Iterator[KeptLog]:
    """Yield the logs in the folder of a task of which there is a part."""
    for part in list(folder.glob(f".*{_PART}")):
        yield KeptLog(folder, part.name[1 : -len(_PART)])

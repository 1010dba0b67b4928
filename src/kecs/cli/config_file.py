"""The file of `port-forward run` and `down`: which one is meant, what it says, and when it changed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kecs.errors import ExitCode, KecsError

if TYPE_CHECKING:
    from kecs.forward.file import FileSpec

DEFAULT = "port-forward.yaml"
LARGEST = 4 * 1024 * 1024
"""Bytes. 200 forwards take 40 kB: more is another file."""
LOOK = 0.3
"""Seconds between two looks at a file that is followed. It is one `stat`, and works on every file system,
while inotify exists on Linux only and says nothing of network mounts."""

Mark = tuple[int, int, int, int, int] | None


def option(function: Any) -> Any:
    """Add `--config`."""
    return click.option(
        "-c",
        "--config",
        type=click.Path(),
        default=DEFAULT,
        metavar="FILE",
        help=f"The file; default: `{DEFAULT}` in this folder.",
    )(function)


def owner(given: str) -> Path:
    """Return the real path of a file: it owns the forwards, whatever links lead to it. It may be gone."""
    return Path(given).resolve()


def read(path: Path, given: str) -> FileSpec:
    """Return what the file says; `given` is what the person called it.

    Raises a usage error with the line and column of all that is wrong.
    """
    from kecs.forward import file

    data = _bytes(path, given)
    try:
        return file.parse(data, given)
    except file.WrongFile as error:
        found = [str(one) for one in error.errors]
        many = f"`{given}` has {len(found)} mistakes:\n  "
        raise KecsError(
            (many if len(found) > 1 else "") + "\n  ".join(found),
            "correct it and run the command again; editors know the format by "
            "`docs/reference/port-forward.schema.json`",
            ExitCode.USAGE,
        ) from error


def _bytes(path: Path, given: str) -> bytes:
    try:
        if not path.is_file():  # a pipe has no path by which its forwards could be found again
            path.stat()
            raise KecsError(f"`{given}` is not a file", "give one that stays where it is", ExitCode.USAGE)
        with path.open("rb") as opened:
            data = opened.read(LARGEST + 1)
    except FileNotFoundError as error:
        raise KecsError(
            f"there is no file `{given}`",
            f"name one by `--config`, or write one of what runs: `kecs port-forward export -o {DEFAULT}`",
            ExitCode.NOT_FOUND,
        ) from error
    except OSError as error:
        raise KecsError(
            f"`{given}` cannot be read: {error.strerror or error}",
            "give a file that you can read",
            ExitCode.USAGE,
        ) from error
    if len(data) > LARGEST:
        raise KecsError(f"`{given}` is larger than 4 MiB", "give a file of port forwards", ExitCode.USAGE)
    return data


class Follower:
    """Notices that a file was written, replaced by a rename, taken away or put back.

    Made before the first reading, so that what is written during it counts. A change is reported when two
    looks in a row see the same: an editor that writes in place empties the file first, and one that renames
    leaves a moment without a file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._reported = self._last = _mark(path)

    def look(self) -> bool:
        """Tell whether the file is another one than at the last report, and stands still."""
        now = _mark(self.path)
        settled, self._last = now == self._last, now
        if not settled or now == self._reported:
            return False
        self._reported = now
        return True


def _mark(path: Path) -> Mark:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_ctime_ns, found.st_size

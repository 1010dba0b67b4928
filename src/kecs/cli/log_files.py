"""Reading the logs of daemons and forwards: JSON lines in files that rotate, made readable."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

from kecs import files
from kecs.cli import output as out
from kecs.errors import ExitCode, KecsError

POLL = 0.2
"""Seconds between two looks at a file that is followed."""
_SHOWN = frozenset({"time", "level", "logger", "message", "error"})


def show(file: Path, *, follow: bool) -> None:
    """Print the older log file, then `file`; with `follow` go on until Ctrl-C."""
    older = file.with_name(f"{file.name}.1")
    if not file.exists() and not older.exists():
        if not follow:
            raise KecsError(f"there is no log `{file}`", "nothing was written so far", ExitCode.NOT_FOUND)
    elif older.exists():
        for text in _read(older):
            out.line(readable(text))
    for text in lines(file, follow=follow):
        out.line(readable(text))


def lines(file: Path, *, follow: bool) -> Iterator[str]:
    """Yield the lines of `file`; with `follow` those too that come, of the next file too."""
    unread, at, inode = b"", 0, 0
    while True:
        try:
            with file.open("rb") as opened:
                now = file.stat()
                if now.st_ino != inode or now.st_size < at:
                    inode, at, unread = now.st_ino, 0, b""
                opened.seek(at)
                data = opened.read()
        except FileNotFoundError:
            data = b""
        except OSError as error:
            raise files.unusable(file, error) from error
        at += len(data)
        *whole, unread = (unread + data).split(b"\n")
        yield from (text.decode(errors="replace") for text in whole)
        if not follow:
            if unread:
                yield unread.decode(errors="replace")
            return
        time.sleep(POLL)


def readable(text: str) -> str:
    """Return a JSON log line as `time level message (fields)`; other text as it is."""
    try:
        record = json.loads(text)
    except ValueError:
        return out.clean(text)
    if not isinstance(record, dict) or "message" not in record:
        return out.clean(text)
    fields = ", ".join(f"{key}={value}" for key, value in record.items() if key not in _SHOWN)
    head = f"{record.get('time', '')} {record.get('level', ''):<7} {record['message']}"
    trace = "".join(f"\n    {line}" for line in str(record.get("error") or "").splitlines())
    return out.clean(head + (f" ({fields})" if fields else "")) + trace


def _read(file: Path) -> list[str]:
    try:
        return file.read_text(errors="replace").splitlines()
    except OSError as error:
        raise files.unusable(file, error) from error

"""Processes by number and start time, and short commands whose failure says what they printed.

Used by the whole harness. A number alone may have become somebody else's; a number with its start time
(field 22 of `/proc/PID/stat`, in clock ticks since boot) is one process for ever.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path

from tests.process.harness import until

END_SECONDS = 30


def _stat(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat from the third on (`state`); raises OSError when it is gone."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def started(pid: int) -> int:
    """Return when the process started, in ticks; 0 when there is none."""
    try:
        return int(_stat(pid)[19])
    except OSError:
        return 0


def alive(pid: int, start: int | None = None) -> bool:
    """Tell whether the process runs (a zombie does not), and is the one that started then."""
    try:
        fields = _stat(pid)
    except OSError:
        return False
    return fields[0] not in "ZX" and (start is None or int(fields[19]) == start)


def children(parent: int) -> list[int]:
    """Return the children of a process."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if int(_stat(int(folder.name))[1]) == parent:
                found.append(int(folder.name))
    return found


def mentioning(mark: str) -> list[int]:
    """Return the other processes that carry `mark` in their command line."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if mark.encode() in (folder / "cmdline").read_bytes() and int(folder.name) != os.getpid():
                found.append(int(folder.name))
    return found


def only_child(parent: int) -> int:
    """Wait for the child of a process that has one (`unshare --fork`, `nsenter --pid`); return it."""
    return until(lambda: children(parent), f"process {parent} has a child", seconds=10)[0]


def kill(pid: int, number: signal.Signals, start: int | None = None) -> None:
    """Send a signal to the process, if it is still there."""
    if start is None or started(pid) == start:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def wait_gone(pid: int, start: int | None = None) -> None:
    """Wait until the process has ended."""
    until(lambda: not alive(pid, start), f"process {pid} has ended", seconds=END_SECONDS)


def run(
    *command: str | Path,
    seconds: float = 60,
    text: str | None = None,
    env: Mapping[str, str] | None = None,
) -> str:
    """Run a command; return its standard output. Raises RuntimeError with all it printed on failure."""
    words = [str(word) for word in command]
    done = subprocess.run(
        words, input=text, env=env, capture_output=True, text=True, timeout=seconds, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)}: exit {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout

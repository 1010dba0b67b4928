"""CPU time by process, from /proc: what a run cost each of those that took part in it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

TICK = 1 / os.sysconf("SC_CLK_TCK")


def seconds(pid: int) -> float:
    """Return the CPU seconds that a process has used, all its threads together; 0 when it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) * TICK  # utime and stime, proc(5)


def of_pod(uid: str) -> list[int]:
    """Return the processes of a pod, by the control group that the kubelet makes for it."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if f"pod{uid}" in (folder / "cgroup").read_text():
                found.append(int(folder.name))
        except OSError:
            continue
    return found


class Meter:
    """What named groups of processes spend from now on."""

    def __init__(self, groups: Mapping[str, list[int]]) -> None:
        self._groups = groups
        self._before = self._now()

    def spent(self) -> dict[str, float]:
        """Return the CPU seconds of each group since the meter was made."""
        return {name: after - self._before[name] for name, after in self._now().items()}

    def _now(self) -> dict[str, float]:
        return {name: sum(map(seconds, pids)) for name, pids in self._groups.items()}

"""One control group for each node, in every hierarchy, below which its kubelet makes those of the pods.

Used by `node` and `ledger`. The group must be the node's own: a kubelet takes every pod group below its
root that it does not know for an orphan and kills what is in it, so two kubelets that shared `kubepods`
would kill each other's pods. The kubelet refuses to start when its root is missing (`cgroupRoot`).
"""

from __future__ import annotations

import contextlib
import os
from functools import partial
from pathlib import Path

from tests.process.harness import until

REMOVE_SECONDS = 20


def hierarchies() -> list[Path]:
    """Return the mounts that groups are made in: those of version 1, or the one of version 2."""
    return _mounts("cgroup") or _mounts("cgroup2")


def _mounts(*kinds: str) -> list[Path]:
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    return [Path(fields[1]) for fields in mounts if fields[2] in kinds]


def make(name: str) -> None:
    """Make the group in every hierarchy."""
    for root in hierarchies():
        (root / name).mkdir(exist_ok=True)
        for parent in (root, root / name):
            # Version 2 hands controllers down only where it is told to.
            if (parent / "cgroup.subtree_control").exists():
                offered = (parent / "cgroup.controllers").read_text().split()
                (parent / "cgroup.subtree_control").write_text(" ".join(f"+{each}" for each in offered))


def remove(name: str) -> None:
    """Remove the group and all below it, once their processes have ended."""
    for root in _mounts("cgroup", "cgroup2"):  # runc makes one in the other version's mount, too
        if (root / name).is_dir():
            until(partial(_removed, root / name), f"{root / name} is removed", seconds=REMOVE_SECONDS)


def _removed(top: Path) -> bool:
    for folder, _, _ in os.walk(top, topdown=False):
        with contextlib.suppress(FileNotFoundError):
            Path(folder).rmdir()
    return True


def left(prefix: str) -> list[Path]:
    """Return the groups whose name begins so."""
    return [group for root in _mounts("cgroup", "cgroup2") for group in root.glob(f"{prefix}*")]

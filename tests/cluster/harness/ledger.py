"""What a cluster has made outside its folder, written down before it is made, and how it is unmade.

Used by `cluster`, and by every later run, which first takes down what crashed runs left behind
(`sweep`). The file lies in the cluster's folder, whose exclusive creation is the claim to the name.
Left behind after a crash are: the bridge, the control groups and the folder; machines end with their run,
except those of a cluster that was asked to last, and except where a run dies while it brings one up.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tests.cluster.harness import cgroups, procs
from tests.cluster.harness.network import Network

PREFIX = "kecs-cluster-"
FILE = "made.json"


@dataclass(slots=True)
class Ledger:
    """One cluster's file. `owner` is the process that the cluster ends with, [pid, start]; None: it lasts.

    `namespace` is that of the network in which it has its bridge: only from there it can be removed.
    """

    folder: Path
    owner: list[int] | None
    namespace: str | None = None
    number: int | None = None
    processes: list[list[int]] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)

    @classmethod
    def create(cls, name: str, *, lasting: bool) -> Ledger:
        """Claim the name. Raises FileExistsError when a cluster has it."""
        folder = folder_of(name)
        folder.mkdir(mode=0o755)
        owner = None if lasting else [os.getpid(), procs.started(os.getpid())]
        ledger = cls(folder, owner, namespace_of("self"))
        ledger.save()
        return ledger

    @classmethod
    def load(cls, folder: Path) -> Ledger:
        """Read the file of a folder; one that never got a file has made nothing."""
        try:
            content = json.loads((folder / FILE).read_text())
        except (FileNotFoundError, json.JSONDecodeError):
            return cls(folder, None)
        return cls(folder, **content)

    def save(self) -> None:
        """Write the file."""
        content = asdict(self)
        del content["folder"]
        new = self.folder / f"{FILE}.new"
        new.write_text(json.dumps(content))
        new.replace(self.folder / FILE)

    def add_process(self, *pids: int) -> None:
        """Note processes that end with the cluster."""
        self.processes += [[pid, procs.started(pid)] for pid in pids]
        self.save()

    def add_group(self, name: str) -> None:
        """Note a control group."""
        self.groups.append(name)
        self.save()

    @property
    def abandoned(self) -> bool:
        """Whether the process that the cluster was to end with is gone."""
        return self.owner is not None and not procs.alive(*self.owner)

    @property
    def within_reach(self) -> bool:
        """Whether its bridge can be removed from here, or went with the network of its run.

        A process with tests may have a network of its own (`tests.own_network`), which ends with it; the
        computer's does not.
        """
        return self.namespace == namespace_of("self") or self.namespace != namespace_of("1")

    def unmake(self) -> None:
        """Take everything down; what is gone already is no error."""
        for pid, start in self.processes:
            procs.kill(pid, signal.SIGKILL, start)
        for pid, start in self.processes:
            procs.wait_gone(pid, start)
        for group in self.groups:
            cgroups.remove(group)
        if self.number is not None:
            Network(self.number).remove()
        try:
            shutil.rmtree(self.folder)
        except FileNotFoundError:  # another run takes the same leftovers down at this moment
            shutil.rmtree(self.folder, ignore_errors=True)


def namespace_of(process: str) -> str:
    """Return what names the network of a process: `self`, or its number."""
    return str(Path(f"/proc/{process}/ns/net").readlink())


def folder_of(name: str) -> Path:
    """Return the folder of the cluster of that name."""
    return Path(tempfile.gettempdir()) / f"{PREFIX}{name}"


def ledgers() -> list[Ledger]:
    """Return the clusters of this computer."""
    return [Ledger.load(each) for each in Path(tempfile.gettempdir()).glob(f"{PREFIX}*")]


def taken() -> set[int]:
    """Return the numbers that clusters have."""
    return {ledger.number for ledger in ledgers() if ledger.number is not None}


def sweep() -> None:
    """Take down the clusters whose run has died, but for those that only another process can."""
    for ledger in ledgers():
        if ledger.abandoned and ledger.within_reach:
            ledger.unmake()

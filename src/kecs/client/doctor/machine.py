"""What the checks of `kecs doctor` ask of the machine: environment, programs, ports, instances.

`this_machine` is the real one. A test makes another by `dataclasses.replace`.
"""

from __future__ import annotations

import os
import resource
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from kecs import procnet
from kecs.client import instance as instances
from kecs.client.instance import Instance
from kecs.errors import KecsError
from kecs.net.holder import holder_of
from kecs.paths import InstancePaths
from kecs.settings import Settings

LOOPBACK = frozenset({"127.0.0.1", "::1", "0.0.0.0", "::"})  # noqa: S104 - looked for, not bound
"""Addresses on which a listener keeps KECS from listening on loopback."""


class Ran(NamedTuple):
    """How a program ended."""

    code: int
    """127: it could not be started; 124: it was not done in time, as timeout(1) says."""
    out: str
    err: str


class Known(NamedTuple):
    """An instance of this KECS_HOME."""

    paths: InstancePaths
    instance: Instance | None
    """None when its `instance.yaml` cannot be read."""
    trouble: KecsError | None
    """Why it cannot be read."""


@dataclass(frozen=True, slots=True)
class Machine:
    """One machine, as one user sees it."""

    settings: Settings
    environ: Mapping[str, str]
    uid: int
    now: Callable[[], float]
    """Epoch seconds."""
    descriptors: tuple[int, int]
    """Soft and hard limit of open files."""
    free_bytes: Callable[[Path], int]
    """Space that is left for this user where a folder is."""
    find: Callable[[str], str | None]
    """Path of a program, or None."""
    run: Callable[[Sequence[str], float], Ran]
    """Run a program for so many seconds at most."""
    holder: Callable[[int], str | None]
    """Who listens on a port of loopback; None: nobody."""
    holder_of_udp: Callable[[int], str | None]
    """Who has a port of UDP on loopback; None: nobody, or the system does not tell."""

    @property
    def instances(self) -> list[Known]:
        """All instances of KECS_HOME, by name."""
        found = []
        for name in instances.names(self.settings.paths("default")):
            paths = self.settings.paths(name)
            try:
                found.append(Known(paths, instances.read(paths), None))
            except KecsError as error:
                found.append(Known(paths, None, error))
        return found


def this_machine(settings: Settings) -> Machine:
    """Return the machine that this process runs on."""
    return Machine(
        settings=settings,
        environ=os.environ,
        uid=os.getuid(),
        now=time.time,
        descriptors=resource.getrlimit(resource.RLIMIT_NOFILE),
        free_bytes=lambda folder: shutil.disk_usage(folder).free,
        find=shutil.which,
        run=_run,
        holder=_holder,
        holder_of_udp=_holder_of_udp,
    )


def _run(command: Sequence[str], seconds: float) -> Ran:
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Ran(124, "", f"it did not answer within {seconds:g} s")
    except OSError as error:
        return Ran(127, "", error.strerror or str(error))
    return Ran(done.returncode, done.stdout, done.stderr)


def _holder(port: int) -> str | None:
    if sys.platform == "linux":
        listening = procnet.tcp_sockets(states=frozenset({procnet.LISTEN}))
        taken = any(row.local[1] == port and row.local[0] in LOOPBACK for row in listening)
    else:
        with socket.socket() as client:
            client.settimeout(0.5)
            taken = client.connect_ex(("127.0.0.1", port)) == 0
    return (holder_of(port) or "another process") if taken else None


def _holder_of_udp(port: int) -> str | None:
    taken = any(row.local[1] == port and row.local[0] in LOOPBACK for row in procnet.udp_sockets())
    return (holder_of(port, udp=True) or "another process") if taken else None

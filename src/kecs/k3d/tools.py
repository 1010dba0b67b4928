"""Are `k3d` and Docker there, and are they new enough? Asked before anything is started.

Used by `kecs start` and `kecs doctor`. It changes nothing.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event

from kecs.errors import ExitCode, KecsError

OLDEST = (5, 0)
"""The first k3d whose node filters and `--runtime-label` are what is used here."""
QUICK = 10.0
"""Seconds in which both programs tell their versions; they take 0.05 s."""
_VERSION = re.compile(r"k3d version v?(\d+)\.(\d+)(\S*)")
_INSTALL = (
    "https://k3d.io has it for Linux and macOS; or use `kecs start --runtime local`, which needs neither"
)


@dataclass(frozen=True, slots=True)
class Tools:
    """The programs, and what they are run with."""

    k3d: Path
    docker: Path
    environment: Mapping[str, str] = field(repr=False)
    """The whole environment of both: PATH, HOME, DOCKER_HOST …"""
    ended: Event = field(default_factory=Event, repr=False, compare=False)
    """Set by another thread: a program that runs is ended, and none is started any more."""


@dataclass(frozen=True, slots=True)
class Versions:
    """What both said of themselves, such as `5.9.0` and `27.3.1`."""

    k3d: str
    docker: str


def find(environment: Mapping[str, str]) -> Tools:
    """Find both programs on the PATH of `environment`. Raises `KecsError` (exit 5) naming what is missing."""
    path = environment.get("PATH", os.defpath)
    found = {name: shutil.which(name, path=path) for name in ("k3d", "docker")}
    missing = [name for name, where in found.items() if where is None]
    if missing:
        raise KecsError(
            f"the runtime k3d needs the programs `k3d` (5.0 or newer) and `docker`;"
            f" not on PATH: {' and '.join(f'`{name}`' for name in missing)}",
            f"install {' and '.join(missing)}: {_INSTALL}",
            ExitCode.UNREACHABLE,
        )
    return Tools(Path(str(found["k3d"])), Path(str(found["docker"])), dict(environment))


def check(tools: Tools, limit: float = QUICK) -> Versions:
    """Ask both programs for their versions; docker's is the daemon's, so it has to answer.

    Raises `KecsError` (exit 5) when k3d is older than 5.0, when Docker does not answer or refuses us.
    """
    from kecs.k3d.run import run

    said = run(tools, ("version",), limit=limit)
    match = _VERSION.search(said.stdout)
    if match is None:
        raise KecsError(
            f"`{tools.k3d} version` does not name a version of k3d (exit code {said.code})",
            f"5.0 or newer is needed: {_INSTALL}",
            ExitCode.UNREACHABLE,
        )
    version = f"{match[1]}.{match[2]}{match[3]}"
    if (int(match[1]), int(match[2])) < OLDEST:
        raise KecsError(
            f"`{tools.k3d}` is k3d {version}; 5.0 or newer is needed",
            f"update k3d: {_INSTALL}",
            ExitCode.UNREACHABLE,
        )
    return Versions(version, docker_version(tools, limit))


def docker_version(tools: Tools, limit: float = QUICK) -> str:
    """Return the version of the Docker daemon. Raises `KecsError` (exit 5) when it does not answer."""
    from kecs.k3d.run import run

    said = run(tools, ("version", "--format", "{{.Server.Version}}"), program="docker", limit=limit)
    version = said.stdout.strip()
    if said.code != 0 or not version:
        words = said.stderr.strip().splitlines()
        raise KecsError(
            f"Docker does not answer: {words[-1] if words else f'exit code {said.code}'}",
            "start Docker, and see that `docker info` works",
            ExitCode.UNREACHABLE,
        )
    return version


def why_not(environment: Mapping[str, str], limit: float = 3.0) -> str | None:
    """Say in one short sentence why k3d cannot be used, or None when it and Docker answer.

    For `--runtime auto`, which must be quick: without the programs it costs a look at PATH.
    """
    try:
        check(find(environment), limit)
    except KecsError as error:
        return error.message
    return None

"""The cluster that the tests run against: one of this computer, or yours.

Used by `conftest`. `KECS_TEST_KUBECONFIG` names yours; the images must be there already, which
`python -m tests.cluster.harness images FOLDER` writes, and tests that break a cluster are skipped on it.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import yaml
from tests.cluster.harness.cluster import Kubectl
from tests.process.harness import Home

VARIABLE = "KECS_TEST_KUBECONFIG"
OWNED = "app.kubernetes.io/managed-by=kecs"


class Target(Protocol):
    """What a test needs of any cluster."""

    @property
    def kubeconfig(self) -> Path: ...
    @property
    def kubectl(self) -> Kubectl: ...


class Yours:
    """A cluster that somebody else looks after."""

    def __init__(self, kubeconfig: Path) -> None:
        self.kubeconfig = kubeconfig
        self._cache = Path(tempfile.mkdtemp(prefix="kecs-kubectl-"))
        self.kubectl = Kubectl(kubeconfig, self._cache)

    def close(self) -> None:
        """Remove what kubectl kept."""
        shutil.rmtree(self._cache, ignore_errors=True)


def yours() -> Path | None:
    """Return the kubeconfig of the cluster to use instead of an own one."""
    named = os.environ.get(VARIABLE)
    return Path(named).expanduser().resolve() if named else None


def node_addresses(target: Target) -> list[str]:
    """Return the internal addresses of the nodes, in the order of their names."""
    return [
        address["address"]
        for node in target.kubectl.json("get", "nodes")["items"]
        for address in node["status"]["addresses"]
        if address["type"] == "InternalIP"
    ]


def start(home: Home, target: Target, *arguments: str, instance: str = "default") -> None:
    """Start an instance of this home on the cluster."""
    home.start(
        *("--runtime", "kubernetes", "--kubeconfig", str(target.kubeconfig), *arguments), instance=instance
    )


@contextmanager
def visiting(target: Target, **environment: str) -> Iterator[Home]:
    """Give an empty home for instances on the cluster; at the end nothing of theirs is left there."""
    home = Home(**environment)
    try:
        yield home
    finally:
        leave(target, home)


def leave(target: Target, home: Home) -> None:
    """End all instances of a home. Raises AssertionError when anything of them is left on the cluster."""
    files = (home.path / "instances").glob("*/instance.yaml")
    ids = {str(yaml.safe_load(file.read_text())["id"]) for file in files}
    home.close()
    left = {name for name, owner in namespaces(target).items() if owner in ids}
    assert not left, f"namespaces left behind: {left}"


def namespaces(target: Target) -> dict[str, str]:
    """Return the namespaces that instances of KECS made: name to the id of the instance."""
    found = target.kubectl.json("get", "namespaces", "--selector", OWNED)["items"]
    return {
        each["metadata"]["name"]: each["metadata"]["labels"].get("kecs.dev/instance-id", "") for each in found
    }

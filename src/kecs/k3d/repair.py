"""Repairs of a load balancer that an edit left under a wrong name.

`k3d node edit` renames the container X to X-abcde, creates a new X, stops the old, starts the new, deletes
the old. Broken off anywhere, or done twice at once, both stay, and neither k3d's start nor another edit works
any more until one of them is gone. Used by `K3dCluster.start`, which starts what is left.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from kecs.k3d import nodes
from kecs.k3d.failures import failure
from kecs.k3d.run import Said

if TYPE_CHECKING:
    from kecs.k3d.cluster import K3dCluster

SETTLE = 11.0
"""Seconds: Docker goes on to stop the old one, for up to 10 s, when the edit that asked for it was killed."""
_NEVER = "0001-01-01T00:00:00Z"


def strays(cluster: K3dCluster) -> None:
    """Leave one load balancer, under its own name: of several the one that served. None astray: nothing."""
    found = nodes.strays(cluster.nodes(), cluster.balancer)
    if not found:
        return
    balancers = [node for node in cluster.nodes() if node.role == "loadbalancer"]
    keep = _best(cluster, balancers)
    cluster.note(f"repairing the load balancer {cluster.balancer}: an edit of it broke off")
    for node in balancers:
        if node.name != keep.name:
            _done(cluster, cluster.docker("rm", "-f", "-v", node.name, limit=60.0), f"removing {node.name}")
    if keep.name != cluster.balancer:
        said = cluster.docker("rename", keep.name, cluster.balancer)
        _done(cluster, said, f"renaming {keep.name}")
        if keep.state == "running":
            _settle(cluster)


def _best(cluster: K3dCluster, balancers: list[nodes.Node]) -> nodes.Node:
    """Choose the one that runs, else one that ever ran under its own name, else the newest that ever ran."""
    started = {node.name: _started(cluster, node.name) for node in balancers}

    def worth(node: nodes.Node) -> tuple[bool, bool, bool, str]:
        return (
            node.state == "running",
            started[node.name] != "",
            started[node.name] != "" and node.name == cluster.balancer,
            started[node.name] or node.created,
        )

    return max(balancers, key=worth)


def _started(cluster: K3dCluster, name: str) -> str:
    """Return when the container was last started, or "" for never."""
    said = cluster.docker("inspect", "--type", "container", "--format", "{{.State.StartedAt}}", name)
    moment = said.stdout.strip() if said.code == 0 else ""
    return "" if moment == _NEVER else moment


def _settle(cluster: K3dCluster) -> None:
    """Wait whether a stop that Docker still carries out ends it; only then can it be started to stay."""
    end = time.monotonic() + SETTLE
    while time.monotonic() < end:
        if not any(node.name == cluster.balancer and node.state == "running" for node in cluster.nodes()):
            return
        time.sleep(0.25)


def _done(cluster: K3dCluster, said: Said, what: str) -> None:
    if said.code != 0:
        raise failure(
            f"repairing the load balancer of `{cluster.name}` ({what})",
            said,
            "see `docker ps -a`; a new cluster comes by `kecs destroy` and `kecs start`",
        )

"""The containers of a cluster, from `k3d node list -o json`, and what they amount to.

`k3d cluster list` is not asked: it shows a cluster whose load balancer is dead, or never started, as whole.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

State = Literal["absent", "running", "stopped", "broken", "half-made"]
_SECRET_LABELS = frozenset({"k3d.cluster.token"})
_WORDS = {"server": "server", "agent": "agent", "loadbalancer": "load balancer"}


@dataclass(frozen=True, slots=True)
class Published:
    """One port of a node that Docker publishes on the host, or will when the node is started."""

    address: str
    host_port: int
    container_port: int
    protocol: str


@dataclass(frozen=True, slots=True)
class Node:
    """One container of a cluster."""

    name: str
    role: str
    """`server`, `agent`, `loadbalancer`, or another of k3d's (`noRole` for its tools)."""
    state: str
    """Docker's: `created` (never started), `running`, `exited` …"""
    cluster: str
    labels: Mapping[str, str]
    """k3d's own (`k3d.…`) without the token; Docker has more."""
    ports: tuple[Published, ...]
    created: str
    """ISO 8601."""


def parse(text: str) -> list[Node]:
    """Read the output of `k3d node list -o json`. Raises `ValueError` when it is something else."""
    document = json.loads(text)
    if not isinstance(document, list):
        raise ValueError("it is not a list")  # noqa: TRY004 - the caller knows one kind of error
    try:
        return sorted((_node(each) for each in document), key=lambda node: (node.role, node.name))
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"a node without {error}") from error


def _node(each: Mapping[str, Any]) -> Node:
    labels: Mapping[str, str] = each.get("runtimeLabels") or {}
    return Node(
        name=each["name"],
        role=each["role"],
        state=each["State"]["Status"],
        cluster=labels.get("k3d.cluster", ""),
        labels={key: value for key, value in labels.items() if key not in _SECRET_LABELS},
        ports=tuple(_ports(each.get("portMappings") or {})),
        created=each.get("created", ""),
    )


def _ports(mappings: Mapping[str, Sequence[Mapping[str, str]]]) -> list[Published]:
    ports = []
    for key, bindings in mappings.items():
        # The API's port has no protocol in its key, all others have one.
        port, _, protocol = key.partition("/")
        ports += [
            Published(each["HostIp"], int(each["HostPort"] or 0), int(port), protocol or "tcp")
            for each in bindings or ()
        ]
    return sorted(ports, key=lambda one: (one.host_port, one.container_port))


def of_cluster(nodes: Sequence[Node], name: str) -> list[Node]:
    """Return the servers, agents and load balancers of the cluster `name`, strays of an edit included."""
    return [node for node in nodes if node.cluster == name and node.role in _WORDS]


def strays(nodes: Sequence[Node], balancer: str) -> list[Node]:
    """Return what an edit that broke off left: the load balancer under a name like `X-fAGRt`."""
    return [node for node in nodes if node.role == "loadbalancer" and node.name != balancer]


def judge(nodes: Sequence[Node], balancer: str, *, unfinished: bool) -> tuple[State, str]:
    """Say what the nodes of one cluster amount to, and why, for a person.

    `unfinished`: a create of ours was begun and did not come to its end.
    """
    if not nodes:
        return (
            ("half-made", "its creation broke off") if unfinished else ("absent", "there is no such cluster")
        )
    detail = ", ".join(f"{_WORDS[node.role]} {node.name} {node.state}" for node in nodes)
    servers = [node for node in nodes if node.role == "server"]
    stray = strays(nodes, balancer)
    never_started = [node for node in nodes if node.state == "created"]
    if unfinished or not servers or (never_started and not stray):
        return "half-made", f"its creation broke off: {detail}"
    states = {node.state for node in nodes}
    if stray:
        return "broken", f"an edit of its load balancer broke off: {detail}"
    if states == {"running"}:
        return "running", detail
    if states == {"exited"}:
        return "stopped", detail
    return "broken", detail

"""Which images the nodes of a cluster have, as each node's containerd tells.

Used by `images` and by the control plane. The node's `ctr` is asked by `docker exec`; nothing is changed.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kecs.k3d.cluster import K3dCluster

HUB = "docker.io"
"""Where an image comes from whose name does not say it."""


@dataclass(frozen=True, slots=True)
class Holding:
    """What the nodes have under the name of an image."""

    digests: tuple[str | None, ...]
    """The digest that containerd of each node has for it; None: it has none of that name."""
    same: bool
    """Every node has it, and it is known to be the image that Docker has."""


def holding(cluster: K3dCluster, image: str, image_id: str) -> Holding:
    """Look what every server and agent has under the name `image`, whose id in Docker is `image_id`.

    Docker's id is the digest of the image's configuration, which its manifest names and for which containerd
    may have a name of its own; or, where Docker keeps its images in containerd, the digest that containerd
    has for the image. Of several platforms in one image only what the names tell is known.
    """
    wanted = canonical(image)
    digests: list[str | None] = []
    same: list[bool] = []
    for node in workers(cluster):
        names = listed(cluster, node)
        digest = names.get(wanted)
        digests.append(digest)
        known = digest is not None and digest in (image_id, names.get(image_id))
        same.append(known or (digest is not None and _configuration(cluster, node, digest) == image_id))
    return Holding(tuple(digests), bool(same) and all(same))


def in_nodes(cluster: K3dCluster, image: str) -> bool:
    """Tell whether every server and agent of the cluster has `image`. False when none runs."""
    return not missing_in(cluster, image) and bool(workers(cluster))


def missing_in(cluster: K3dCluster, image: str) -> list[str]:
    """Return the names of the nodes that do not have `image`."""
    wanted = canonical(image)
    return [name for name in workers(cluster) if wanted not in listed(cluster, name)]


def workers(cluster: K3dCluster) -> list[str]:
    """Return the names of the nodes that run pods."""
    return [node.name for node in cluster.nodes() if node.role in ("server", "agent")]


def listed(cluster: K3dCluster, node: str) -> dict[str, str]:
    """Ask containerd in `node` for its images: digest by name; none when it does not answer."""
    said = cluster.docker("exec", node, "ctr", "-n", "k8s.io", "images", "ls")
    # REF TYPE DIGEST SIZE PLATFORMS LABELS; the first three have no spaces in them.
    rows = [line.split() for line in said.stdout.splitlines()[1:]] if said.code == 0 else []
    return {row[0]: row[2] for row in rows if len(row) > 2}


def canonical(image: str) -> str:
    """Return the name that containerd has for `image`: `myapp` is `docker.io/library/myapp:latest`.

    The rules are those of Docker's and the kubelet's library (`ParseDockerRef` of distribution/reference).
    """
    name, at, digest = image.partition("@")
    domain, slash, path = name.partition("/")
    is_domain = "." in domain or ":" in domain or domain == "localhost" or domain != domain.lower()
    if not slash or not is_domain:
        domain, path = HUB, name
    if domain == f"index.{HUB}":
        domain = HUB
    if domain == HUB and "/" not in path:
        path = f"library/{path}"
    if ":" not in path and not at:
        path += ":latest"
    return f"{domain}/{path}{at}{digest}"


def _configuration(cluster: K3dCluster, node: str, digest: str) -> str | None:
    """Return the digest of the configuration that a manifest names; None when `digest` is none of one."""
    said = cluster.docker("exec", node, "ctr", "-n", "k8s.io", "content", "get", digest)
    try:
        document: dict[str, Any] = json.loads(said.stdout) if said.code == 0 else {}
        return str(document["config"]["digest"])
    except (ValueError, KeyError, TypeError):
        return None

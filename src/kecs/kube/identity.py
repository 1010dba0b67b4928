"""Which cluster is behind an API server: the UID of a namespace that every cluster has exactly once.

Names, addresses and certificates of a cluster may change, and another one may get them; this UID does
neither. Used before anything is done for an instance, by the command line and by the control plane.
"""

from __future__ import annotations

from kecs.kube.client import KubeClient
from kecs.kube.errors import ApiError


async def cluster_uid(client: KubeClient) -> str:
    """Return the UID of the namespace `kube-system`. Raises `ApiError`, `Unreachable`."""
    found = await client.get("Namespace", None, "kube-system")
    if found is None:
        raise ApiError(404, "NotFound", "there is no namespace kube-system")
    return str(found["metadata"]["uid"])

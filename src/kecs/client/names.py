"""The names by which services are reached through the one port for all names (docs/design/contracts.md, 3).

The agent serves them, commands print them. Labels are Kubernetes' names for ECS's (`kecs.ecs.names`): no two
services have the same one.
"""

from __future__ import annotations

import functools

from kecs.ecs.names import kubernetes_name

DOMAIN = "localhost"
"""Browsers and curl resolve every name below it to this machine, without asking anybody (RFC 6761, 6.3)."""


@functools.lru_cache(maxsize=4096)
def hosts_of(service: str, cluster: str, region: str, here: str) -> tuple[str, ...]:
    """Return the hosts that lead to a service, the shortest first; `here` is the instance's region.

    `web.prod.localhost`; in the cluster `default` also `web.localhost`; in another region than the
    instance's only `web.prod.eu-west-1.localhost`.
    """
    label = kubernetes_name(service)
    whole = f"{label}.{kubernetes_name(cluster)}"
    if region != here:
        return (f"{whole}.{region}.{DOMAIN}",)
    if cluster == "default":
        return (f"{label}.{DOMAIN}", f"{whole}.{DOMAIN}")
    return (f"{whole}.{DOMAIN}",)


def url_of(service: str, cluster: str, region: str, here: str, port: int) -> str:
    """Return the shortest URL of a service by its name, on the one `port`."""
    return f"http://{hosts_of(service, cluster, region, here)[0]}:{port}/"

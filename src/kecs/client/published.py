"""Published ports: which instance can have them, and which node ports they are to lead to.

A forward with `publish` is an ordinary forward, and beside it a port of 127.0.0.1 on k3d's load balancer,
which Docker holds, whether KECS runs or not. The agent keeps the wish (`Entry.publish`) and refuses in here
what cannot be; the command line has the load balancer do it (`kecs.cli.forward_publish`). No I/O.
"""

from __future__ import annotations

from collections.abc import Iterable

from kecs.client.endpoints import Target
from kecs.client.instance import Instance
from kecs.errors import ExitCode, KecsError
from kecs.paths import instance_flag


def check(port: int | None, instance: Instance) -> None:
    """Refuse a published port on an instance without a load balancer (exit 2); None is none."""
    if port is None:
        return
    start = "`kecs start --runtime k3d --load-balancer{}`"
    if instance.k3d is None:
        raise KecsError(
            f"the port {port} cannot be published on the runtime `{instance.runtime}`: "
            "k3d's load balancer would hold it",
            f"leave it out, or make another instance: {start.format(' --instance NAME')}",
            ExitCode.USAGE,
        )
    if not instance.k3d.load_balancer:
        name = instance_flag(instance.name)
        raise KecsError(
            f"the port {port} cannot be published: the cluster `{instance.k3d.cluster}` has no load "
            "balancer, and k3d cannot add one later",
            f"make the instance anew: `kecs destroy{name}`, then {start.format(name)}",
            ExitCode.USAGE,
        )


def node_port_of(
    targets: Iterable[Target], region: str, cluster: str, service: str, port: int | str | None
) -> int | None:
    """Return the node port of a service's container port (by number, name, or the only one).

    None while there is none: the service does not exist, is not public, or its node port is not applied yet.
    """
    for target in targets:
        if (target.region, target.cluster, target.service) == (region, cluster, service):
            possible = [one for one in target.ports if one.protocol == "tcp"]
            found = [one for one in possible if port in (one.container_port, one.name)]
            if port is None and len({one.container_port for one in possible}) == 1:
                found = possible
            return next((one.node_port for one in found if one.node_port is not None), None)
    return None

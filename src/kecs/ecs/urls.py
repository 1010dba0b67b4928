"""`KECS_URL_<SERVICE>`: what a task is told of the other services of its cluster when it starts. Pure.

It needs no `assignPublicIp`, as on AWS: that is about being reached from outside. `*.localhost` does not
resolve in Python, in Node or in a Pod, so tasks get addresses that do: on `local` the port that is kept for
the service (`kecs.ecs.kept_ports`), on Kubernetes the DNS name of its Service.
"""

from __future__ import annotations

import re

from kecs.ecs import names, node_ports
from kecs.ecs.context import RuntimeTraits
from kecs.ecs.model import Service, Task
from kecs.ecs.state import Reader

_OVER = frozenset({"STOPPED", "DELETED"})


def urls_of(state: Reader, task: Task, runtime: RuntimeTraits) -> dict[str, str]:
    """Return the variables for `task`; of two services with the same variable the older one has it."""
    found: dict[str, str] = {}
    for service in state.scan(Service, task.region, task.cluster):
        if service.name != task.service and (url := _url(state, service, runtime)):
            found.setdefault(variable(service.name), url)
    return found


def variable(service: str) -> str:
    """Return `KECS_URL_WEB_API` for `web-api`."""
    return f"KECS_URL_{re.sub('[^A-Z0-9]', '_', service.upper())}"


def are_told(state: Reader) -> bool:
    """Tell whether a living task was told of a kept port: then somebody has to listen on it."""
    kept = {
        (one.region, one.cluster, one.name)
        for one in state.scan(Service)
        if one.kept_port is not None and one.status != "INACTIVE"
    }
    if not kept:
        return False
    return any(
        task.last_status not in _OVER
        and any(key[:2] == (task.region, task.cluster) and key[2] != task.service for key in kept)
        for task in state.scan(Task)
    )


def first_port(state: Reader, service: Service) -> int | None:
    """Return the container port that a service is known by: the first one of TCP that it maps."""
    ports = node_ports.ports_of_service(state, service)
    return next((port for port, protocol in ports if protocol == "tcp"), None)


def _url(state: Reader, service: Service, runtime: RuntimeTraits) -> str | None:
    if service.status == "INACTIVE":
        return None
    if not runtime.runs_pods:
        return f"http://127.0.0.1:{service.kept_port}" if service.kept_port is not None else None
    port = first_port(state, service)
    if port is None:
        return None
    namespace = names.namespace(runtime.instance, runtime.instance_id, service.region, service.cluster)
    return f"http://{names.service_name(service.name)}.{namespace}.svc.cluster.local:{port}"

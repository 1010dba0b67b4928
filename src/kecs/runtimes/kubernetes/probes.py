"""Probes: how the kubelet finds out what ECS wants to know, that a container listens and that it is healthy.

There are two questions and, with a health check, two probes that can answer: `started` and `ready` of a
container's status. The third kind, a liveness probe, restarts what fails, which a task never does.

| container | startupProbe | readinessProbe | listens | HEALTHY |
| --- | --- | --- | --- | --- |
| TCP ports | | first TCP port | ready | |
| TCP ports, healthCheck | first TCP port | healthCheck | started | ready |
| healthCheck | | healthCheck | | ready |
| sidecar that others wait for to be HEALTHY | healthCheck | healthCheck | ready | ready |
| sidecar otherwise, TCP ports, healthCheck | | healthCheck | ready | ready |

A sidecar holds back what is behind it until its startup probe has passed; one that others wait for to START
must not, so it has none. A container that is not essential gets no probe for its ports: it may end, and
what it listens on counts while it runs.
"""

from __future__ import annotations

from typing import Any

from kecs.ecs.names import port_name
from kecs.ecs.pod_order import Placed
from kecs.runtimes.base import ContainerSpec, HealthCheck
from kecs.runtimes.kubernetes.expansion import literals

FOR_EVER = 2**31 - 1
"""A failureThreshold (int32) never reached: the kubelet kills a container whose startup probe fails."""


def probes(container: ContainerSpec, place: Placed) -> dict[str, Any]:
    """Return the probes of a container's manifest; an init container can have none."""
    if place.role == "init":
        return {}
    health = health_argv(container.health_check)
    port = next((port for port in container.ports if port.protocol == "tcp"), None)
    listens = _tcp(port_name(port.container_port, "tcp")) if port and container.essential else None
    if container.health_check is None or not health:
        return {"readinessProbe": listens} if listens else {}
    healthy = _exec(container.health_check, health)
    if place.gates:
        startup = {**healthy, "failureThreshold": FOR_EVER}
        return {"startupProbe": startup, "readinessProbe": healthy}
    if listens and place.role == "main":
        return {"startupProbe": {**listens, "failureThreshold": FOR_EVER}, "readinessProbe": healthy}
    return {"readinessProbe": healthy}


def health_argv(check: HealthCheck | None) -> list[str]:
    """Return the arguments of a health check's command; [] when there is none, or it says `NONE`."""
    kind, *rest = (check.command if check is not None else None) or ["NONE"]
    if kind == "NONE" or not rest:
        return []
    return ["/bin/sh", "-c", *rest] if kind == "CMD-SHELL" else rest


def unhealthy_after(container: ContainerSpec) -> float | None:
    """Return after how many seconds a container is UNHEALTHY that was never healthy; None: without a check.

    ECS does not count failures within the start period, then `retries` of them, one an interval (Docker's
    rule). One whose mapped port nobody listens on is taken for unhealthy, too: its check has not run then.
    """
    check = container.health_check
    if check is None or not health_argv(check):
        return None
    return check.start_period + check.interval * check.retries


def _tcp(port: str) -> dict[str, Any]:
    return {"tcpSocket": {"port": port}, "periodSeconds": 1, "timeoutSeconds": 1, "failureThreshold": 3}


def _exec(check: HealthCheck, argv: list[str]) -> dict[str, Any]:
    return {
        "exec": {"command": literals(argv)},
        "periodSeconds": max(1, round(check.interval)),
        "timeoutSeconds": max(1, round(check.timeout)),
        "failureThreshold": max(1, check.retries),
    }

"""Settings that are stored and returned but do nothing on the instance's runtime, with the reason. Pure.

`kecs explain` shows them: a setting that a runtime cannot honour is never dropped in silence
(docs/design/contracts.md, 7). What is so on which runtime is in `local` and `pods`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from kecs.controlplane.without_effect import local, pods
from kecs.controlplane.without_effect.said import said
from kecs.ecs.model import Service, TaskDefinition

_RUNTIMES = {"local": local, "k3d": pods, "kubernetes": pods}
"""What is told of each runtime, by its name."""


def of_definition(definition: TaskDefinition | None, runtime: str) -> Iterator[str]:
    """Yield one sentence for each setting of the task definition without effect."""
    if definition is not None:
        yield from _RUNTIMES[runtime].of_definition(definition.definition)


def of_service(service: Service, runtime: str) -> Iterator[str]:
    """Yield one sentence for each setting of the service without effect."""
    yield from said(service.settings, _RUNTIMES[runtime].IN_SERVICE)
    if service.health_check_grace_period_seconds and not service.settings.get("loadBalancers"):
        yield "healthCheckGracePeriodSeconds: there is no load balancer whose checks it could delay"
    if service.enable_execute_command:
        yield "enableExecuteCommand: ExecuteCommand is not built yet"
    yield from _of_network(service.network_configuration, runtime)


def _of_network(network_configuration: Mapping[str, Any] | None, runtime: str) -> Iterator[str]:
    awsvpc = (network_configuration or {}).get("awsvpcConfiguration") or {}
    if awsvpc.get("subnets"):
        yield f"subnets: accepted unchecked; {_RUNTIMES[runtime].SUBNETS}"
    if awsvpc.get("securityGroups"):
        yield f"securityGroups: accepted unchecked; {_RUNTIMES[runtime].SECURITY_GROUPS}"

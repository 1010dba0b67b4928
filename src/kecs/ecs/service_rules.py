"""The rules of a service's settings: deployment configuration, scheduling, desired count.

Called by `kecs.ecs.services`. Source: API reference, CreateService and DeploymentConfiguration.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kecs.ecs.errors import ClientException, InvalidParameterException

REPLICA_DEFAULTS = {"maximumPercent": 200, "minimumHealthyPercent": 100}
DAEMON_DEFAULTS = {"maximumPercent": 100, "minimumHealthyPercent": 0}
_NO_BREAKER = {"enable": False, "rollback": False}
MOST_DESIRED = 5000
"""Tasks of one service (ECS quotas)."""


def deployment_configuration(
    given: Mapping[str, Any], existing: Mapping[str, Any] | None, *, daemon: bool
) -> dict[str, Any]:
    """Return the configuration: given members over the existing ones or the defaults.

    Raises InvalidParameterException, and ClientException for strategies that KECS does not have.
    """
    defaults = {
        "deploymentCircuitBreaker": _NO_BREAKER,
        **(DAEMON_DEFAULTS if daemon else REPLICA_DEFAULTS),
        "strategy": "ROLLING",
        "bakeTimeInMinutes": 0,
    }
    result = {**defaults, **(existing or {}), **given}
    if result["strategy"] != "ROLLING":
        raise ClientException(
            f"KECS does not have the deployment strategy {result['strategy']} yet. Instead, use ROLLING."
        )
    lowest, highest = result["minimumHealthyPercent"], result["maximumPercent"]
    if lowest < 0 or highest < 0:
        raise InvalidParameterException(
            "maximumPercent and minimumHealthyPercent must be greater than or equal to 0."
        )
    if daemon:
        if highest != DAEMON_DEFAULTS["maximumPercent"]:
            raise InvalidParameterException(
                "You cannot specify a custom maximumPercent for a service that uses the DAEMON scheduling "
                "strategy."
            )
        if lowest >= highest:
            raise InvalidParameterException(_BLOCKED)
        return result
    if highest < 100:
        raise InvalidParameterException("maximumPercent must be greater than or equal to 100.")
    if lowest > highest:
        raise InvalidParameterException("minimumHealthyPercent must be less than maximumPercent.")
    if lowest == highest == 100:
        raise InvalidParameterException(_BLOCKED)
    return result


_BLOCKED = "Both maximumPercent and minimumHealthyPercent cannot be 100 as this will block deployments."


def check_controller(controller: Mapping[str, Any] | None) -> None:
    """Raise ClientException for deployment controllers that KECS does not have."""
    kind = (controller or {}).get("type", "ECS")
    if kind != "ECS":
        raise ClientException(
            f"KECS does not have the deployment controller {kind} yet. Instead, use the rolling update: ECS."
        )


def desired_count(asked: int | None, *, daemon: bool) -> int:
    """Return the desired count of a new service; DAEMON: one task for the one node of this machine."""
    if daemon:
        return 1
    if asked is None:
        raise InvalidParameterException(
            "The desired count must be specified for the REPLICA scheduling strategy."
        )
    return check_count(asked)


def check_count(asked: int) -> int:
    """Return `asked`; raises InvalidParameterException when a service cannot have so many tasks."""
    if not 0 <= asked <= MOST_DESIRED:
        raise InvalidParameterException(f"The desired count must be between 0 and {MOST_DESIRED}.")
    return asked


def check_daemon(params: Mapping[str, Any], *, fargate: bool) -> None:
    """Raise InvalidParameterException for what the DAEMON scheduling strategy does not have."""
    if params.get("placementStrategy"):
        raise InvalidParameterException(
            "Placement strategies are not supported with the DAEMON scheduling strategy."
        )
    if params.get("capacityProviderStrategy"):
        raise InvalidParameterException(
            "Specifying a capacity provider strategy is not supported when you create a service using the "
            "DAEMON scheduling strategy."
        )
    if fargate:
        raise InvalidParameterException(
            "The DAEMON scheduling strategy is not supported for tasks of the FARGATE launch type."
        )

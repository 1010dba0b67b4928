"""Capacity providers and launch types: which of them a task gets.

FARGATE and FARGATE_SPOT exist in every account and need only to be associated with a cluster; there
are no others here. EC2 is this machine itself, without container instances. Rules: API reference,
`CapacityProviderStrategyItem`, and Developer Guide, "Fargate capacity providers".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kecs.ecs import arn
from kecs.ecs.context import Context
from kecs.ecs.errors import InvalidParameterException
from kecs.ecs.model import Cluster

FARGATE_PROVIDERS = ("FARGATE", "FARGATE_SPOT")
LAUNCH_TYPES = ("EC2", "FARGATE")
"""What tasks can be launched as here."""
LARGEST_STRATEGY = 20

Strategy = list[dict[str, Any]]


def check_providers(names: Sequence[str]) -> list[str]:
    """Return the names of the providers given by name or ARN; raises InvalidParameterException."""
    found = []
    for name in names:
        short = name.rpartition("/")[2] if arn.looks_like_arn(name) else name
        if short not in FARGATE_PROVIDERS:
            raise InvalidParameterException(
                f"The specified capacity provider '{name}' was not found. Here are FARGATE and FARGATE_SPOT."
            )
        if short not in found:
            found.append(short)
    return found


def check_strategy(strategy: Sequence[Mapping[str, Any]], associated: Sequence[str]) -> Strategy:
    """Return the strategy with its defaults; raises InvalidParameterException.

    Each provider must be one of `associated`; not all weights may be 0; one may have a base.
    """
    if len(strategy) > LARGEST_STRATEGY:
        raise InvalidParameterException(
            f"A capacity provider strategy can contain a maximum of {LARGEST_STRATEGY} capacity providers."
        )
    items: Strategy = []
    for item in strategy:
        [name] = check_providers([item["capacityProvider"]])
        if name not in associated:
            raise InvalidParameterException(
                "The specified capacity provider strategy cannot contain a capacity provider that is not "
                "associated with the cluster. Associate the capacity provider with the cluster and try again."
            )
        items.append({"capacityProvider": name, "weight": item.get("weight", 0), "base": item.get("base", 0)})
    if len({item["capacityProvider"] for item in items}) < len(items):
        raise InvalidParameterException(
            "The specified capacity provider strategy cannot contain duplicate capacity providers."
        )
    if sum(item["base"] > 0 for item in items) > 1:
        raise InvalidParameterException(
            "The specified capacity provider strategy can have a base defined for only one capacity provider."
        )
    if items and len(items) > 1 and not any(item["weight"] for item in items):
        raise InvalidParameterException(
            "The specified capacity provider strategy must have at least one capacity provider with a weight "
            "greater than zero."
        )
    return items


def choose(strategy: Sequence[Mapping[str, Any]], used: Mapping[str, int]) -> str:
    """Return the provider of the next task; `used` are the tasks that each has already.

    The base is filled first, then tasks are spread in the proportion of the weights.
    """
    for item in strategy:
        if used.get(item["capacityProvider"], 0) < item.get("base", 0):
            return str(item["capacityProvider"])
    weighted = [item for item in strategy if item.get("weight", 0) > 0] or list(strategy)
    next_one = min(
        weighted,
        key=lambda item: (
            (used.get(item["capacityProvider"], 0) - item.get("base", 0)) / (item.get("weight", 0) or 1)
        ),
    )
    return str(next_one["capacityProvider"])


def launch(
    cluster: Cluster,
    launch_type: str | None,
    strategy: Sequence[Mapping[str, Any]] | None,
    *,
    wants_public_ip: bool,
) -> tuple[str | None, Strategy]:
    """Return (launch type, []) or (None, strategy) for a request; raises InvalidParameterException.

    Without either the cluster's default strategy counts, then EC2; but a request that asks for a public
    IP, which EC2 has not, is taken as FARGATE (docs/design/contracts.md, 7).
    """
    if launch_type and strategy:
        raise InvalidParameterException(
            "Specifying both a launch type and capacity provider strategy is not supported. "
            "Remove one and try again."
        )
    if launch_type and launch_type not in LAUNCH_TYPES:
        raise InvalidParameterException(
            f"No Container Instances were found in your cluster. Launch type {launch_type} needs instances "
            "that were registered; use EC2 or FARGATE."
        )
    if launch_type == "EC2" and wants_public_ip:
        raise InvalidParameterException("Assign public IP is not supported for this launch type.")
    if strategy:
        return None, check_strategy(strategy, cluster.capacity_providers)
    if launch_type is None and cluster.default_capacity_provider_strategy:
        return None, list(cluster.default_capacity_provider_strategy)
    return launch_type or ("FARGATE" if wants_public_ip else "EC2"), []


def is_fargate(launch_type: str | None, strategy: Sequence[Mapping[str, Any]]) -> bool:
    """Tell whether tasks run as Fargate would run them: all providers here are Fargate's."""
    return launch_type == "FARGATE" or bool(strategy)


def describe(name: str, ctx: Context) -> dict[str, Any]:
    """Return the API's CapacityProvider."""
    return {
        "capacityProviderArn": arn.capacity_provider_arn(ctx.region, name, ctx.account),
        "name": name,
        "status": "ACTIVE",
        "type": name,
        "tags": [],
    }

"""Whose an object of the cluster is and what of ECS it stands for: labels to select by, annotations to read.

Labels hold legal forms of names (`kecs.ecs.names`), annotations the true ones: enough to rebuild the state
from the cluster alone. An object whose `kecs.dev/instance-id` is another's is not ours, whatever its name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kecs.ecs.names import kubernetes_name

PREFIX = "kecs.dev/"
INSTANCE_ID = f"{PREFIX}instance-id"
INSTANCE = f"{PREFIX}instance"
REGION = f"{PREFIX}region"
CLUSTER = f"{PREFIX}cluster"
SERVICE = f"{PREFIX}service"
TASK_ID = f"{PREFIX}task-id"
TASK_ARN = f"{PREFIX}task-arn"
FAMILY = f"{PREFIX}family"
REVISION = f"{PREFIX}revision"
DEPLOYMENT = f"{PREFIX}deployment"
CONTAINERS = f"{PREFIX}containers"
MANAGED_BY = "app.kubernetes.io/managed-by"


@dataclass(frozen=True)
class Owner:
    """The instance that objects are made for."""

    instance: str
    instance_id: str


def selector(owner: Owner) -> dict[str, str]:
    """Return the labels by which everything of an instance is found, and nothing of another."""
    return {INSTANCE_ID: owner.instance_id}


def owned(item: Mapping[str, Any], owner: Owner) -> bool:
    """Tell whether an object was made by this instance: no other may be adopted, changed or deleted."""
    return (item["metadata"].get("labels") or {}).get(INSTANCE_ID) == owner.instance_id


def labels(owner: Owner, **of: str | None) -> dict[str, str]:
    """Return the labels of an object; `of` are names of ECS by what they name (`cluster`, `task_id`, …)."""
    said = {
        f"{PREFIX}{what.replace('_', '-')}": kubernetes_name(name)
        for what, name in of.items()
        if name is not None
    }
    return {
        INSTANCE_ID: owner.instance_id,
        INSTANCE: kubernetes_name(owner.instance),
        **said,
        MANAGED_BY: "kecs",
    }


def true_names(**of: str | None) -> dict[str, str]:
    """Return the annotations that hold true names of ECS."""
    return {f"{PREFIX}{what.replace('_', '-')}": name for what, name in of.items() if name is not None}

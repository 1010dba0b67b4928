"""What a Pod says of its containers beyond Kubernetes' own fields: the annotation `kecs.dev/containers`.

`manifests` writes it and `pods` reads it, so that a Pod is understood without any other memory: after a
restart of the control plane, by another version of it, from a file of `kubectl get pod -o json`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from kecs.ecs.pod_order import Role
from kecs.runtimes.kubernetes import identity


class Note(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """One container of the task."""

    name: str
    """As ECS knows it."""
    container: str
    """As the Pod knows it."""
    role: Role = "main"
    essential: bool = True
    depends_on: list[tuple[str, str]] = []
    """(name, condition)."""
    start_timeout: float | None = None
    """Seconds from its start within which it must be what others wait for."""
    unhealthy_after: float | None = None
    """Seconds from its start after which it is UNHEALTHY if it was never healthy; None: it has no check."""
    image_tried: str | None = None
    """What was done to bring its image to the cluster before the Pod was made; None: nothing."""


def written(notes: list[Note]) -> str:
    """Return the value of the annotation."""
    return msgspec.json.encode(notes).decode()


def of_pod(pod: Mapping[str, Any]) -> list[Note]:
    """Return the notes of a Pod, in the order of the task definition.

    For one whose annotation somebody took away, its containers are taken as they are.
    """
    text = (pod["metadata"].get("annotations") or {}).get(identity.CONTAINERS)
    try:
        return msgspec.json.decode(text or "", type=list[Note])
    except msgspec.DecodeError:
        return [Note(name=one["name"], container=one["name"]) for one in pod["spec"]["containers"]]

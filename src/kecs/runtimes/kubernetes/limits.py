"""CPU and memory: what the definition reserves is requested, what it limits is limited.

ECS reserves a container's `cpu` and `memoryReservation` (else `memory`) on its instance: so does a request.
`cpu` is a weight beyond that: so is a request (both become cgroup shares). A container's `memory` is a hard
limit; so are the sizes of the task, which on ECS hold for the sum of its containers. Here each container
may use them: exact for a task of one container, and never less than on ECS. The sizes of a task request
nothing: Fargate finds a place for every task, and a laptop must not be full of tasks that idle. Where
nothing is reserved, 0 is requested in so many words, because Kubernetes would take the limit otherwise.
"""

from __future__ import annotations

import math
from typing import Any

from kecs.runtimes.base import ContainerSpec, TaskSpec

GPU = "nvidia.com/gpu"
"""Resource of NVIDIA's device plugin, which ECS's `GPU` are, too."""


def resources(container: ContainerSpec, task: TaskSpec) -> dict[str, dict[str, str]]:
    """Return `resources` of a container; {} when nothing is said."""
    said = container.definition
    requests: dict[str, str] = {}
    limits: dict[str, str] = {}
    _set(requests, limits, "cpu", _millicores, reserved=said.get("cpu"), limit=task.cpu)
    _set(
        requests, limits, "memory", "{}Mi".format,
        reserved=said.get("memoryReservation") or said.get("memory"), limit=said.get("memory") or task.memory,
    )  # fmt: skip
    gpus = [it["value"] for it in said.get("resourceRequirements", []) if it.get("type") == "GPU"]
    if gpus:
        limits[GPU] = gpus[0]
    return {name: each for name, each in (("requests", requests), ("limits", limits)) if each}


def _set(
    requests: dict[str, str], limits: dict[str, str], what: str, written: Any, *, reserved: Any, limit: Any
) -> None:
    ask, most = int(reserved or 0), int(limit or 0)
    if most:
        limits[what] = written(most)
        requests[what] = written(min(ask, most)) if ask else "0"
    elif ask:
        requests[what] = written(ask)


def _millicores(units: int) -> str:
    return f"{math.ceil(units * 1000 / 1024)}m"

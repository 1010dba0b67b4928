"""Deployments of a service: making one, superseding one, finding and ending them.

Operations (`ecs.services`) and the scheduler (`ecs.scheduler`) build deployments only here. A service
with `deploymentController: ECS` always has exactly one PRIMARY deployment while it is ACTIVE; older
ones stay in `Service.deployments` until their last task is STOPPED, however many updates came meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec

from kecs.ecs.model import Deployment, RolloutState, Service, Task

HISTORY = 20
"""So many ended deployments a service remembers (`Service.history`)."""


def deployment_id(new_id: Callable[[], str]) -> str:
    """Return `ecs-svc/<19 digits>`; `new_id` gives 32 random hexadecimal digits."""
    return f"ecs-svc/{10**18 + int(new_id(), 16) % (9 * 10**18)}"


def new_deployment(
    service: Service,
    *,
    deployment_id: str,
    now: float,
    extra: dict[str, Any] | None = None,
    is_rollback: bool = False,
) -> Deployment:
    """Make a PRIMARY deployment of what `service` asks for now; it is not yet in `service.deployments`.

    `extra` are further members of the API's Deployment (`serviceConnectConfiguration`,
    `volumeConfigurations`, `platformFamily`, …) that are stored and returned as they are.
    """
    return Deployment(
        id=deployment_id,
        task_definition=service.task_definition,
        desired_count=wanted(service),
        created_at=now,
        updated_at=now,
        rollout_state_reason=f"ECS deployment {deployment_id} in progress.",
        launch_type=service.launch_type,
        platform_version=service.platform_version,
        capacity_provider_strategy=service.capacity_provider_strategy,
        network_configuration=service.network_configuration,
        extra=extra or {},
        is_rollback=is_rollback,
    )


def with_new_deployment(service: Service, deployment: Deployment, now: float) -> Service:
    """Put `deployment` in front as PRIMARY; the one that was becomes ACTIVE and will be drained."""
    older = [
        msgspec.structs.replace(old, status="ACTIVE", updated_at=now) if old.status == "PRIMARY" else old
        for old in service.deployments
    ]
    return msgspec.structs.replace(service, deployments=[deployment, *older], steady=False)


def primary(service: Service) -> Deployment | None:
    """Return the PRIMARY deployment; None when the service is INACTIVE or has another controller."""
    return next((item for item in service.deployments if item.status == "PRIMARY"), None)


def find(service: Service, deployment_id: str) -> Deployment | None:
    """Return the deployment with this id, ended ones included."""
    everything = [*service.deployments, *service.history]
    return next((item for item in everything if item.id == deployment_id), None)


def wanted(service: Service) -> int:
    """Return how many tasks the service is to have: DAEMON means one on the one node of this machine."""
    if service.status != "ACTIVE":
        return 0
    return 1 if service.scheduling_strategy == "DAEMON" else service.desired_count


def is_running(task: Task) -> bool:
    """Tell whether the task is in the API's `runningCount`: RUNNING, and meant to be."""
    return task.last_status == "RUNNING" and task.desired_status == "RUNNING"


def is_pending(task: Task) -> bool:
    """Tell whether the task is in the API's `pendingCount`: on its way to RUNNING."""
    return task.last_status in {"PROVISIONING", "PENDING", "ACTIVATING"} and task.desired_status == "RUNNING"


def counts(tasks: Iterable[Task], deployment: str | None = None) -> tuple[int, int]:
    """Return (runningCount, pendingCount) of `tasks`, or of those of one deployment's id."""
    chosen = [task for task in tasks if deployment is None or task.started_by == deployment]
    return sum(map(is_running, chosen)), sum(map(is_pending, chosen))


def with_state(deployment: Deployment, state: RolloutState, reason: str, now: float) -> Deployment:
    """Set the rollout state."""
    return msgspec.structs.replace(
        deployment,
        rollout_state=state,
        rollout_state_reason=reason,
        was_stable=deployment.was_stable or state == "COMPLETED",
        updated_at=now,
    )


def with_deployment(service: Service, deployment: Deployment) -> Service:
    """Replace the deployment that has the same id."""
    replaced = [deployment if item.id == deployment.id else item for item in service.deployments]
    return msgspec.structs.replace(service, deployments=replaced)


def without_ended(service: Service, tasks: Sequence[Task], now: float) -> Service:
    """Move older deployments that have no task left (all STOPPED) to `history`."""
    alive = {task.started_by for task in tasks if task.last_status != "STOPPED"}
    kept = [item for item in service.deployments if item.status == "PRIMARY" or item.id in alive]
    if len(kept) == len(service.deployments):
        return service
    ended = [item for item in service.deployments if item not in kept]
    return retired(msgspec.structs.replace(service, deployments=kept), ended, now)


def retired(service: Service, ended: Sequence[Deployment], now: float) -> Service:
    """Put `ended` (newest first) at the head of the history as INACTIVE."""
    inactive = [
        msgspec.structs.replace(item, status="INACTIVE", desired_count=0, counted_failures=[], updated_at=now)
        for item in ended
    ]
    history = [*inactive, *service.history]
    # The last stable one is where a rollback goes: a run of failed deployments must not push it out.
    stable = next((index for index, item in enumerate(history) if item.was_stable), 0)
    if stable >= HISTORY:
        history = [*history[: HISTORY - 1], history[stable]]
    return msgspec.structs.replace(service, history=history[:HISTORY])


def last_stable(service: Service) -> Deployment | None:
    """Return the last deployment before the PRIMARY that was COMPLETED: where a rollback goes to."""
    older = [item for item in service.deployments if item.status != "PRIMARY"]
    return next((item for item in [*older, *service.history] if item.was_stable), None)

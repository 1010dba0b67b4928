"""Failing tasks of a deployment: how they are counted, slowed down and, with a circuit breaker, given up.

AWS counts in two stages: tasks that never reach RUNNING, and tasks that fail their health checks (API
reference, Deployment.failedTasks; ECS Developer Guide, deployment-circuit-breaker). A task that ran but
ended by itself before it counted as healthy is a failure here too, since it never helped the deployment.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import msgspec

from kecs.ecs.lifecycle import FAILED_HEALTH_CHECKS
from kecs.ecs.model import Deployment, Service, Task

LOWEST, HIGHEST = 3, 200
"""Bounds of the threshold of type BOUNDED_PERCENT (API reference, ThresholdConfiguration)."""
SLOWEST = 60.0
"""Longest wait, in seconds, between starts of tasks that fail again and again (AWS waits up to 15 min)."""
NOTABLE_ROUNDS = 3
"""From so many rounds of failures on "is unable to consistently start tasks successfully" is said."""


def breaker(service: Service) -> dict[str, Any]:
    """Return the service's `deploymentCircuitBreaker`; empty when it has none."""
    found: dict[str, Any] = service.deployment_configuration.get("deploymentCircuitBreaker") or {}
    return found


def threshold(service: Service, desired: int) -> int:
    """Return how many failures in a row fail a deployment of `desired` tasks."""
    configuration = breaker(service).get("thresholdConfiguration") or {}
    kind, value = configuration.get("type", "BOUNDED_PERCENT"), configuration.get("value", 50)
    if kind == "COUNT":
        return max(1, int(value))
    # Whole numbers: 0.29 * 100 is 28.999999999999996, and its ceiling would be right by luck only.
    share = -(-desired * int(value) // 100)
    return max(1, share) if kind == "UNBOUNDED_PERCENT" else min(HIGHEST, max(LOWEST, share))


def has_failed(task: Task) -> bool:
    """Tell whether the end of this task speaks against its deployment.

    A task that was stopped on purpose, or lost with its surroundings, does not. One that ends by itself
    counts at once, so that its replacement is throttled; an UNHEALTHY one when it "is stopped" (API).
    """
    if task.desired_status != "STOPPED":
        return False
    if task.stop_code == "ServiceSchedulerInitiated":
        return task.stopped_reason == FAILED_HEALTH_CHECKS and task.last_status == "STOPPED"
    return task.stop_code == "TaskFailedToStart" or (
        task.stop_code == "EssentialContainerExited" and task.healthy_at is None
    )


def rounds(failures: int, desired: int) -> int:
    """Return how often all `desired` tasks have failed: four that fail together are one round of four."""
    return math.ceil(failures / max(1, desired))


def delay(failures: int, desired: int) -> float:
    """Return the seconds to wait after a failure: at once the first time, then 1, 2, 4 … 60 s."""
    turn = rounds(failures, desired)
    return 0.0 if turn < 2 else min(SLOWEST, 2.0 ** min(turn - 2, 10))


def counted(
    deployment: Deployment, tasks: Iterable[Task], now: float, *, desired: int, resets: bool
) -> Deployment:
    """Take the failures and successes among the deployment's tasks into account that were not yet.

    `resets`: a task that becomes healthy sets the count back to 0 (`resetOnHealthyTask`).
    """
    mine = [task for task in tasks if task.started_by == deployment.id]
    known = set(deployment.counted_failures)
    failed = {task.id: task.stopping_at or now for task in mine if has_failed(task)}
    happened = [(at, task_id) for task_id, at in failed.items() if task_id not in known]
    seen_at = deployment.healthy_seen_at
    happened += [
        (task.healthy_at, "")
        for task in mine
        if task.healthy_at is not None and seen_at < task.healthy_at <= now
    ]
    if not happened:
        return deployment
    count, next_start_at = deployment.failed_tasks, deployment.next_start_at
    for at, task_id in sorted(happened):
        if task_id:
            count += 1
            next_start_at = max(next_start_at, at + delay(count, desired))
        else:
            seen_at = at
            count, next_start_at = (0, 0.0) if resets else (count, next_start_at)
    return msgspec.structs.replace(
        deployment,
        failed_tasks=count,
        next_start_at=next_start_at,
        healthy_seen_at=seen_at,
        # Those that were forgotten meanwhile cannot be counted again, and need not be remembered.
        counted_failures=sorted(failed),
    )


def one_more(deployment: Deployment, now: float, desired: int) -> Deployment:
    """Count a task that could not even be made."""
    failures = deployment.failed_tasks + 1
    # Unlike a task that ran, this one costs no time to fail: always wait at least a second.
    wait = max(1.0, delay(failures, desired))
    return msgspec.structs.replace(deployment, failed_tasks=failures, next_start_at=now + wait)


def trips(service: Service, deployment: Deployment, desired: int) -> bool:
    """Tell whether the circuit breaker ends this deployment now."""
    return (
        bool(breaker(service).get("enable"))
        and deployment.rollout_state == "IN_PROGRESS"
        and deployment.failed_tasks >= threshold(service, desired)
    )

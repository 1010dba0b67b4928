"""What a service needs next: `plan` compares what is asked for with the tasks there are.

The controller calls `plan` after each change of the service or of one of its tasks and at `wake_at`, and
carries the result out in the same transaction: it stores `Plan.service`, makes a task for each `start`
and calls `lifecycle.request_stop` for each `stop`. Pure: no I/O, no clock, no randomness.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from kecs.ecs.context import Knobs
from kecs.ecs.model import Service, Task


class StartTask(msgspec.Struct, frozen=True, kw_only=True):
    """Make one more task of this deployment."""

    deployment_id: str
    task_definition_arn: str


class StopTask(msgspec.Struct, frozen=True, kw_only=True):
    """Ask for the planned stop of this task."""

    task_id: str
    stop_code: str
    reason: str


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """The service's next row and what to do; carried out whole or not at all."""

    service: Service
    start: tuple[StartTask, ...] = ()
    stop: tuple[StopTask, ...] = ()
    wake_at: float | None = None
    """Epoch seconds: the earliest time when another plan may differ though nothing was observed."""


def plan(
    service: Service, tasks: Sequence[Task], now: float, knobs: Knobs, new_id: Callable[[], str]
) -> Plan:
    """Decide what the service needs; `tasks` are all of its tasks that are not forgotten, STOPPED too."""
    raise NotImplementedError

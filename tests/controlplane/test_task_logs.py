"""Which tasks of a service `kecs logs` reads."""

import asyncio
import json

import pytest
from tests.controlplane.world import REGION, service, state_of, task

from kecs.controlplane.task_logs import TaskLogs


class Written:
    """A runtime whose containers each wrote one line."""

    async def logs(self, task_id, container, *, follow):
        yield f"{container}\n".encode()


def read(*rows):
    logs = TaskLogs(lambda: state_of(service(), *rows), Written())

    async def main():
        found = logs.lines(REGION, "default", "web", container=None, follow=False)
        return [json.loads(line)["taskId"][-1] async for line in found]

    return asyncio.run(main())


def of_web(number, status, *, stopped_at=None, code=None):
    stopped = {"stopped_at": stopped_at, "stop_code": code} if stopped_at is not None else {}
    return task(id=f"{number:032x}", status=status, service="web", **stopped)


CRASHED = of_web(1, "STOPPED", stopped_at=5.0, code="EssentialContainerExited")
OLDER = of_web(2, "STOPPED", stopped_at=4.0, code="EssentialContainerExited")


@pytest.mark.parametrize("status", ["PROVISIONING", "PENDING", "ACTIVATING"])
def test_the_last_task_that_crashed_is_read_before_its_successor_has_come_up(status):
    assert read(OLDER, CRASHED, of_web(3, status)) == ["1", "3"]


def test_one_that_came_up_is_read_alone():
    assert read(CRASHED, of_web(3, "PENDING"), of_web(4, "RUNNING")) == ["3", "4"]


def test_one_that_was_told_to_stop_is_of_no_interest_to_those_who_look_at_its_successor():
    told = of_web(1, "STOPPED", stopped_at=5.0, code="ServiceSchedulerInitiated")
    assert read(told, of_web(3, "PENDING")) == ["3"]


def test_without_a_living_task_the_last_one_is_read():
    told = of_web(4, "STOPPED", stopped_at=6.0, code="UserInitiated")
    assert read(OLDER, CRASHED, told) == ["4"]

"""Which tasks of a service `kecs logs` reads, and what it says of those that cannot be read."""

import asyncio
import json

import pytest
from tests.controlplane.world import REGION, service, state_of, task

from kecs.controlplane.task_logs import TaskLogs
from kecs.errors import ExitCode, KecsError


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


class Unwell:
    """A runtime that reads the log of each task until something is wrong with it."""

    def __init__(self, **wrong):
        self.wrong = wrong

    async def logs(self, task_id, container, *, follow):
        yield b"one\ntw"
        await asyncio.sleep(0)
        if (error := self.wrong.get(f"task{task_id[-1]}")) is not None:
            raise error
        yield b"o\n"


REFUSED = KecsError("the log of web cannot be read: 403", "look at `kecs status`", ExitCode.UNREACHABLE)


@pytest.mark.parametrize("follow", [True, False])
@pytest.mark.parametrize(
    ("error", "message", "code"),
    [
        (REFUSED, "the log of web cannot be read: 403", 5),
        (RuntimeError("broken"), "the log of web cannot be read: broken", 1),
    ],
    ids=["refused", "unexpected"],
)
def test_what_cannot_be_read_is_said_and_ends_no_other_log(follow, error, message, code):
    tasks = [of_web(1, "RUNNING"), of_web(2, "RUNNING")]
    state = state_of(service(), *tasks)
    logs = TaskLogs(lambda: state, Unwell(task1=error))

    async def main():
        lines = logs.lines(REGION, "default", "web", container="web", follow=follow)
        return [json.loads(await anext(lines)) for _ in range(5)]

    told = asyncio.run(asyncio.wait_for(main(), 5))
    of_first = [line for line in told if line["taskId"].endswith("1")]
    assert [line["text"] for line in of_first] == ["one", "tw", ""]
    assert (of_first[-1]["error"]["message"], of_first[-1]["error"]["exitCode"]) == (message, code)
    assert [line["text"] for line in told if line["taskId"].endswith("2")] == ["one", "two"]
    assert [line for line in told if "error" in line] == of_first[-1:]


def test_a_fault_of_the_reader_itself_cuts_the_answer():
    state = state_of(of_web(1, "RUNNING"))
    logs = TaskLogs(lambda: state, Written())

    async def fails(*_):
        raise RuntimeError("a fault")

    logs._pour = fails

    async def main():
        return [
            line async for line in logs.lines(REGION, "default", f"{1:032x}", container=None, follow=True)
        ]

    with pytest.raises(RuntimeError, match="a fault"):
        asyncio.run(main())

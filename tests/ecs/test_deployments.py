"""Making, superseding and ending deployments."""

from __future__ import annotations

import re

import msgspec
import pytest
from tests.ecs.simulation import START, Simulation

from kecs.ecs import deployments
from kecs.ecs.model import Deployment, Service, Task


def service(**members: object) -> Service:
    known = {
        "region": "r", "cluster": "c", "name": "web", "task_definition": "web:1", "desired_count": 2,
        "deployment_configuration": {}, "created_at": START,
    }  # fmt: skip
    return Service(**(known | members))


def deployment(number: int, **members: object) -> Deployment:
    known = {
        "id": f"ecs-svc/{number}", "task_definition": "web:1", "desired_count": 2,
        "created_at": START, "updated_at": START,
    }  # fmt: skip
    return Deployment(**(known | members))


@pytest.mark.parametrize("digits", ["0" * 32, "f" * 32, "0123456789abcdef" * 2])
def test_an_id_has_19_digits(digits: str):
    assert re.fullmatch(r"ecs-svc/[1-9]\d{18}", deployments.deployment_id(lambda: digits))


def test_a_new_deployment_takes_over_what_the_service_asks_for():
    asked = service(
        launch_type="FARGATE",
        platform_version="1.4.0",
        network_configuration={"awsvpcConfiguration": {"subnets": ["s"], "assignPublicIp": "ENABLED"}},
    )

    made = deployments.new_deployment(
        asked, deployment_id="ecs-svc/1", now=7.0, extra={"platformFamily": "Linux"}
    )

    assert (made.status, made.rollout_state) == ("PRIMARY", "IN_PROGRESS")
    assert made.rollout_state_reason == "ECS deployment ecs-svc/1 in progress."
    assert (made.task_definition, made.desired_count) == ("web:1", 2)
    assert (made.launch_type, made.platform_version) == ("FARGATE", "1.4.0")
    assert made.network_configuration == asked.network_configuration
    assert made.extra == {"platformFamily": "Linux"}
    assert (made.created_at, made.updated_at) == (7.0, 7.0)


def test_updates_in_quick_succession_leave_one_primary_and_all_older_ones_active():
    found = service(steady=True)
    for number in (1, 2, 3):
        found = deployments.with_new_deployment(found, deployment(number), START + number)

    assert [(item.id, item.status) for item in found.deployments] == [
        ("ecs-svc/3", "PRIMARY"),
        ("ecs-svc/2", "ACTIVE"),
        ("ecs-svc/1", "ACTIVE"),
    ]
    assert found.deployments[2].updated_at == START + 2
    assert not found.steady


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ({"desired_count": 3}, 3),
        ({"desired_count": 0, "scheduling_strategy": "DAEMON"}, 1),
        ({"desired_count": 3, "status": "DRAINING"}, 0),
        ({"scheduling_strategy": "DAEMON", "status": "INACTIVE"}, 0),
    ],
)
def test_wanted(members: dict[str, object], expected: int):
    assert deployments.wanted(service(**members)) == expected


def test_an_older_deployment_leaves_when_its_last_task_is_stopped():
    simulation = Simulation()
    simulation.run(10)
    old = simulation.primary().id
    simulation.deploy()
    tasks = list(simulation.tasks.values())

    kept = deployments.without_ended(simulation.service, tasks, simulation.now)
    gone = [
        msgspec.structs.replace(task, last_status="STOPPED") if task.started_by == old else task
        for task in tasks
    ]
    ended = deployments.without_ended(simulation.service, gone, simulation.now)

    assert kept == simulation.service
    assert [item.id for item in ended.deployments] == [simulation.primary().id]
    assert [(item.id, item.status, item.desired_count) for item in ended.history] == [(old, "INACTIVE", 0)]
    assert deployments.find(ended, old) == ended.history[0]


def test_the_history_is_bounded_and_never_loses_the_last_stable_deployment():
    found = deployments.retired(service(), [deployment(0, was_stable=True)], START)
    for number in range(1, 60):
        found = deployments.retired(found, [deployment(number)], START)

    assert len(found.history) == deployments.HISTORY
    assert found.history[0].id == "ecs-svc/59"
    assert found.history[-1].id == "ecs-svc/0"
    last = deployments.last_stable(found)
    assert last is not None
    assert last.id == "ecs-svc/0"


def test_a_rollback_goes_to_the_newest_stable_deployment_before_the_primary():
    found = service(
        deployments=[
            deployment(4, was_stable=True),
            deployment(3, status="ACTIVE"),
            deployment(2, status="ACTIVE", was_stable=True),
        ],
        history=[deployment(1, status="INACTIVE", was_stable=True)],
    )

    last = deployments.last_stable(found)
    none = deployments.last_stable(service(deployments=[deployment(4, was_stable=True)]))

    assert last is not None
    assert last.id == "ecs-svc/2"
    assert none is None


@pytest.mark.parametrize(
    ("last_status", "desired_status", "expected"),
    [
        ("PROVISIONING", "RUNNING", (0, 1)),
        ("PENDING", "RUNNING", (0, 1)),
        ("ACTIVATING", "RUNNING", (0, 1)),
        ("RUNNING", "RUNNING", (1, 0)),
        ("DEACTIVATING", "STOPPED", (0, 0)),
        ("STOPPING", "STOPPED", (0, 0)),
        ("STOPPED", "STOPPED", (0, 0)),
    ],
)
def test_running_and_pending_counts(last_status: str, desired_status: str, expected: tuple[int, int]):
    members = {"region": "r", "cluster": "c", "group": "service:web", "task_definition": "web:1"}
    task = Task(
        id="t", family="web", revision=1, containers=[], created_at=START, started_by="ecs-svc/1",
        last_status=last_status, desired_status=desired_status, **members,
    )  # fmt: skip

    assert deployments.counts([task]) == expected
    assert deployments.counts([task], "ecs-svc/1") == expected
    assert deployments.counts([task], "ecs-svc/2") == (0, 0)

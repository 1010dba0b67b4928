"""Endpoints: what is reachable follows from the rows alone."""

import msgspec
import pytest
from tests.controlplane.world import PRIVATE, REGION, service, state_of, task, task_definition

from kecs.client.endpoints import Route
from kecs.controlplane.endpoints import all_targets, key_of, target_at, touched
from kecs.ecs.model import Service, Task, TaskPort

WEB = (REGION, "default", "web", None)


def ready(number=29999):
    return [TaskPort(container="web", container_port=80, name="http", host_port=number, ready=True)]


def test_a_service_is_a_target_with_its_tasks_and_the_ports_it_could_have():
    one = task(service="web", ports=ready())
    target = all_targets(state_of(task_definition(), service(), one))[WEB]

    assert target.public
    assert target.subnets == ["subnet-1"]
    assert [port.container_port for port in target.ports] == [80]
    assert [member.task_id for member in target.tasks] == [one.id]
    port = target.tasks[0].ports[0]
    assert (port.ready, port.draining) == (True, False)
    assert port.routes == [Route(kind="direct", host="127.0.0.1", port=29999)]


@pytest.mark.parametrize(
    ("status", "ready_now", "draining", "routes"),
    [
        ("PROVISIONING", False, False, 0),
        ("ACTIVATING", False, False, 0),
        ("RUNNING", True, False, 1),
        ("DEACTIVATING", True, True, 1),
        ("STOPPING", True, True, 1),
        ("STOPPED", False, True, 0),
    ],
)
def test_a_port_is_reachable_from_running_until_stopped(status, ready_now, draining, routes):
    desired = "STOPPED" if draining else "RUNNING"
    one = task(status=status, desired_status=desired, ports=ready())
    target = all_targets(state_of(task_definition(), one))[REGION, "default", None, one.id]

    port = target.tasks[0].ports[0]
    assert (port.ready, port.draining, len(port.routes)) == (ready_now, draining, routes)


def test_a_standalone_task_is_a_target_of_its_own_and_a_services_task_is_not():
    mine, lone = task(service="web"), task()
    targets = all_targets(state_of(task_definition(), service(), mine, lone))

    assert set(targets) == {WEB, (REGION, "default", None, lone.id)}


def test_a_private_service_is_there_and_not_public():
    targets = all_targets(state_of(task_definition(), service(network=PRIVATE)))

    assert not targets[WEB].public


def test_a_deleted_service_is_gone():
    gone = msgspec.structs.replace(service(), status="INACTIVE")

    assert all_targets(state_of(task_definition(), gone)) == {}
    assert target_at(state_of(gone), WEB) is None


def test_one_target_alone_is_computed_as_among_all():
    state = state_of(task_definition(), service(), task(service="web", ports=ready()), task())

    for key, target in all_targets(state).items():
        assert target_at(state, key) == target
        assert key_of(target) == key


def test_a_commit_touches_the_targets_of_its_rows():
    mine, lone = task(service="web"), task()
    changes = {(Task, mine.key): (None, mine), (Task, lone.key): (lone, None)}

    assert touched(changes) == {WEB, (REGION, "default", None, lone.id)}
    assert touched({(Service, ("a",)): (service(), service(desired=2))}) == {WEB}
    assert touched({(Task, ("a",)): (None, task_definition())}) == set()

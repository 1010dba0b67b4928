"""Endpoints: what is reachable follows from the rows alone."""

import msgspec
import pytest
from tests.controlplane.world import PRIVATE, REGION, service, state_of, task, task_definition

from kecs.client.endpoints import Route
from kecs.controlplane.endpoints import all_targets, key_of, nodes_changed, target_at, touched
from kecs.ecs.model import Node, NodePort, Service, Task, TaskPort

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
    assert not port.routes[0].by_node


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


POD = {"namespace": "kecs-dev", "pod": "web-1"}
ONE = Node(name="one", addresses=["203.0.113.7", "192.0.2.7"], ready=True)
TWO = Node(name="two", addresses=["192.0.2.8"], ready=True)


def node_port(port=30080, *, service="web", task_id="", applied=True, **members):
    return NodePort(
        region=REGION, cluster="default", service=service, task_id=task_id,
        **({"container_port": 80} | members), port=port, applied=applied,
    )  # fmt: skip


def routes_of(target):
    return [
        (route.kind, route.host or f"{route.namespace}/{route.pod}", route.port)
        for route in target.tasks[0].ports[0].routes
    ]


TUNNEL = ("tunnel", "kecs-dev/web-1", 80)


def test_a_port_of_a_pod_is_reached_at_each_node_and_by_a_tunnel():
    one = task(service="web", ports=ready(0), **POD)
    target = all_targets(state_of(task_definition(), service(), one, ONE, TWO, node_port()))[WEB]

    assert target.tasks[0].ports[0].ready
    assert routes_of(target) == [
        ("direct", "203.0.113.7", 30080),
        ("direct", "192.0.2.7", 30080),
        ("direct", "192.0.2.8", 30080),
        TUNNEL,
    ]
    assert [one.by_node for one in target.tasks[0].ports[0].routes] == [True, True, True, False]


@pytest.mark.parametrize(
    "rows",
    [
        [ONE],
        [node_port()],
        [ONE, node_port(applied=False)],
        [msgspec.structs.replace(ONE, ready=False), node_port()],
        [ONE, node_port(container_port=81)],
        [ONE, node_port(protocol="udp")],
        [ONE, node_port(service="other")],
    ],
    ids=["no port", "no node", "not applied", "not ready", "other port", "udp", "other service"],
)
def test_without_an_applied_node_port_on_a_ready_node_there_is_the_tunnel_only(rows):
    one = task(service="web", ports=ready(0), **POD)
    assert routes_of(all_targets(state_of(task_definition(), service(), one, *rows))[WEB]) == [TUNNEL]


def test_udp_of_a_pod_has_no_tunnel():
    udp = [TaskPort(container="web", container_port=80, protocol="udp", ready=True)]
    one = task(service="web", ports=udp, **POD)
    rows = [ONE, node_port(protocol="udp")]
    target = all_targets(state_of(task_definition(), service(), one, *rows))[WEB]
    assert [(route.kind, route.by_node) for route in target.tasks[0].ports[0].routes] == [
        ("direct", True)
    ] * 2


def test_a_standalone_task_of_pods_has_its_own_node_port():
    one = task(ports=ready(0), **POD)
    rows = [TWO, node_port(service="", task_id=one.id), node_port(30081)]
    target = all_targets(state_of(task_definition(), one, *rows))[REGION, "default", None, one.id]
    assert routes_of(target) == [("direct", "192.0.2.8", 30080), TUNNEL]


def test_a_pod_that_does_not_run_yet_has_no_routes():
    one = task(service="web", status="ACTIVATING", ports=ready(0), **POD)
    assert routes_of(all_targets(state_of(task_definition(), service(), one, ONE, node_port()))[WEB]) == []


def test_node_ports_touch_their_targets_and_nodes_may_touch_all():
    row, lone = node_port(), node_port(service="", task_id="0" * 32)
    changes = {(NodePort, row.key): (None, row), (NodePort, lone.key): (lone, None)}
    assert touched(changes) == {WEB, (REGION, "default", None, "0" * 32)}
    assert not nodes_changed(changes)
    assert nodes_changed({(Node, ONE.key): (ONE, None)})

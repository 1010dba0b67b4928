"""Node ports: one for each port of what is public, none twice, stable, given back when nothing needs them."""

from __future__ import annotations

import dataclasses

import msgspec
import pytest

from kecs.ecs import clusters, names, node_ports, tasks
from kecs.ecs.context import RuntimeTraits
from kecs.ecs.errors import LimitExceededException
from kecs.ecs.model import NodePort, Service, Task

from .conftest import register, register_bridge
from .shapes import REGION, Ecs
from .test_services import NETWORK, PUBLIC, create, delete, row, start_task, update

TWO = [
    {
        "name": "web",
        "image": "web:2",
        "portMappings": [
            {"containerPort": 80},
            {"containerPort": 81},
            {"containerPort": 81, "protocol": "udp"},
        ],
    }
]


def on_pods(numbers: range = range(30000, 30100)) -> Ecs:
    ecs = Ecs()
    ecs.runtime = RuntimeTraits(name="kubernetes", instance="dev", instance_id="0a1b2c3d", node_ports=numbers)
    ecs.call(clusters.create_cluster, capacityProviders=["FARGATE", "FARGATE_SPOT"])
    register(ecs)
    return ecs


@pytest.fixture
def pods() -> Ecs:
    return on_pods()


def rows(ecs: Ecs) -> dict[tuple[str, int, str], int]:
    return {
        (each.service or each.task_id, each.container_port, each.protocol): each.port
        for each in ecs.state.scan(NodePort)
    }


def settle(ecs: Ecs, name: str = "web") -> None:
    ecs.write(lambda tx: node_ports.settle_service(tx, row(ecs, name), ecs.context()))


def run(ecs: Ecs, **params):
    params = {"taskDefinition": "web", "networkConfiguration": PUBLIC} | params
    return ecs.call(tasks.run_task, **params)["tasks"]


def test_a_public_service_has_a_node_port_in_the_transaction_that_makes_it(pods):
    create(pods, networkConfiguration=PUBLIC)
    [found] = pods.state.scan(NodePort)
    assert found.port in range(30000, 30100)
    assert not found.applied


def test_what_is_not_public_has_none_and_neither_has_anything_on_local(pods, ecs):
    create(pods, networkConfiguration=NETWORK)
    create(ecs, networkConfiguration=PUBLIC)
    assert rows(pods) == rows(ecs) == {}


def test_the_same_instance_chooses_the_same_number_again_and_another_one_another():
    first, again, other = on_pods(), on_pods(), on_pods()
    other.runtime = dataclasses.replace(other.runtime, instance_id="ffffffff")
    for each in (first, again, other):
        create(each, networkConfiguration=PUBLIC)
    assert rows(first) == rows(again) != rows(other)


def test_every_number_of_the_range_is_given_once_and_then_no_more():
    ecs = on_pods(range(30000, 30003))
    for name in ("a", "b", "c"):
        create(ecs, name, networkConfiguration=PUBLIC)
    assert sorted(rows(ecs).values()) == [30000, 30001, 30002]

    with pytest.raises(LimitExceededException, match="from 30000 to 30002"):
        create(ecs, "d", networkConfiguration=PUBLIC)
    assert row(ecs, "d") is None, "a refused request leaves nothing"
    with pytest.raises(LimitExceededException):
        run(ecs)


def test_both_revisions_have_ports_during_a_roll_and_the_old_ones_go_with_its_deployment(pods):
    create(pods, networkConfiguration=PUBLIC)
    before = rows(pods)
    register(pods, containers=TWO)
    register(pods, containers=[TWO[0] | {"portMappings": [{"containerPort": 81}]}])
    update(pods, taskDefinition="web:2")
    both = rows(pods)
    assert both.keys() == {("web", 80, "tcp"), ("web", 81, "tcp"), ("web", 81, "udp")}
    assert both.items() >= before.items(), "the number of a port that stays is stable"

    update(pods, taskDefinition="web:3")
    assert rows(pods) == both

    newest = row(pods).deployments[:1]
    pods.write(lambda tx: tx.put(msgspec.structs.replace(row(pods), deployments=newest)))
    settle(pods)
    assert rows(pods) == {("web", 81, "tcp"): both["web", 81, "tcp"]}


def test_switching_the_flag_off_gives_the_ports_back_and_on_again_takes_the_same(pods):
    create(pods, networkConfiguration=PUBLIC)
    before = rows(pods)
    update(pods, networkConfiguration=NETWORK)
    assert rows(pods) == {}
    update(pods, networkConfiguration=PUBLIC)
    assert rows(pods) == before


def test_a_deleted_service_keeps_its_ports_until_its_tasks_are_gone(pods):
    create(pods, networkConfiguration=PUBLIC)
    delete(pods, force=True)
    assert len(rows(pods)) == 1

    pods.write(lambda tx: tx.put(msgspec.structs.replace(row(pods), status="INACTIVE", deployments=[])))
    settle(pods)
    assert rows(pods) == {}


def test_public_standalone_tasks_have_ports_of_their_own_until_they_stop(pods):
    first, second = (each["taskArn"].rpartition("/")[2] for each in run(pods, count=2))
    run(pods, networkConfiguration=NETWORK)
    assert rows(pods).keys() == {(first, 80, "tcp"), (second, 80, "tcp")}

    stopped = pods.state.get(Task, REGION, "default", first)
    pods.write(lambda tx: node_ports.free_task(tx, stopped))
    assert rows(pods).keys() == {(second, 80, "tcp")}


def test_the_end_of_a_services_task_takes_nothing_from_the_service(pods):
    create(pods, networkConfiguration=PUBLIC)
    task = start_task(pods)
    pods.write(lambda tx: node_ports.free_task(tx, task))
    assert len(rows(pods)) == 1


def test_a_port_that_the_cluster_refuses_moves_to_one_that_nobody_is_known_to_have():
    ecs = on_pods(range(30000, 30004))
    create(ecs, networkConfiguration=PUBLIC)
    run(ecs)
    mine = next(each for each in ecs.state.scan(NodePort) if each.service)
    free = set(range(30000, 30004)) - set(rows(ecs).values())
    avoid = {free.pop()}

    moved = ecs.write(lambda tx: node_ports.move(tx, mine, avoid, ecs.context()))
    assert {moved.port} == free
    with pytest.raises(LimitExceededException):
        ecs.write(lambda tx: node_ports.move(tx, moved, avoid | {mine.port}, ecs.context()))


def test_another_range_moves_only_what_the_cluster_does_not_have_yet(pods):
    for name in ("applied", "refused"):
        create(pods, name, networkConfiguration=PUBLIC)
    [kept] = node_ports.rows_of_service(pods.state, pods.state.get(Service, REGION, "default", "applied"))
    pods.write(lambda tx: tx.put(msgspec.structs.replace(kept, applied=True)))
    pods.runtime = dataclasses.replace(pods.runtime, node_ports=range(31000, 31010))
    for name in ("applied", "refused"):
        settle(pods, name)
    assert rows(pods)["applied", 80, "tcp"] == kept.port
    assert rows(pods)["refused", 80, "tcp"] in range(31000, 31010)


@pytest.mark.parametrize("text", ["", "30000", "30000-", "0-10", "30010-30000", "30000-65536", "a-b", "-1-5"])
def test_what_is_no_range_is_refused(text):
    with pytest.raises(ValueError, match="no range"):
        node_ports.parse(text)


def test_a_range_is_read_with_both_its_ends():
    assert node_ports.parse("30000-30000") == range(30000, 30001)
    assert node_ports.parse(node_ports.DEFAULT_RANGE)[-1] == 32767


def test_a_task_of_pods_says_where_its_pod_is_and_needs_no_port_of_the_machine(pods):
    create(pods, networkConfiguration=PUBLIC)
    task = start_task(pods)
    assert task.namespace == names.namespace("dev", "0a1b2c3d", REGION, "default")
    assert task.pod == names.pod_name("web", task.id)

    register_bridge(pods, "fixed", 8081)
    for _ in range(2):
        [alone] = run(pods, taskDefinition="fixed", networkConfiguration=None)
        assert alone["taskArn"]


def test_a_local_task_has_no_pod(ecs):
    create(ecs)
    task = start_task(ecs)
    assert (task.namespace, task.pod) == (None, None)


def test_services_are_exposed_by_every_port_of_a_living_deployment_once(pods):
    register(pods, "two", containers=TWO)
    create(pods, definition="two", networkConfiguration=PUBLIC)
    assert node_ports.ports_of_service(pods.state, row(pods)) == [(80, "tcp"), (81, "tcp"), (81, "udp")]

    register(pods, "two", containers=TWO)
    update(pods, taskDefinition="two:2")
    assert node_ports.ports_of_service(pods.state, row(pods)) == [(80, "tcp"), (81, "tcp"), (81, "udp")]


def publish(ecs: Ecs, numbers: range) -> None:
    ecs.runtime = dataclasses.replace(ecs.runtime, published=numbers)


def test_published_numbers_are_given_first_and_then_the_rest_of_the_range():
    ecs = on_pods(range(30000, 30006))
    publish(ecs, range(30002, 30004))
    for name in "abcdef":
        create(ecs, name, networkConfiguration=PUBLIC)
    given = [rows(ecs)[name, 80, "tcp"] for name in "abcdef"]
    assert set(given[:2]) == {30002, 30003}
    assert set(given[2:]) == {30000, 30001, 30004, 30005}
    with pytest.raises(LimitExceededException, match="from 30000 to 30005"):
        create(ecs, "g", networkConfiguration=PUBLIC)


def test_udp_leaves_what_is_published_to_tcp_while_it_can():
    """Only TCP is published, and a row's number is in no other row, whatever its protocol."""
    ecs = on_pods(range(30000, 30003))
    publish(ecs, range(30000, 30002))
    register(ecs, "two", containers=TWO)
    create(ecs, definition="two", networkConfiguration=PUBLIC)
    assert rows(ecs)["web", 81, "udp"] == 30002
    assert {rows(ecs)["web", 80, "tcp"], rows(ecs)["web", 81, "tcp"]} == {30000, 30001}

    other = on_pods(range(30000, 30003))
    publish(other, range(30000, 30003))
    register(other, "two", containers=TWO)
    create(other, definition="two", networkConfiguration=PUBLIC)
    assert rows(other)["web", 81, "udp"] in range(30000, 30003), "there is no other"


def test_what_moves_stays_among_the_published_while_one_is_left():
    ecs = on_pods(range(30000, 30010))
    publish(ecs, range(30004, 30006))
    create(ecs, networkConfiguration=PUBLIC)
    [mine] = ecs.state.scan(NodePort)
    moved = ecs.write(lambda tx: node_ports.move(tx, mine, {mine.port}, ecs.context()))
    assert {mine.port, moved.port} == {30004, 30005}
    beyond = ecs.write(lambda tx: node_ports.move(tx, moved, {30004, 30005}, ecs.context()))
    assert beyond.port in {*range(30000, 30004), *range(30006, 30010)}


@pytest.mark.parametrize("published", [range(29990, 30005), range(40000, 40010), None])
def test_nothing_outside_the_range_is_given_although_it_is_published(published):
    ecs = on_pods(range(30000, 30010))
    ecs.runtime = dataclasses.replace(ecs.runtime, published=published)
    for number in range(10):
        create(ecs, f"s{number}", networkConfiguration=PUBLIC)
    given = [rows(ecs)[f"s{number}", 80, "tcp"] for number in range(10)]
    assert sorted(given) == list(range(30000, 30010))
    if published == range(29990, 30005):
        assert sorted(given[:5]) == list(range(30000, 30005))


def test_a_number_that_the_cluster_has_stays_when_others_are_published(pods):
    create(pods, networkConfiguration=PUBLIC)
    before = rows(pods)
    publish(pods, range(30100, 30110))
    pods.runtime = dataclasses.replace(pods.runtime, node_ports=range(30000, 30110))
    settle(pods)
    assert rows(pods) == before

"""Instances on a cluster: beside each other, away and back, switched between public and not, and gone."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
from tests.cluster import service, target
from tests.process.harness import NETWORK, PRIVATE, Home, until
from tests.process.load import Load


@pytest.fixture
def other(cluster, leaving):
    """A second home, as of another person, with an instance of the same name on the same cluster."""
    one = Home()
    try:
        target.start(one, cluster)
        yield one
    finally:
        leaving.begin(partial(target.leave, cluster, one))


@pytest.mark.timeout(180)
def test_two_instances_with_the_same_names_are_never_in_each_others_way(cluster, running, other):
    service.create(running, count=2, version="ours")
    service.create(other, count=1, version="theirs")
    ports = {route: service.forward(running, route=route, name=route) for route in ("direct", "tunnel")}
    theirs = service.forward(other)
    assert service.answer(theirs).startswith("theirs ")
    ours = service.node_ports(cluster, running)
    assert set(ours.values()).isdisjoint(service.node_ports(cluster, other).values())
    uids = {pod["metadata"]["uid"] for pod in service.objects(cluster, running, "pods")}

    with Load(ports["direct"], rate=100) as direct, Load(ports["tunnel"], rate=100) as tunnel:
        until(lambda: direct.tally.total > 50 and tunnel.tally.total > 50, "requests are answered")
        other_id = service.instance_id(other)
        other.run("destroy", "--yes", timeout=90)
        service.more(direct, 100)
        service.more(tunnel, 100)

    assert other_id not in target.namespaces(cluster).values()
    assert service.instance_id(running) in target.namespaces(cluster).values()
    for load in (direct, tunnel):
        assert load.tally.failed == []
        assert {answer.split()[0] for answer in load.tally.answers} == {"ours"}
    assert {pod["metadata"]["uid"] for pod in service.objects(cluster, running, "pods")} == uids
    assert service.node_ports(cluster, running) == ours


@pytest.mark.timeout(120)
def test_a_node_port_that_a_stranger_has_is_replaced_and_the_service_says_so(
    cluster, running, kubectl, namespace
):
    service.create(running, count=1)
    first = service.node_ports(cluster, running)[service.HTTP]
    running.aws().delete_service(service="web", force=True)
    until(lambda: not service.objects(cluster, running, "services"), "the Service is gone", seconds=30)
    kubectl.apply(stranger(namespace, first))

    running.service(count=1)  # the same name: the first choice is the same number
    running.stable()
    port = service.forward(running, route="direct")
    until(lambda: service.answer(port), "the forward serves", seconds=20)
    now = service.node_ports(cluster, running)
    assert first not in now.values()
    said = [event["message"] for event in running.describe()["events"]]
    expected = f"found node port {first} of container port {service.HTTP} in use by another Service"
    assert sum(expected in message for message in said) == 1, said
    theirs = kubectl.json("get", "service", "stranger", "--namespace", namespace)
    assert theirs["spec"]["ports"][0]["nodePort"] == first
    assert theirs["metadata"].get("labels") is None


def stranger(namespace: str, node_port: int | None) -> dict[str, object]:
    """Return a Service of nobody's, which takes a node port."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "stranger", "namespace": namespace},
        "spec": {"type": "NodePort", "ports": [{"port": 80, "nodePort": node_port}]},
    }


@pytest.mark.timeout(120)
def test_the_flag_switched_off_and_on_switches_the_service_and_its_forwards_wait(cluster, running):
    service.create(running, count=1)
    ports = {route: service.forward(running, route=route, name=route) for route in ("direct", "tunnel")}
    aws, before = running.aws(), service.node_ports(cluster, running)
    assert kind(cluster, running) == "NodePort"

    aws.update_service(service="web", networkConfiguration=PRIVATE)
    until(lambda: kind(cluster, running) == "ClusterIP", "it is reached from within only", seconds=30)
    assert set(service.node_ports(cluster, running).values()) == {None}
    for port in ports.values():
        until(lambda port=port: service.row(running, port)["state"] == "WAITING", "the forward waits")
        assert "assignPublicIp" in service.row(running, port)["reason"]

    with ThreadPoolExecutor() as pool:
        waiting = [pool.submit(service.answer, port, seconds=40) for port in ports.values()]
        until(
            lambda: all(service.row(running, port)["connections"]["held"] for port in ports.values()),
            "a client of each forward waits",
        )
        aws.update_service(service="web", networkConfiguration=NETWORK)
        until(lambda: kind(cluster, running) == "NodePort", "it has node ports again", seconds=30)
        assert service.node_ports(cluster, running) == before, "the same numbers"
        assert all(each.result().startswith("1 ") for each in waiting), "who waited was served"
    assert {row["localPort"]: row["state"] for row in running.forwards()} == dict.fromkeys(
        ports.values(), "ACTIVE"
    )


def kind(cluster, home: Home) -> str:
    """Return the type of the service's Kubernetes Service."""
    (found,) = service.objects(cluster, home, "services")
    return str(found["spec"]["type"])


@pytest.mark.timeout(180)
def test_stop_leaves_the_pods_and_start_takes_them_up_again(cluster, running):
    service.create(running, count=2)
    port = service.forward(running)
    arns, doors = running.arns(), service.node_ports(cluster, running)
    uids = {pod["metadata"]["uid"] for pod in service.objects(cluster, running, "pods")}
    endpoint = running.aws().meta.endpoint_url
    deployment = running.describe()["deployments"][0]["id"]

    running.run("stop")
    with pytest.raises(OSError, match="refused"):
        service.answer(port)
    assert kecs_processes(running) == []
    address = target.node_addresses(cluster)[0]
    assert service.answer(doors[service.HTTP] or 0, address).startswith("1 "), "the tasks serve on"

    running.run("start")
    until(lambda: service.answer(port), "the forward serves on the same port", seconds=20)
    assert running.aws().meta.endpoint_url == endpoint
    running.stable()
    assert running.arns() == arns
    assert running.describe()["deployments"][0]["id"] == deployment
    assert {pod["metadata"]["uid"] for pod in service.objects(cluster, running, "pods")} == uids
    assert service.node_ports(cluster, running) == doors
    service.comes_and_goes(running)


def kecs_processes(home: Home) -> list[str]:
    """Return what runs of KECS itself, without the pods."""
    return [command for command in home.processes().values() if not command.startswith(("/server", "/sleep"))]


@pytest.mark.timeout(180)
def test_what_changed_while_the_instance_was_stopped_is_found_at_the_start(cluster, running, kubectl):
    """A pod was deleted, another's Service too: the task is lost and replaced, the Service made again."""
    service.create(running, count=2)
    port = service.forward(running)
    arns, doors = running.arns(), service.node_ports(cluster, running)
    running.run("stop")
    (pod, _), (made,) = (service.objects(cluster, running, kind) for kind in ("pods", "services"))
    for kind_of, each in (("pod", pod), ("service", made)):
        place = each["metadata"]
        kubectl("delete", kind_of, place["name"], "--namespace", place["namespace"], seconds=60)

    running.run("start")
    running.stable()
    until(lambda: service.answer(port), "the forward serves", seconds=20)
    assert len(running.arns() & arns) == 1
    assert len(running.arns() - arns) == 1
    assert service.node_ports(cluster, running) == doors, "the same node ports"
    (lost,) = running.tasks("STOPPED")
    assert lost["stopCode"] == "InfrastructureHealth"


@pytest.mark.timeout(120)
def test_destroy_leaves_nothing_on_the_cluster_and_harms_nobody_else(cluster, running, kubectl, namespace):
    service.create(running, count=2)
    service.forward(running)
    kubectl.apply(stranger(namespace, None))
    mine = service.instance_id(running)
    began = time.monotonic()
    running.run("destroy", "--yes", timeout=90)

    assert time.monotonic() - began < 60
    assert mine not in target.namespaces(cluster).values()
    found = kubectl.json(
        "get", "all,secrets", "--all-namespaces", "--selector", f"kecs.dev/instance-id={mine}"
    )
    assert found["items"] == []
    assert running.processes() == {}
    assert not (running.path / "instances/default").exists()
    assert json.loads(kubectl("get", "service", "stranger", "--namespace", namespace, "-o", "json"))

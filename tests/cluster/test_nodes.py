"""A cluster of two nodes, of which one is cut off under load and comes back."""

from __future__ import annotations

import datetime
import time

import pytest
from tests.cluster import service, target
from tests.process.harness import Home, until
from tests.process.load import Load

TASKS = 4
RATE = 50
"""Requests a second on each route."""
NODE_LOSS = 10
"""Seconds until Kubernetes knows: long after KECS has noticed by itself."""
NOTICED_WITHIN = 5.0
"""Seconds until a tunnel into a node that does not answer is given up."""


@pytest.fixture
def two(make_cluster):
    return make_cluster(nodes=2, node_loss_seconds=NODE_LOSS)


@pytest.fixture
def home(two):
    """A home with an instance on the cluster of two nodes."""
    one = Home()
    target.start(one, two)
    yield one
    one.close()


@pytest.mark.timeout(300)
def test_requests_go_on_by_the_other_node_and_nothing_is_left_twice(two, home):
    service.create(home, count=TASKS)
    ports = {route: service.forward(home, route=route, name=route) for route in ("direct", "auto", "tunnel")}
    near, lost = (pods_on(two, home, node.name) for node in two.nodes)
    assert near
    assert lost, "tasks are spread"
    before = home.arns()

    direct, auto, tunnel = (Load(port, rate=RATE) for port in ports.values())
    with direct, auto, tunnel:
        until(lambda: all(load.tally.total > 50 for load in (direct, auto, tunnel)), "requests are answered")
        struck, struck_at = time.monotonic(), time.time()
        two.nodes[1].cut()
        in_flight = service.span(struck, after=0.1)
        until(lambda: lost_tunnels(home).keys() >= lost, "the lost tunnels are noticed", seconds=15)
        unnoticed = service.span(struck)
        service.more(direct, RATE)  # Kubernetes still sends half of them to the lost node
        service.more(tunnel, RATE)
        until(lambda: replaced(two, home, near), "tasks run on the other node instead", seconds=90)
        service.more(tunnel, RATE)
        service.more(direct, RATE)
        service.more(auto, RATE)
        two.nodes[1].mend()
        two.wait_ready()
        until(lambda: by_node(two, home, ports["direct"]) == 2, "both nodes are used again", seconds=60)
        until(lambda: len(servers(home)) == TASKS, "what ran on the lost node has ended", seconds=60)
        service.more(direct, RATE)
        service.more(auto, RATE)
        service.more(tunnel, RATE)

    for pod in lost:
        assert lost_tunnels(home)[pod] - struck_at < NOTICED_WITHIN, f"the tunnel to {pod}"
    assert direct.tally.failed_outside(in_flight) == []
    for load in (auto, tunnel):
        assert load.tally.failed_outside(unnoticed) == [], "a tunnel that does not answer yet may swallow it"
    assert len(service.objects(two, home, "pods")) == TASKS
    assert len(home.arns() & before) == len(near), "tasks of the other node went on"
    gone = [task for task in home.tasks("STOPPED") if task["taskArn"] in before]
    assert len(gone) == len(lost)
    assert {task["stopCode"] for task in gone} == {"InfrastructureHealth"}
    assert all(task["stoppedReason"].startswith("Task was lost: its node") for task in gone), gone


def pods_on(cluster, home: Home, node: str) -> set[str]:
    """Return the pods of the instance on a node that are to stay, as `namespace/name`."""
    return {
        f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"
        for pod in service.objects(cluster, home, "pods")
        if pod["spec"].get("nodeName") == node and "deletionTimestamp" not in pod["metadata"]
    }


def replaced(cluster, home: Home, near: set[str]) -> bool:
    """Tell whether all tasks run on the first node, `near` among them."""
    described = home.describe()
    here = pods_on(cluster, home, cluster.nodes[0].name)
    return described["runningCount"] == TASKS == len(here) and near <= here


def by_node(cluster, home: Home, port: int) -> int:
    """Return how many nodes the forward uses."""
    addresses = {node.address for node in cluster.nodes}
    ends = service.row(home, port)["endpoints"]
    return len({end["route"].get("host") for end in ends if end["ready"]} & addresses)


def servers(home: Home) -> list[int]:
    """Return the processes of the test server in all pods."""
    return [pid for pid, command in home.processes().items() if command.split()[:1] == ["/server"]]


def lost_tunnels(home: Home) -> dict[str, float]:
    """Return when the agent first noticed that a tunnel was lost, by `namespace/pod`."""
    found: dict[str, float] = {}
    for record in service.agent_log(home):
        message = record["message"]
        if message.startswith("lost a tunnel to "):
            pod = message.removeprefix("lost a tunnel to ").partition(":")[0]
            found.setdefault(pod, datetime.datetime.fromisoformat(record["time"]).timestamp())
    return found

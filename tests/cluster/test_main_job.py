"""The main job on a real cluster, under load: what is promised of requests while a service rolls."""

from __future__ import annotations

import os
import random
import time
from functools import partial

import pytest
from tests.cluster import service
from tests.process.harness import until
from tests.process.load import Load

DEPLOYMENTS = 3
TASKS = 3
SECONDS = float(os.environ.get("KECS_TEST_SECONDS", "120"))
"""How long pods are deleted at random."""
BESIDE = 25
"""Requests a second, each way, on the tunnel meanwhile."""
PAUSES = (0.2, 3.0)
"""Seconds between two deletions: from faster than a pod comes to so slow that all are there again."""


@pytest.mark.timeout(300)
@pytest.mark.parametrize("keep_alive", [False, True], ids=["new-connections", "keep-alive"])
@pytest.mark.parametrize("route", ["direct", "tunnel"])
def test_no_request_fails_over_three_deployments(running, route, keep_alive):
    """200 requests a second, from before the first update to the end of the third: 0 failed."""
    service.create(running, count=TASKS, version="0")
    port = service.forward(running, route=route)
    old_tasks: set[str] = set()
    before_all = node_ports(running)

    with Load(port, keep_alive=keep_alive) as load:
        until(lambda: load.tally.total > 100, "requests are answered")
        for version in range(1, DEPLOYMENTS + 1):
            before = running.arns()
            old_tasks |= {arn.rpartition("/")[2] for arn in before}
            revision = service.register(running, str(version))
            running.aws().update_service(service="web", taskDefinition=revision)
            until(
                partial(running.rolled, revision, before),
                f"deployment {version} is complete",
                seconds=90,
                every=0.2,
            )
        until(lambda: load.tally.total >= 2000, "2,000 requests were made", seconds=60)

    tally = load.tally
    assert not tally.failed, service.story(running, load)
    assert tally.total >= 2000
    assert {answer.split()[0] for answer in tally.answers} == {"0", "1", "2", "3"}
    if keep_alive:
        # One for each connection that a stopping task closed, and for no other.
        assert {answer.split()[1] for answer in tally.again} <= old_tasks
    else:
        assert tally.again == []
    row = service.row(running, port)
    assert (row["state"], row["route"]) == ("ACTIVE", route)
    assert node_ports(running) == before_all, "updates change no node port"


def test_a_half_closed_client_gets_its_answer_on_the_direct_route(running):
    service.create(running, count=1)
    port = service.forward(running, route="direct", port=service.ECHO)
    said = b"x" * 100_000
    assert service.echoed(port, said) == said


@pytest.mark.timeout(180 + SECONDS)
def test_pods_deleted_at_random_cost_no_request(running, kubectl):
    """`kubectl delete pod` again and again: each is a task that the cluster ended and ECS replaces.

    200 requests a second by the best route, and some by tunnel, on new connections and on open ones.
    """
    service.create(running, count=TASKS)
    port = service.forward(running, name="best")
    tunnel = service.forward(running, name="tunnel", route="tunnel")
    dice = random.Random(11)
    deleted: set[str] = set()
    loads = (Load(port), Load(tunnel, rate=BESIDE), Load(tunnel, rate=BESIDE, keep_alive=True))
    with loads[0], loads[1], loads[2]:
        until(lambda: all(load.tally.total > 100 for load in loads), "requests are answered")
        ends = time.monotonic() + SECONDS
        while time.monotonic() < ends:
            victim = until(lambda: living(running), "a task runs", seconds=30)
            victim = dice.choice(victim)
            where = pod_of(kubectl, victim)
            kubectl("delete", "pod", where["name"], "--namespace", where["namespace"], "--wait=false")
            deleted.add(victim)
            time.sleep(dice.uniform(*PAUSES))
        running.stable()

    for load in loads:
        assert not load.tally.failed, service.story(running, load)
        assert load.tally.total >= SECONDS * load.rate
    until(lambda: deleted <= {task["taskArn"] for task in running.tasks("STOPPED")}, "all have ended")
    ended = {task["taskArn"]: task for task in running.tasks("STOPPED")}
    assert ended.keys() == deleted, "nothing else ended"
    _, _, kept = loads
    assert {answer.split()[1] for answer in kept.tally.again} <= {arn.rpartition("/")[2] for arn in deleted}
    assert {(task["stopCode"], task["stoppedReason"]) for task in ended.values()} == {
        ("InfrastructureHealth", "Task was stopped: its pod was deleted")
    }
    assert len(running.arns()) == TASKS
    assert running.arns().isdisjoint(deleted)


def living(home) -> list[str]:
    """Return the tasks that run and are to go on."""
    return [task["taskArn"] for task in home.tasks() if task["lastStatus"] == "RUNNING"]


def node_ports(home) -> dict[int, int]:
    """Return the node port of each container port of the tasks that run; each task has the same."""
    found = {
        tuple((port["containerPort"], port["nodePort"]) for port in task["ports"])
        for task in home.json("ps")["tasks"]
        if task["lastStatus"] == "RUNNING"
    }
    (ports,) = found
    return dict(ports)


def pod_of(kubectl, arn: str) -> dict[str, str]:
    """Return the metadata of the pod that a task is."""
    label = f"kecs.dev/task-id={arn.rpartition('/')[2]}"
    (pod,) = kubectl.json("get", "pods", "--all-namespaces", "--selector", label)["items"]
    return pod["metadata"]

"""Pods deleted by others, again and again and under load: what is promised of requests meanwhile.

A file of its own, since it takes two minutes by what it is: others run beside it.
"""

from __future__ import annotations

import os
import random
import time

import pytest
from tests.cluster import service
from tests.process.harness import until
from tests.process.load import Load

TASKS = 3
SECONDS = float(os.environ.get("KECS_TEST_SECONDS", "120"))
"""How long pods are deleted at random."""
BESIDE = 25
"""Requests a second, each way, on the tunnel meanwhile."""
PAUSES = (0.2, 3.0)
"""Seconds between two deletions: from faster than a pod comes to so slow that all are there again."""


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


def pod_of(kubectl, arn: str) -> dict[str, str]:
    """Return the metadata of the pod that a task is."""
    label = f"kecs.dev/task-id={arn.rpartition('/')[2]}"
    (pod,) = kubectl.json("get", "pods", "--all-namespaces", "--selector", label)["items"]
    return pod["metadata"]

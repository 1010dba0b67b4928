"""The main job on a real cluster, under load: what is promised of requests while a service rolls."""

from __future__ import annotations

from functools import partial

import pytest
from tests.cluster import service
from tests.process.harness import until
from tests.process.load import Load

DEPLOYMENTS = 3
TASKS = 3


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


def node_ports(home) -> dict[int, int]:
    """Return the node port of each container port of the tasks that run; each task has the same."""
    found = {
        tuple((port["containerPort"], port["nodePort"]) for port in task["ports"])
        for task in home.json("ps")["tasks"]
        if task["lastStatus"] == "RUNNING"
    }
    (ports,) = found
    return dict(ports)

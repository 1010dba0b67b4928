"""The main job under load: what is promised of requests while a service rolls."""

from __future__ import annotations

import urllib.request
from functools import partial

import pytest
from tests.process.harness import Home, until
from tests.process.load import Load

from kecs.client.agent import AgentClient
from kecs.client.rpc_types import StartRequest
from kecs.forward.spec import ForwardSpec, Target
from kecs.paths import InstancePaths

DEPLOYMENTS = 3
IDLE = 1000


@pytest.mark.timeout(240)
@pytest.mark.parametrize("keep_alive", [False, True], ids=["new-connections", "keep-alive"])
def test_no_request_fails_over_three_deployments_with_1000_idle_connections(home: Home, keep_alive):
    """200 requests a second, from before the first update to the end of the third: 0 failed."""
    home.start()
    aws = home.aws()
    home.register(version="0")
    home.service()
    home.stable()
    port = home.forward("service", "default/web")["localPort"]
    old_tasks: set[str] = set()

    with Load(port, keep_alive=keep_alive, idle=IDLE) as load:
        until(lambda: load.idle_open == IDLE, "the idle connections are open", seconds=30)
        until(lambda: load.tally.total > 100, "requests are answered")
        for version in range(1, DEPLOYMENTS + 1):
            before = home.arns()
            old_tasks |= {arn.rpartition("/")[2] for arn in before}
            revision = home.register(version=str(version))
            aws.update_service(service="web", taskDefinition=revision)
            until(partial(home.rolled, revision, before), f"deployment {version} is complete", seconds=60)
        until(lambda: load.tally.total >= 2000, "2,000 requests were made", seconds=60)
        until(lambda: load.idle_open == IDLE, "the idle connections are open again", seconds=30)

    tally = load.tally
    assert not tally.failed, f"{len(tally.failed)} of {tally.total} failed: {tally.failed[:3]}"
    assert tally.total >= 2000
    assert {answer.split()[0] for answer in tally.answers} == {"0", "1", "2", "3"}
    if keep_alive:
        # One for each connection that a stopping task closed, and for no other.
        assert {answer.split()[1] for answer in tally.again} <= old_tasks
    else:
        assert tally.again == []
    row = home.forwards()[0]
    assert (row["state"], row["localPort"]) == ("ACTIVE", port)


@pytest.mark.timeout(120)
def test_200_forwards_at_once(running: Home):
    """One agent serves 200 forwards, each on its own port, and every one of them answers."""
    running.register()
    running.service(count=1)
    running.stable()
    target = Target(type="service", service="web")
    wanted = [ForwardSpec(target=target, name=f"many-{index}") for index in range(200)]
    running.forward("service", "default/web", "--name", "many-0")
    with AgentClient(InstancePaths(running.path, "default"), timeout=30) as agent:
        started = agent.start(StartRequest(forwards=wanted)).forwards
    assert [one.created for one in started] == [False] + [True] * 199
    ports = {one.forward.local_port for one in started}
    assert len(ports) == 200

    for port in sorted(ports):
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10) as answer:
            assert answer.status == 200
    rows = running.forwards()
    assert len(rows) == 200
    assert {row["state"] for row in rows} == {"ACTIVE"}

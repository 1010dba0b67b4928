"""docs/guides/kubernetes.md does what it says, and its role is all that is needed."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.cluster import guide, service
from tests.cluster.harness import build, images
from tests.cluster.harness.cluster import Cluster
from tests.process.harness import until

WALK, CREATED, ROUTES, ROLE = (
    "A service, from start to end",
    "What is created, and where",
    "Routes",
    "The smallest role",
)
IMAGE = "docker.io/library/nginx:1.29-alpine"
"""What the guide runs, as containerd calls it. Here it is a server of the tests' own."""
USER = "system:serviceaccount:default:kecs"
OLDER = {("pods/portforward", "get")}
"""What only other clusters ask for: WebSocket upgrades before 1.35 are authorized as `get`."""


def test_every_command_of_the_guide_is_run_by_a_test():
    assert set(guide.blocks()) == {WALK, CREATED, ROUTES, ROLE}


@pytest.mark.timeout(240)
def test_the_walk_through_works_as_written(home, cluster, tmp_path):
    if isinstance(cluster, Cluster):
        files = {"server": build.server()}
        web = images.write(
            tmp_path / "web.tar", IMAGE, files, entrypoint=["/server"], environment={"PORT": "80"}
        )
        cluster.load(web)
    blocks = guide.blocks()
    start, look, end = blocks[WALK]

    printed = guide.Reader(home, cluster).run(start, look, *blocks[CREATED], *blocks[ROUTES], end)

    assert "http://127.0.0.1:8088 -> default/web:80  ACTIVE" in printed
    assert printed.count("node port") >= 2, "each task is shown with its node port"
    assert re.search(r"by-tunnel  http://127.0.0.1:\d+ -> default/web:80  ACTIVE", printed)
    assert not (home.path / "instances/default").exists()


@pytest.mark.timeout(300)
def test_the_role_suffices_and_each_right_of_it_is_used(home, make_cluster):
    """The main job by a service account with nothing but the role, and what it asked the API server for."""
    cluster = make_cluster()
    log = cluster.controlplane.audit()
    cluster.controlplane.apiserver.restart()
    cluster.wait_ready()

    guide.Reader(home, cluster).run(*guide.blocks()[ROLE])
    main_job(home, cluster)

    asked = [event for event in audited(log) if event["user"]["username"] == USER]
    assert [event["requestURI"] for event in asked if event["responseStatus"]["code"] == 403] == []
    assert used(asked) == granted() - OLDER


def main_job(home, cluster) -> None:
    """Use everything that reaches the cluster."""
    home.run("secrets", "set", "password", "swordfish")
    secret = {"name": "PASSWORD", "valueFrom": "password"}
    home.register(container=service.CONTAINER | {"secrets": [secret]})
    home.service(count=2)
    home.stable()
    for route in ("direct", "tunnel"):
        assert service.answer(service.forward(home, route=route, name=route)).startswith("1 ")
    (one, _) = home.tasks()
    assert "listening" in home.run("logs", one["taskArn"]).stdout
    home.aws().stop_task(task=one["taskArn"])
    until(lambda: one["taskArn"] in {task["taskArn"] for task in home.tasks("STOPPED")}, "a task has stopped")
    home.stable()
    assert "listening" in home.run("logs", one["taskArn"]).stdout
    home.run("stop")
    home.run("start")
    until(lambda: home.forwards()[0]["state"] == "ACTIVE", "the forwards are back")
    home.aws().delete_service(service="web", force=True)
    until(lambda: not service.objects(cluster, home, "services"), "nothing is exposed any more", seconds=60)
    home.run("destroy", "--yes", timeout=120)


def audited(log: Path) -> list[dict[str, Any]]:
    """Return the events of an audit log."""
    return [json.loads(line) for line in log.read_text().splitlines()]


def used(events: list[dict[str, Any]]) -> set[tuple[str, str]]:
    """Return (resource, verb) of requests about resources; a `patch` that made something is `create`, too."""
    found = set()
    for event in events:
        if (about := event.get("objectRef")) and "resource" in about:
            resource = "/".join(filter(None, (about["resource"], about.get("subresource"))))
            found.add((resource, event["verb"]))
            if event["verb"] == "patch" and event["responseStatus"]["code"] == 201:
                found.add((resource, "create"))
    return found


def granted() -> set[tuple[str, str]]:
    """Return (resource, verb) of the role."""
    role = yaml.safe_load((guide.FOLDER / "kubernetes-role.yaml").read_text())
    return {
        (resource, verb) for rule in role["rules"] for resource in rule["resources"] for verb in rule["verbs"]
    }

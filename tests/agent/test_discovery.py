"""The agent as a process: forwards to tasks found by tags, and those that end with their task."""

from __future__ import annotations

import pytest
from tests.agent.scripted import Client, refuses, until, who
from tests.agent.shapes import A, B, lone, port, service, task

from kecs.client.rpc_types import ApplyRequest, Empty, GetRequest
from kecs.errors import KecsError
from kecs.forward.spec import ForwardSpec, Target

DEV = {"env": "dev"}
FILE = "/x/port-forward.yaml"


def by_tags(name="debug", tags=None, **members):
    return ForwardSpec(
        target=Target(type="task", cluster="prod", tags=DEV if tags is None else tags),
        name=name,
        target_port=80,
        **members,
    )


def dev(home, task_id, created_at, **members):
    return lone(task(task_id, port(80, home.task(task_id), **members), created_at=created_at, **DEV))


def leaving(target):
    (one,) = target.tasks
    there = one.ports[0].routes[0].port
    return lone(
        task(
            one.task_id,
            port(80, there, draining=True),
            status="DEACTIVATING",
            created_at=one.created_at,
            **DEV,
        )
    )


def test_a_newer_task_takes_over_old_connections_stay_and_with_none_left_they_are_held(running):
    """The issue: a newer matching task takes over, and with none left connections hold."""
    old, new = dev(running, A, 1.0), dev(running, B, 2.0)
    running.controlplane.publish(old)
    (row,) = running.start(by_tags())
    assert (row.state, row.matched, row.chosen.task_id, row.tags) == ("ACTIVE", 1, A, DEV)
    with Client(row.local_port) as first:
        assert first.ask() == A
        running.controlplane.seen(running.controlplane.publish(new))
        assert [who(row.local_port) for _ in range(3)] == [B] * 3
        assert first.ask() == A, "the open one goes on"
        shown = running.row("debug")
        assert (shown.matched, shown.chosen.task_id) == (2, B)
        until(
            lambda: {one.task_id: one.open for one in running.row("debug").endpoints} == {A: 1, B: 0},
            "the closed ones are gone",
        )

        version = running.controlplane.publish(leaving(old))
        running.controlplane.seen(version)
        assert ("drained", A) not in running.controlplane.posts
    until(lambda: ("drained", A) in running.controlplane.posts, "A has no connection left")

    for gone in (old, new):
        running.controlplane.publish(removed=[(gone.region, gone.cluster, gone.service, gone.task_id)])
    waits = until(lambda: (r := running.row("debug")).state == "WAITING" and r, "it waits")
    assert waits.reason == "no task with env=dev in the cluster prod exists"
    with Client(row.local_port) as client:
        client.send("hi")
        until(lambda: running.row("debug").connections.held == 1, "it is held")
        running.controlplane.publish(dev(running, "c" * 32, 3.0))
        assert client.read() == "c" * 32


def test_an_older_task_without_connections_is_drained_at_once_when_it_leaves(running):
    old, new = dev(running, A, 1.0), dev(running, B, 2.0)
    running.controlplane.publish(old)
    (row,) = running.start(by_tags())
    running.controlplane.seen(running.controlplane.publish(new))
    assert who(row.local_port) == B
    assert [one.task_id for one in running.row("debug").endpoints] == [B]

    running.controlplane.publish(leaving(old))
    until(lambda: ("drained", A) in running.controlplane.posts, "A is drained")


def test_what_the_tags_do_not_find_is_an_error_that_lists_what_there_is(running):
    running.controlplane.publish(
        lone(task(A, port(80, running.task(A)), env="prod", part="api")), service(task(B, **DEV))
    )
    for tags, hint in [
        ({"env": "test"}, "tags of its tasks: `env=dev`, `env=prod`, `part=api`"),
        ({"env": "dev", "part": "api"}, "tags of its tasks: `env=dev`, `env=prod`, `part=api`"),
    ]:
        with pytest.raises(KecsError, match="no task in the cluster `prod` has the tags") as caught:
            running.start(by_tags(tags=tags))
        assert (caught.value.exit_code, caught.value.hint) == (3, hint)


def test_strict_by_hand_is_a_conflict_that_lists_the_tasks(running):
    running.controlplane.publish(dev(running, A, 1.0), dev(running, B, 2.0))
    with pytest.raises(KecsError, match=r"2 tasks have the tags env=dev.*bbbbbbbb.*aaaaaaaa") as caught:
        running.start(by_tags(strict=True))
    assert caught.value.exit_code == 4


def test_the_same_tags_again_are_the_same_forward(running):
    running.controlplane.publish(dev(running, A, 1.0))
    (first,) = running.start(by_tags(name=None))
    assert first.name == "prod-tagged"
    (again,) = running.start(by_tags(name=None))
    assert again.id == first.id
    (pinned,) = running.start(by_tags(name=None, auto_reconnect=False))
    assert (pinned.name, pinned.chosen.task_id) == ("prod-tagged-2", A)
    assert running.start(by_tags(name=None, auto_reconnect=False))[0].id == pinned.id


def test_a_service_forward_without_reconnect_ends_with_its_task_and_says_why(running):
    def web(*tasks):
        return service(*tasks)

    first = task(A, port(80, running.task(A)))
    second = task(B, port(80, running.task(B)), created_at=2.0)
    running.controlplane.publish(web(first))
    (row,) = running.start(
        ForwardSpec(target=Target(type="service", cluster="prod", service="web"), auto_reconnect=False)
    )
    running.controlplane.seen(running.controlplane.publish(web(first, second)))
    assert [who(row.local_port) for _ in range(3)] == [A] * 3

    running.kill()
    running.launch()
    until(lambda: running.state(row.name) == "ACTIVE", "it is back")
    assert [who(row.local_port) for _ in range(3)] == [A] * 3, "the pin outlives the agent"

    running.controlplane.publish(web(task(A, status="STOPPED", reason="Task stopped by user"), second))
    ended = until(lambda: (r := running.row(row.name)).state == "ENDED" and r, "it ended")
    assert ended.reason == "task aaaaaaaa is STOPPED: Task stopped by user"
    until(lambda: refuses(row.local_port), "nobody listens")


def test_what_happened_is_told_in_its_order(running):
    running.controlplane.publish(dev(running, A, 1.0))
    running.start(by_tags())
    running.controlplane.publish(
        lone(task(A, status="STOPPED", reason="Essential container in task exited", **DEV))
    )
    until(lambda: running.state("debug") == "WAITING", "it waits")

    reply = running.client.call("forward.history", GetRequest(forward="debug"))

    assert [(event.kind, event.text) for event in reply.events][-5:] == [
        ("endpoint", "task aaaaaaaa is ready"),
        ("endpoint", "new connections go to task aaaaaaaa"),
        ("state", "ACTIVE"),
        ("endpoint", "task aaaaaaaa is STOPPED: Essential container in task exited"),
        ("state", "WAITING: no task with env=dev in the cluster prod exists"),
    ]
    assert [event.time for event in reply.events] == sorted(event.time for event in reply.events)


def test_a_subscriber_hears_of_what_comes_changes_and_goes(running):
    running.controlplane.publish(dev(running, A, 1.0))
    listener = running.client
    assert listener.call("forward.subscribe", Empty()).forwards == []

    def heard(condition):
        while True:
            message = listener._receive(None)
            assert message["method"] == "forward.changed"
            if condition(message["params"]):
                return message["params"]

    running.client.call("forward.apply", ApplyRequest(owner=FILE, forwards=[by_tags()]))
    news = heard(lambda params: params["forwards"])
    (row,) = news["forwards"]
    assert (row["name"], row["owner"]) == ("debug", FILE)
    running.controlplane.publish(lone(task(A, status="STOPPED", reason="over", **DEV)))
    heard(lambda params: any(one["state"] == "WAITING" for one in params["forwards"]))
    running.controlplane.publish(dev(running, B, 2.0))
    heard(lambda params: any(one["state"] == "ACTIVE" for one in params["forwards"]))
    with Client(row["localPort"]) as client:
        assert client.ask() == B
        heard(lambda params: any(one["connections"]["open"] == 1 for one in params["forwards"]))
    running.client.ask("forward.down", {"owner": FILE})
    assert heard(lambda params: params["removed"])["removed"] == [row["id"]]

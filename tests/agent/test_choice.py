"""Which one task a forward by tags, or one that ends with its task, leads to."""

from __future__ import annotations

import pytest
from tests.agent.shapes import REGION, A, B, change, entry, lone, port, service, snapshot, task
from tests.agent.test_routes import pod

from kecs.agent.picture import Picture
from kecs.client.rpc_types import ChosenTask
from kecs.forward.machine import EndpointsReady, NoEndpoint, TargetGone
from kecs.net.messages import Endpoint

C = "c" * 32
READY = EndpointsReady()
DEV = {"env": "dev", "part": "worker"}
BY_TAGS = entry(tags=DEV)
TO_A, TO_B = Endpoint(A, "127.0.0.1", 29001), Endpoint(B, "127.0.0.1", 29002)


def resolve(one, *targets):
    picture = Picture()
    picture.apply(snapshot(1, *targets))
    return picture.resolve(one)


def dev(task_id, *ports, **members):
    return task(task_id, *ports, **(members | DEV))


def passed_over(endpoint):
    return Endpoint(endpoint.id, endpoint.host, endpoint.port, draining=True)


def test_the_newest_running_task_with_all_tags_takes_connections_and_older_ones_keep_theirs():
    resolution = resolve(
        BY_TAGS,
        lone(dev(A, port(80, 29001), created_at=1.0)),
        service(dev(B, port(80, 29002), created_at=2.0), name="other"),
        lone(task(C, port(80, 29003), created_at=9.0, env="dev")),  # not all of the tags
        lone(dev("d" * 32, port(80, 29004), created_at=9.0), cluster="elsewhere"),
        lone(dev("e" * 32, port(80, 29005), created_at=9.0), region="eu-west-1"),
    )

    assert resolution.endpoints == (TO_B, passed_over(TO_A))
    assert resolution.verdict == READY
    assert resolution.chosen == ChosenTask(task_id=B, created_at=2.0)
    assert (resolution.matched, resolution.older) == (2, {A})


@pytest.mark.parametrize(
    "newer",
    [
        dev(B, status="PENDING", created_at=2.0),
        dev(B, port(80, 29002), status="ACTIVATING", created_at=2.0),
        dev(B, port(80, 29002, ready=False), created_at=2.0),
        dev(B, port(81, 29002), created_at=2.0),
    ],
    ids=["pending", "activating", "not listening", "without the port"],
)
def test_a_newer_task_takes_over_only_when_it_is_running_and_ready(newer):
    resolution = resolve(BY_TAGS, lone(dev(A, port(80, 29001))), lone(newer))

    assert resolution.chosen == ChosenTask(task_id=A, created_at=1.0)
    assert [one for one in resolution.endpoints if not one.draining] == [TO_A]
    assert resolution.matched == 2


def test_a_task_that_leaves_is_no_longer_chosen_and_does_not_count():
    leaving = dev(B, port(80, 29002, draining=True), status="DEACTIVATING", created_at=2.0)
    resolution = resolve(BY_TAGS, lone(dev(A, port(80, 29001))), lone(leaving))

    assert resolution.chosen == ChosenTask(task_id=A, created_at=1.0)
    assert (resolution.matched, resolution.older) == (1, frozenset()), "B drains, it is not passed over"
    assert set(resolution.endpoints) == {TO_A, passed_over(TO_B)}


@pytest.mark.parametrize(
    ("targets", "reason"),
    [
        ([], "no task with env=dev,part=worker in the cluster prod exists"),
        (
            [lone(dev(A, status="STOPPED", reason="it broke"))],
            "no task with env=dev,part=worker in the cluster prod exists",
        ),
        ([lone(dev(A, status="PENDING"))], "task aaaaaaaa is PENDING"),
        (
            [lone(dev(A, status="PENDING")), lone(dev(B, port(80, 29002, ready=False), created_at=2.0))],
            "task bbbbbbbb (the newest of 2) is RUNNING, not listening on 80",
        ),
        ([lone(dev(A, port(80, 29001)), public=False)], "assignPublicIp is off for task aaaaaaaa"),
        ([lone(dev(A, port(81, 29001)))], "task aaaaaaaa has no port 80 (it has 81)"),
    ],
)
def test_without_a_task_it_waits_and_says_for_what(targets, reason):
    resolution = resolve(BY_TAGS, *targets)

    assert resolution.verdict == NoEndpoint(reason)
    assert resolution.chosen is None


def test_strict_takes_none_of_several_and_names_them():
    both = lone(dev(A, port(80, 29001))), lone(dev(B, port(80, 29002), created_at=2.0))
    strict = entry(tags=DEV, strict=True)

    resolution = resolve(strict, *both)
    assert resolution.verdict == NoEndpoint(
        "2 tasks with env=dev,part=worker in the cluster prod exist (bbbbbbbb, aaaaaaaa), "
        "and `strict` allows one"
    )
    assert resolution.endpoints == (passed_over(TO_B), passed_over(TO_A)), "open connections stay"
    assert resolve(strict, both[0]).verdict == READY


def test_a_service_forward_that_ends_with_its_task_chooses_one():
    one = entry(auto_reconnect=False)
    web = service(task(A, port(80, 29001)), task(B, port(80, 29002), created_at=2.0))

    assert resolve(one, web).chosen == ChosenTask(task_id=B, created_at=2.0)
    assert resolve(one).verdict == NoEndpoint("service prod/web does not exist")
    assert resolve(one, service()).verdict == NoEndpoint("no task of prod/web exists")


def test_what_was_pinned_is_kept_although_a_newer_one_is_there_and_ends_with_it():
    for pinned in (entry(auto_reconnect=False, task_id=A), entry(tags=DEV, task_id=A, auto_reconnect=False)):
        old, new = dev(A, port(80, 29001)), dev(B, port(80, 29002), created_at=2.0)
        resolution = resolve(pinned, service(old, new))
        assert (resolution.endpoints, resolution.verdict) == ((TO_A,), READY)
        assert resolution.chosen == ChosenTask(task_id=A, created_at=1.0)
        assert resolution.matched == (2 if pinned.tags else None)

        stopped = dev(A, status="STOPPED", reason="it broke")
        resolution = resolve(pinned, service(stopped, new))
        assert resolution.verdict == TargetGone("task aaaaaaaa is STOPPED: it broke")
        assert resolve(pinned, service(new)).verdict == TargetGone("task aaaaaaaa is gone")


def test_one_chosen_task_of_a_service_is_never_asked_for_at_a_node_which_may_give_another():
    for one in (entry(auto_reconnect=False), entry(auto_reconnect=False, task_id=A)):
        assert {endpoint.carrier for endpoint in resolve(one, service(pod(A))).endpoints} == {"ns/web-aaaa"}


def test_a_task_that_was_asked_for_before_it_existed_is_found_by_the_first_digits_of_its_id():
    one = entry(type="task", task_id="aaaaaaaa")

    assert resolve(one).verdict == NoEndpoint("task aaaaaaaa does not exist")
    assert resolve(one, lone(task(A, port(80, 29001)))).chosen == ChosenTask(task_id=A, created_at=1.0)
    twins = [lone(task("aaaaaaaa" + digit * 24, port(80, 29001))) for digit in "12"]
    assert resolve(one, *twins).verdict == NoEndpoint("aaaaaaaa begins the ids of 2 tasks")


def test_a_forward_by_tags_is_concerned_by_every_change_in_its_cluster_and_no_other():
    picture = Picture()
    picture.apply(snapshot(1))

    assert picture.apply(change(2, lone(task(A)))).concern(BY_TAGS)
    assert not picture.apply(change(3, lone(task(B), cluster="other"))).concern(BY_TAGS)
    gone = picture.apply(change(4, removed=[(REGION, "prod", None, A)]))
    assert gone.concern(BY_TAGS)
    assert gone.concern(entry(auto_reconnect=False, task_id=A))


def test_why_tasks_ended_is_kept_for_those_who_ask():
    stopped = task(B, status="STOPPED", reason="it broke")
    assert resolve(entry(), service(task(A, port(80, 29001)), stopped)).ended == {B: "it broke"}

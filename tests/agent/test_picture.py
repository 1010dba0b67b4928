"""What endpoints mean for a forward."""

from __future__ import annotations

import pytest
from tests.agent.shapes import REGION, A, B, change, entry, lone, port, service, snapshot, task

from kecs.agent.picture import Picture
from kecs.forward.machine import EndpointsReady, NoEndpoint, TargetGone
from kecs.net.messages import Endpoint

READY = EndpointsReady()
WEB = (REGION, "prod", "web", None)


def resolve(one, *targets):
    picture = Picture()
    picture.apply(snapshot(1, *targets))
    return picture.resolve(one)


def test_a_service_leads_to_its_ready_and_its_draining_tasks():
    resolution = resolve(
        entry(),
        service(
            task(A, port(80, 29001)),
            task(B, port(80, 29002, draining=True), status="DEACTIVATING"),
            task("c" * 32, port(80, 29003, ready=False)),
            task("d" * 32, port(80), status="PENDING"),
            task("e" * 32, port(80, 29005), status="STOPPED"),
        ),
        service(task("f" * 32, port(80, 29006)), name="other"),
    )

    assert resolution.endpoints == (
        Endpoint(A, "127.0.0.1", 29001),
        Endpoint(B, "127.0.0.1", 29002, draining=True),
    )
    assert [(row.task_id[0], row.ready, row.draining) for row in resolution.rows] == [
        ("a", True, False),
        ("b", True, True),
        ("c", False, False),
    ]
    assert resolution.verdict == READY


@pytest.mark.parametrize(
    ("targets", "reason"),
    [
        ([], "service prod/web does not exist"),
        ([service(name="other")], "service prod/web does not exist"),
        ([service(region="eu-west-1")], "service prod/web does not exist"),
        ([service()], "no task of prod/web is ready (it has none)"),
        ([service(public=False)], "assignPublicIp is off for service prod/web"),
        (
            [service(task(A, status="PENDING"), task(B, status="PENDING"))],
            "no task of prod/web is ready (2 PENDING)",
        ),
        (
            [service(task(A, port(80, 29001, ready=False)), task(B, status="PROVISIONING"))],
            "no task of prod/web is ready (1 PROVISIONING, 1 RUNNING, not listening on 80)",
        ),
        (
            [service(task(A, port(80, 29001, draining=True), status="DEACTIVATING"))],
            "no task of prod/web is ready (1 DEACTIVATING)",
        ),
        (
            [service(task(A, port(8080, 29001)), ports=[port(8080)])],
            "prod/web has no port 80 any more (it has 8080)",
        ),
        (
            [service(task(A, port(80, 29001, protocol="udp")), ports=[port(80, protocol="udp")])],
            "prod/web has no port 80 any more (it has 80/udp)",
        ),
    ],
)
def test_a_service_forward_says_for_what_it_waits(targets, reason):
    assert resolve(entry(), *targets).verdict == NoEndpoint(reason)


def test_a_port_asked_for_by_name_is_followed_whatever_its_number():
    named = entry(target_port_name="http")
    old, new = task(A, port(80, 29001, draining=True)), task(B, port(8080, 29002))

    assert [e.port for e in resolve(named, service(old, new, ports=[port(8080)])).endpoints] == [29001, 29002]
    assert [e.port for e in resolve(entry(), service(old, new)).endpoints] == [29001]


@pytest.mark.parametrize(
    ("targets", "verdict"),
    [
        ([lone(task(A, port(80, 29001)))], READY),
        ([service(task(A, port(80, 29001)), task(B))], READY),
        ([lone(task(A, status="PENDING"))], NoEndpoint("task aaaaaaaa is PENDING")),
        ([lone(task(A, port(80, 29001, ready=False)))],
         NoEndpoint("task aaaaaaaa is RUNNING, not listening on 80")),
        ([lone(task(A, port(80, 29001, draining=True), status="STOPPING"))],
         NoEndpoint("task aaaaaaaa is STOPPING")),
        ([lone(task(A, port(80, 29001)), public=False)],
         NoEndpoint("assignPublicIp is off for task aaaaaaaa")),
        ([lone(task(A, status="STOPPED", reason="Task stopped by user"))],
         TargetGone("task aaaaaaaa is STOPPED: Task stopped by user")),
        ([lone(task(A, status="STOPPED"))], TargetGone("task aaaaaaaa is STOPPED")),
        ([], TargetGone("task aaaaaaaa is gone")),
        ([lone(task(B, port(80, 29001)))], TargetGone("task aaaaaaaa is gone")),
        ([lone(task(A, port(80, 29001)), cluster="dev", region="eu-west-1")],
         TargetGone("task aaaaaaaa is not in the cluster prod in us-east-1: it is in dev in eu-west-1")),
    ],
)  # fmt: skip
def test_a_task_forward_follows_its_one_task(targets, verdict):
    assert resolve(entry(type="task"), *targets).verdict == verdict


def test_only_forwards_that_a_line_concerns_are_looked_at_again():
    picture = Picture()
    web, other, by_task = entry(), entry(service="other"), entry(type="task")
    assert picture.version is None

    first = picture.apply(snapshot(1, service(task(A)), service(name="other")))
    assert (picture.version, first.concern(web), first.concern(other), first.concern(by_task)) == (
        1,
        True,
        True,
        True,
    )
    same = picture.apply(change(2, service(task(A))))
    assert not any(map(same.concern, (web, other, by_task)))
    replaced = picture.apply(change(3, service(task(B))))
    assert replaced.concern(web)
    assert replaced.concern(by_task), "its task left the target"
    assert not replaced.concern(other)
    removed = picture.apply(change(4, removed=[WEB]))
    assert removed.concern(web)
    assert picture.resolve(web).verdict == NoEndpoint("service prod/web does not exist")


def test_a_snapshot_replaces_everything():
    picture = Picture()
    picture.apply(snapshot(7, service(task(A, port(80, 29001, draining=True)))))
    assert picture.draining == {A}

    changes = picture.apply(snapshot(1, service(task(B), name="other")))

    assert changes.concern(entry())
    assert picture.version == 1
    assert picture.draining == frozenset()
    assert picture.resolve(entry(type="task")).verdict == TargetGone("task aaaaaaaa is gone")


def test_draining_tasks_are_those_that_leave():
    picture = Picture()
    leaving = task(A, port(80, 29001, draining=True), status="DEACTIVATING")
    portless = lone(task(B, status="DEACTIVATING"))
    picture.apply(snapshot(1, service(leaving, task("c" * 32, port(80, 29003))), portless))
    assert picture.draining == {A, B}

    picture.apply(change(2, service(task(A, status="STOPPED"))))
    assert picture.draining == {B}
    picture.apply(change(3, removed=[(REGION, "prod", None, B)]))
    assert picture.draining == frozenset()

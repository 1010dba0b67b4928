"""What probes mean for a forward: who is out of the balance, and what people read. Pure."""

from __future__ import annotations

import msgspec
import pytest
from tests.agent.shapes import A, B, entry, lone, port, service, task
from tests.agent.test_routes import node, pod, resolve, tunnel

from kecs.agent.health import Health, to_ask, way_of, without
from kecs.forward.machine import EndpointsReady, NoEndpoint

C = "c" * 32
BAD = "GET /healthz answered 503"


def local(task_id, host_port, **members):
    return task(task_id, port(80, host_port, **members))


def failing(resolution, *ids, error=BAD):
    return {way: error for way, endpoint in to_ask(resolution).items() if endpoint.id in ids}


@pytest.mark.parametrize(
    ("outcomes", "seen"),
    [
        ("x", [False]),
        ("xx", [False, False]),
        ("xxx", [False, False, True]),
        ("xxxx", [False, False, True, True]),
        ("xx.xx", [False, False, False, False, False]),
        ("xxx.", [False, False, True, False]),
        ("xxx.xx", [False, False, True, False, False, False]),
    ],
)
def test_failures_in_a_row_take_a_task_out_and_one_success_takes_it_in(outcomes, seen):
    one = Health()
    states = []
    for outcome in outcomes:
        one.took(BAD if outcome == "x" else None, allowed=3)
        states.append(one.failing)

    assert states == seen


def test_a_change_is_what_people_or_the_balance_would_see():
    one = Health()
    outcomes = [BAD, BAD, BAD, "GET /healthz answered 500", None, None, BAD]

    assert [one.took(error, allowed=2) for error in outcomes] == [
        False,
        True,
        False,
        True,
        True,
        False,
        False,
    ]


def test_a_task_that_fails_is_out_and_the_forward_says_so_while_another_serves():
    whole = resolve(entry(), service(local(A, 29001), local(B, 29002)))
    now = without(whole, failing(whole, A))

    assert [endpoint.id for endpoint in now.endpoints] == [B]
    assert now.verdict == EndpointsReady()
    assert now.note == "1 of 2 tasks fails its probe: GET /healthz answered 503"
    assert {row.task_id: (row.ready, row.failing) for row in now.rows} == {
        A: (False, BAD),
        B: (True, None),
    }


def test_with_none_left_the_forward_waits_and_says_for_what():
    whole = resolve(entry(), service(local(A, 29001), local(B, 29002)))
    now = without(whole, failing(whole, A) | failing(whole, B, error="a connect: connection refused"))

    assert now.endpoints == ()
    assert now.verdict == NoEndpoint(
        "2 of 2 tasks fail their probe: GET /healthz answered 503, a connect: connection refused"
    )
    alone = resolve(entry(type="task"), lone(local(A, 29001)))
    assert without(alone, failing(alone, A)).verdict == NoEndpoint(f"its only task fails its probe: {BAD}")


def test_one_that_drains_is_neither_asked_nor_taken_away_before_its_connections_have_ended():
    before = resolve(entry(), service(local(A, 29001), local(B, 29002)))
    leaving = resolve(entry(), service(local(A, 29001, draining=True), local(B, 29002)))
    now = without(leaving, failing(before, A))

    assert [endpoint.id for endpoint in to_ask(leaving).values()] == [B]
    assert now == leaving


def test_nothing_is_changed_while_all_is_well():
    whole = resolve(entry(), service(local(A, 29001)))

    assert without(whole, {}) is whole


def test_on_a_cluster_each_task_is_asked_through_its_tunnel_and_nodes_are_not():
    assert set(to_ask(resolve(entry(), service(pod(A), pod(B)))).values()) == {tunnel(A), tunnel(B)}


def test_no_node_is_used_while_a_task_behind_it_fails_since_kubernetes_goes_on_choosing_it():
    whole = resolve(entry(), service(pod(A), pod(B)))
    now = without(whole, failing(whole, A))

    assert now.endpoints == (tunnel(B),)
    assert now.verdict == EndpointsReady()


def test_with_nodes_alone_their_addresses_are_asked():
    whole = resolve(entry(route="direct"), service(pod(A), pod(B)))
    one = way_of(node("10.0.0.1"))
    now = without(whole, {one: BAD})

    assert set(to_ask(whole).values()) == {node("10.0.0.1"), node("10.0.0.2")}
    assert now.endpoints == (node("10.0.0.2"),)
    assert now.note == f"1 of 2 addresses fails its probe: {BAD}"


def test_the_most_frequent_answer_is_named_first():
    whole = resolve(entry(), service(local(A, 29001), local(B, 29002), local(C, 29003)))
    now = without(whole, failing(whole, A, error="rare") | failing(whole, B, C))

    assert now.verdict == NoEndpoint(f"3 of 3 tasks fail their probe: {BAD}, rare")


def with_tags(*tasks):
    forward = entry(type="task", task_id=None, tags={"app": "web"})
    tagged = [msgspec.structs.replace(one, tags={"app": "web"}, created_at=n) for n, one in enumerate(tasks)]
    return resolve(forward, *(lone(one) for one in tagged))


def test_when_the_newest_task_with_the_tags_fails_the_next_one_takes_over():
    whole = with_tags(local(A, 29001), local(B, 29002), local(C, 29003))
    assert whole.chosen.task_id == C
    assert {endpoint.id for endpoint in to_ask(whole).values()} == {A, B, C}

    now = without(whole, failing(whole, C))

    assert [(one.id, one.draining) for one in now.endpoints] == [(B, False), (A, True)]
    assert (now.chosen.task_id, now.older, now.verdict) == (B, {A}, EndpointsReady())
    assert now.note == f"1 of 3 tasks fails its probe: {BAD}"

    last = without(whole, failing(whole, B, C))
    assert [(one.id, one.draining) for one in last.endpoints] == [(B, True), (A, False)]
    assert last.chosen.task_id == A

    none = without(whole, failing(whole, A, B, C))
    assert none.verdict == NoEndpoint(f"3 of 3 tasks fail their probe: {BAD}")
    assert none.chosen is None
    assert all(one.draining for one in none.endpoints)


def test_that_an_older_task_fails_is_nobody_s_concern():
    whole = with_tags(local(A, 29001), local(B, 29002))

    assert without(whole, failing(whole, A)) is whole

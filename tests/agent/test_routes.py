"""From the routes of ports to the endpoints of the relay loop."""

from __future__ import annotations

import msgspec
import pytest
from tests.agent.shapes import A, B, entry, lone, port, service, snapshot, task

from kecs.agent.health import to_ask, without
from kecs.agent.picture import Picture
from kecs.agent.routes import DOUBT, id_of, kind_of
from kecs.client.endpoints import Route
from kecs.forward.machine import EndpointsReady, NoEndpoint
from kecs.net.messages import Endpoint


def pod(task_id=A, *, ready=True, draining=False, status="RUNNING", nodes=("10.0.0.1", "10.0.0.2")):
    """A task on Kubernetes: reached by a node port and by a tunnel."""
    routes = [Route(kind="direct", host=node, port=30080, by_node=True) for node in nodes]
    routes.append(Route(kind="tunnel", namespace="ns", pod=f"web-{task_id[:4]}", port=80))
    return task(task_id, port(80, ready=ready, draining=draining, routes=routes), status=status)


def resolve(forward, *targets):
    picture = Picture()
    picture.apply(snapshot(1, *targets))
    return picture.resolve(forward)


def node(host, *, draining=False):
    return Endpoint(f"node/{host}:30080", host, 30080, draining, rank=0, patience=1.0)


def tunnel(task_id, *, draining=False):
    return Endpoint(task_id, "", 80, draining, rank=2, carrier=f"ns/web-{task_id[:4]}")


def udp_pod(task_id=A):
    """A task on Kubernetes with a UDP port: reached by a node port alone."""
    routes = [Route(kind="direct", host="10.0.0.1", port=30053, by_node=True)]
    return task(task_id, port(80, ready=True, protocol="udp", routes=routes))


def test_a_udp_port_is_reached_by_nodes_only_and_belongs_to_no_task():
    ports = [port(protocol="udp")]
    resolution = resolve(entry(protocol="udp"), service(udp_pod(A), udp_pod(B), ports=ports))
    assert [(one.id, one.port, one.carrier) for one in resolution.endpoints] == [
        ("node/10.0.0.1:30053", 30053, "")
    ]
    assert [(row.task_id, row.by_node) for row in resolution.rows] == [(None, True)]

    alone = resolve(entry(type="task", protocol="udp"), lone(udp_pod(A), ports=ports))
    assert [(row.task_id, row.by_node) for row in alone.rows] == [(A, True)]
    assert alone.verdict == EndpointsReady()


def test_a_udp_forward_that_keeps_to_one_task_of_a_service_has_no_way():
    ports = [port(protocol="udp")]
    pinned = resolve(entry(protocol="udp", auto_reconnect=False), service(udp_pod(), ports=ports))
    assert pinned.endpoints == ()
    assert pinned.verdict == NoEndpoint(
        "task aaaaaaaa is RUNNING, without a direct route (UDP has no tunnel)"
    )


def test_a_service_is_reached_by_each_node_once_and_else_by_a_tunnel_to_each_task():
    resolution = resolve(entry(), service(pod(A), pod(B)))

    assert set(resolution.endpoints) == {node("10.0.0.1"), node("10.0.0.2"), tunnel(A), tunnel(B)}
    assert resolution.verdict == EndpointsReady()
    assert sorted((row.task_id or "", row.route.kind, row.by_node) for row in resolution.rows) == [
        ("", "direct", True),
        ("", "direct", True),
        (A, "tunnel", False),
        (B, "tunnel", False),
    ]


def test_each_row_names_its_endpoint():
    resolution = resolve(entry(), service(pod(A), pod(B)))

    assert {id_of(row) for row in resolution.rows} == {endpoint.id for endpoint in resolution.endpoints}


@pytest.mark.parametrize("kind", ["direct", "tunnel"])
def test_a_forced_route_uses_nothing_else(kind):
    resolution = resolve(entry(route=kind), service(pod(A), pod(B)))

    assert {kind_of(endpoint) for endpoint in resolution.endpoints} == {kind}
    assert {row.route.kind for row in resolution.rows} == {kind}


def test_a_forced_route_that_does_not_exist_is_waited_for():
    resolution = resolve(entry(route="direct"), service(pod(A, nodes=())))

    assert resolution.endpoints == ()
    assert resolution.verdict == NoEndpoint(
        "no task of prod/web is ready (1 RUNNING, without a direct route)"
    )


def test_a_node_serves_on_while_one_task_behind_it_is_ready_and_drains_with_the_last():
    one_left = resolve(entry(), service(pod(A), pod(B, draining=True, status="DEACTIVATING")))
    none_left = resolve(entry(), service(pod(B, draining=True, status="DEACTIVATING")))

    assert set(one_left.endpoints) == {
        node("10.0.0.1"),
        node("10.0.0.2"),
        tunnel(A),
        tunnel(B, draining=True),
    }
    assert set(none_left.endpoints) == {
        node("10.0.0.1", draining=True),
        node("10.0.0.2", draining=True),
        tunnel(B, draining=True),
    }
    assert none_left.verdict == NoEndpoint("no task of prod/web is ready (1 DEACTIVATING)")


def test_a_node_is_not_asked_while_no_task_behind_it_is_ready():
    assert resolve(entry(), service(pod(A, ready=False))).endpoints == ()


def test_one_task_of_a_service_is_never_asked_for_at_a_node_which_may_give_another():
    resolution = resolve(entry(type="task"), service(pod(A), pod(B)))

    assert resolution.endpoints == (tunnel(A),)


def test_a_standalone_task_has_its_node_port_for_itself():
    resolution = resolve(entry(type="task"), lone(pod(A, nodes=("10.0.0.1",))))

    assert set(resolution.endpoints) == {node("10.0.0.1"), tunnel(A)}
    assert {row.task_id for row in resolution.rows} == {A}


def test_a_task_that_can_only_be_dialled_is_no_node():
    resolution = resolve(entry(), service(task(A, port(80, 29001))))

    assert resolution.endpoints == (Endpoint(A, "127.0.0.1", 29001),)


def published_pod(task_id=A, *, port_number=30080, **members):
    """A task whose node port is published on this machine, too."""
    one = pod(task_id, nodes=("10.0.0.1",), **members)
    here = Route(kind="direct", host="127.0.0.1", port=port_number, by_node=True, published=True)
    [only] = one.ports
    routes = [*only.routes[:-1], here, only.routes[-1]]
    return msgspec.structs.replace(one, ports=[msgspec.structs.replace(only, routes=routes)])


def published(*, draining=False):
    return Endpoint(
        "published/127.0.0.1:30080", "127.0.0.1", 30080, draining, rank=1, patience=1.0, doubt=DOUBT
    )


def test_a_published_port_is_tried_after_the_nodes_and_before_the_tunnels():
    resolution = resolve(entry(), service(published_pod(A), published_pod(B)))

    assert set(resolution.endpoints) == {node("10.0.0.1"), published(), tunnel(A), tunnel(B)}
    assert sorted((one.rank, kind_of(one)) for one in resolution.endpoints) == [
        (0, "direct"),
        (1, "published"),
        (2, "tunnel"),
        (2, "tunnel"),
    ]
    assert {id_of(row) for row in resolution.rows} == {endpoint.id for endpoint in resolution.endpoints}
    [row] = [row for row in resolution.rows if row.route.published]
    assert (row.task_id, row.by_node, row.ready) == (None, True, True)


@pytest.mark.parametrize(("route", "there"), [("direct", True), ("tunnel", False)])
def test_what_is_published_is_dialled_and_so_goes_with_a_forced_route(route, there):
    assert (published() in resolve(entry(route=route), service(published_pod())).endpoints) == there


def test_it_is_not_asked_while_no_task_behind_it_is_ready_and_drains_with_the_last():
    assert resolve(entry(), service(published_pod(ready=False))).endpoints == ()
    leaving = published_pod(draining=True, status="DEACTIVATING")
    assert published(draining=True) in resolve(entry(), service(leaving)).endpoints
    assert published() in resolve(entry(), service(leaving, published_pod(B))).endpoints


def test_one_task_of_a_service_is_not_asked_for_where_another_may_answer_a_standalone_one_is():
    assert resolve(entry(type="task"), service(published_pod(A), published_pod(B))).endpoints == (tunnel(A),)
    assert published() in resolve(entry(type="task"), lone(published_pod(A))).endpoints


def test_probes_ask_tasks_by_their_tunnels_and_while_one_fails_nothing_goes_where_kubernetes_chooses():
    resolution = resolve(entry(), service(published_pod(A), published_pod(B)))
    asked = to_ask(resolution)
    assert set(asked.values()) == {tunnel(A), tunnel(B)}
    bad = {way: "GET / answered 503" for way, one in asked.items() if one.id == A}
    assert without(resolution, bad).endpoints == (tunnel(B),)

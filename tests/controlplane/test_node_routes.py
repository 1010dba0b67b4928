"""Published node ports: a route on this machine only while the rows say that it leads somewhere."""

from __future__ import annotations

import dataclasses

import msgspec
import pytest
from tests.controlplane.test_endpoints import (
    ONE,
    POD,
    TUNNEL,
    TWO,
    WEB,
    node_port,
    ready,
    routes_of,
)
from tests.controlplane.world import service, state_of, task, task_definition

from kecs.client.endpoints import Route
from kecs.client.instance import Instance, K3d
from kecs.controlplane.endpoints import all_targets, target_at
from kecs.controlplane.hub import Hub
from kecs.controlplane.start_up import traits_of
from kecs.ecs.context import RuntimeTraits
from kecs.ecs.model import Node, TaskPort

TRAITS = RuntimeTraits(
    name="k3d", node_ports=range(30000, 32768), published=range(30000, 30100), published_by="one"
)
HERE = ("direct", "127.0.0.1", 30080)
NODES = [("direct", "203.0.113.7", 30080), ("direct", "192.0.2.7", 30080), ("direct", "192.0.2.8", 30080)]
LOST = msgspec.structs.replace(ONE, ready=False)


def target(*rows, traits=TRAITS, ports=None):
    one = task(service="web", ports=ready(0) if ports is None else ports, **POD)
    state = state_of(task_definition(), service(), one, *rows)
    found = all_targets(state, traits)[WEB]
    assert target_at(state, WEB, traits) == found
    return found


def why(found) -> str | None:
    """Return what the tunnel says of it."""
    return found.tasks[0].ports[0].routes[-1].unpublished


def test_nodes_come_first_then_what_is_published_then_the_tunnel():
    found = target(ONE, TWO, node_port())

    assert routes_of(found) == [*NODES, HERE, TUNNEL]
    assert [route.published for route in found.tasks[0].ports[0].routes] == [False, False, False, True, False]
    assert why(found) is None


@pytest.mark.parametrize(
    ("rows", "routes", "reason"),
    [
        pytest.param(
            [ONE, TWO, node_port(31234)],
            [(kind, host, 31234) for kind, host, _ in NODES],
            "node port 31234 is beyond the published ones, 30000-30099",
            id="beyond",
        ),
        pytest.param(
            [ONE, TWO, node_port(applied=False)],
            [],
            "the cluster does not have node port 30080 yet",
            id="not applied",
        ),
        pytest.param([LOST, TWO, node_port()], NODES[2:], "node one is not ready", id="its node is lost"),
        pytest.param([TWO, node_port()], NODES[2:], "node one is not ready", id="its node is gone"),
        pytest.param([node_port()], [], "node one is not ready", id="no node"),
        pytest.param([ONE, TWO], [], None, id="no node port"),
    ],
)
def test_it_is_no_route_when_the_rows_know_that_it_leads_nowhere(rows, routes, reason):
    found = target(*rows)

    assert routes_of(found) == [*routes, TUNNEL]
    assert why(found) == reason


def test_another_node_may_be_lost_where_it_is_known_which_one_publishes():
    assert HERE in routes_of(target(ONE, msgspec.structs.replace(TWO, ready=False), node_port()))


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ([ONE, TWO], None),
        ([LOST, TWO], "node one is not ready"),
        ([LOST, msgspec.structs.replace(TWO, ready=False)], "node one, two is not ready"),
        ([], "no node is known"),
    ],
)
def test_every_node_has_to_be_ready_where_it_is_not_known_which_one_publishes(rows, reason):
    found = target(*rows, node_port(), traits=dataclasses.replace(TRAITS, published_by=None))

    assert (HERE in routes_of(found)) == (reason is None)
    assert why(found) == reason


def test_udp_is_reached_at_nodes_only():
    udp = [TaskPort(container="web", container_port=80, protocol="udp", ready=True)]
    found = target(ONE, node_port(protocol="udp"), ports=udp)

    assert routes_of(found) == NODES[:2]
    first = Route(kind="direct", host="203.0.113.7", port=30080, by_node=True)
    assert found.tasks[0].ports[0].routes[0] == first


def test_a_cluster_that_publishes_nothing_says_nothing_of_it():
    found = target(ONE, TWO, node_port(31234), traits=RuntimeTraits(name="kubernetes"))

    assert HERE not in routes_of(found)
    assert why(found) is None


def test_a_standalone_task_has_its_own_published_port():
    one = task(ports=ready(0), **POD)
    state = state_of(task_definition(), one, ONE, node_port(service="", task_id=one.id))
    [found] = all_targets(state, TRAITS).values()

    assert routes_of(found) == [*NODES[:2], HERE, TUNNEL]


def test_the_node_port_of_a_port_is_known_once_the_cluster_has_it():
    assert [port.node_port for port in target(ONE, node_port()).ports] == [30080]
    assert [port.node_port for port in target(ONE, node_port(applied=False)).ports] == [None]


def test_a_node_that_is_lost_takes_the_published_port_out_of_what_is_followed():
    one = task(service="web", ports=ready(0), **POD)
    rows = [task_definition(), service(), one, node_port()]
    hub = Hub(state_of(*rows, ONE), TRAITS)
    assert b'"published":true' in hub.snapshot()

    hub.apply(state_of(*rows, LOST), {(Node, ONE.key): (ONE, LOST)})
    assert hub.version == 2
    assert b'"published":true' not in hub.snapshot()
    assert b"node one is not ready" in hub.snapshot()

    hub.apply(state_of(*rows, ONE), {(Node, ONE.key): (LOST, ONE)})
    assert b'"published":true' in hub.snapshot()


def instance(**members):
    given = {"name": "dev", "id": "0a1b2c3d", "region": "us-east-1", "api_port": 5373} | members
    return Instance(access_key_id="AKIA", directory="/", created_at=0.0, **given)


def test_what_an_instance_publishes_is_known_with_the_node_behind_it():
    k3d = K3d(cluster="kecs-dev", api_port=6550)
    traits = traits_of(instance(runtime="k3d", k3d=k3d, published="30000-30099"))
    assert (traits.published, traits.published_by) == (range(30000, 30100), "k3d-kecs-dev-server-0")

    elsewhere = traits_of(instance(runtime="kubernetes", published="30000-30099"))
    assert (elsewhere.published, elsewhere.published_by) == (range(30000, 30100), None)
    assert traits_of(instance(runtime="kubernetes")).published is None
    assert traits_of(instance()).published is None

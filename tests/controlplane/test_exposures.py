"""Exposures: the cluster's network follows the rows, whatever fails, and whoever else changes it."""

import asyncio

import msgspec
import pytest
from tests.controlplane.world import (
    PODS,
    PRIVATE,
    PUBLIC,
    REGION,
    FakeCluster,
    World,
    container_definition,
    new_id,
    service,
    task,
    task_definition,
)

from kecs.controlplane import exposures
from kecs.controlplane.exposures import place_of, wanted
from kecs.ecs import node_ports, services, tasks
from kecs.ecs.context import Context
from kecs.ecs.model import Cluster, Node, NodePort
from kecs.ecs.state import State
from kecs.runtimes.base import ExposedPort, Exposure, NodeObserved

WEB = (REGION, "default", "web")
KEY = (*WEB, None)
CLUSTER = Cluster(region=REGION, name="default", created_at=1.0, capacity_providers=["FARGATE"])
TWO_PORTS = [
    container_definition(
        portMappings=[
            {"containerPort": 80, "hostPort": 80, "protocol": "tcp"},
            {"containerPort": 53, "hostPort": 53, "protocol": "udp"},
        ]
    )
]


@pytest.fixture(autouse=True)
def no_delays(monkeypatch):
    monkeypatch.setattr(exposures, "RETRY_AFTER", (0.01,))


def context():
    return Context(region=REGION, now=1.0, new_id=new_id, runtime=PODS)


async def create(world, name="web", network=PUBLIC, **members):
    """Make a service as CreateService does, with its node ports, in one transaction."""

    def commit(tx):
        row = service(name, network=network, **members)
        tx.put(row)
        node_ports.settle_service(tx, row, context())

    await world.store.transact(commit)


def rows(world):
    return {row.container_port: row for row in world.store.state.scan(NodePort)}


def test_a_public_service_is_exposed_by_its_node_ports_which_then_count_as_applied(short_path):
    async def main():
        cluster = FakeCluster()
        async with World.open(
            short_path, None, task_definition(containers=TWO_PORTS), cluster=cluster
        ) as world:
            await create(world)
            await world.until(
                lambda: rows(world) and all(row.applied for row in rows(world).values()), "applied"
            )
            [(key, exposure)] = cluster.has.items()

            assert key == place_of(KEY, context())
            assert exposure.service == "web"
            assert [(port.container_port, port.protocol) for port in exposure.ports] == [
                (53, "udp"),
                (80, "tcp"),
            ]
            assert cluster.exposed() == {"web": {port: row.port for port, row in rows(world).items()}}

    asyncio.run(main())


def test_a_private_service_is_exposed_without_node_ports_and_one_without_ports_not_at_all(short_path):
    async def main():
        cluster = FakeCluster()
        silent = task_definition("silent", containers=[container_definition(portMappings=[])])
        async with World.open(short_path, None, task_definition(), silent, cluster=cluster) as world:
            await create(world, "quiet", family="silent")
            await create(world, network=PRIVATE)
            await world.until(lambda: cluster.has, "it is exposed")

            assert cluster.exposed() == {"web": {80: None}}
            assert rows(world) == {}

    asyncio.run(main())


def test_a_taken_number_is_replaced_and_the_service_says_so(short_path):
    async def main():
        cluster = FakeCluster()
        async with World.open(short_path, None, task_definition(), cluster=cluster) as world:
            chosen = first_choice()
            cluster.taken = {chosen, 30000 + (chosen + 1) % 10}
            await create(world)
            row = await world.until(lambda: [row for row in rows(world).values() if row.applied], "applied")

            assert row[0].port not in cluster.taken
            assert cluster.exposed() == {"web": {80: row[0].port}}
            said = [event.message for event in world.service().events if "node port" in event.message]
            assert len(said) == 2
            assert f"found node port {chosen} of container port 80 in use" in said[-1]
            await world.until(lambda: world.controller.exposures.trouble(KEY) is None, "no trouble is left")

    asyncio.run(main())


def first_choice():
    """Return the number that `web` is given when all are free."""
    draft = State([task_definition()]).draft()
    node_ports.settle_service(draft, service(), context())
    return draft.scan(NodePort)[0].port


def test_when_every_number_is_taken_it_is_told_and_tried_until_one_is_free(short_path, monkeypatch):
    async def main():
        monkeypatch.setattr(exposures, "REFUSED_FOR", 0.0)
        cluster = FakeCluster()
        cluster.taken = set(PODS.node_ports)
        async with World.open(short_path, None, task_definition(), cluster=cluster) as world:
            await create(world)
            await world.until(lambda: cluster.calls.count(("expose", "web")) > 10, "it is tried")
            cluster.taken = set(PODS.node_ports) - {30007}
            await world.until(
                lambda: cluster.exposed() == {"web": {80: 30007}}, "it has the one that is free"
            )

    asyncio.run(main())


def test_a_range_without_a_free_number_is_a_trouble_and_an_event(short_path):
    async def main():
        cluster = FakeCluster()
        cluster.taken = set(PODS.node_ports)
        async with World.open(short_path, None, task_definition(), cluster=cluster) as world:
            await create(world)
            await world.until(lambda: world.controller.exposures.trouble(KEY), "the trouble is told")
            assert "allocated already" in world.controller.exposures.trouble(KEY)
            assert any("unable to expose" in event.message for event in world.service().events)
            assert not any(row.applied for row in rows(world).values())

    asyncio.run(main())


def test_what_fails_is_tried_again_and_meanwhile_explained(short_path):
    async def main():
        cluster = FakeCluster()
        async with World.open(short_path, None, task_definition(), cluster=cluster) as world:
            await world.until(lambda: ("exposures", "") in cluster.calls, "it has begun")
            cluster.down = "no route to host"
            await create(world)
            await world.until(lambda: world.controller.exposures.trouble(KEY), "the trouble is told")
            assert "no route to host" in world.controller.exposures.trouble(KEY)
            assert not rows(world)[80].applied
            cluster.down = None
            await world.until(lambda: rows(world)[80].applied, "applied after all")
            await world.until(lambda: world.controller.exposures.trouble(KEY) is None, "no trouble is left")

    asyncio.run(main())


def test_switching_the_flag_off_and_on_follows(short_path):
    async def main():
        cluster = FakeCluster()
        async with World.open(short_path, None, task_definition(), CLUSTER, cluster=cluster) as world:
            await create(world)
            before = await world.until(
                lambda: [row for row in rows(world).values() if row.applied], "applied"
            )

            await update(world, networkConfiguration=PRIVATE)
            await world.until(lambda: cluster.exposed() == {"web": {80: None}}, "it is a ClusterIP")
            assert rows(world) == {}

            await update(world, networkConfiguration=PUBLIC)
            await world.until(lambda: cluster.exposed() == {"web": {80: before[0].port}}, "it is back")
            await world.until(lambda: rows(world)[80].applied, "applied")

    asyncio.run(main())


async def update(world, **params):
    params = {"service": "web", **params}
    await world.store.transact(lambda tx: services.update_service(tx, params, context()))


def test_a_deleted_service_is_withdrawn_when_its_tasks_are_gone(short_path):
    async def main():
        cluster = FakeCluster()
        async with World.open(short_path, None, task_definition(), CLUSTER, cluster=cluster) as world:
            await create(world)
            await world.until(lambda: world.service().steady and cluster.has, "it runs")
            params = {"service": "web", "force": True}
            await world.store.transact(lambda tx: services.delete_service(tx, params, context()))
            await world.until(lambda: world.service().status == "INACTIVE", "it is gone")
            await world.until(lambda: not cluster.has, "withdrawn")
            assert rows(world) == {}

    asyncio.run(main())


def test_a_public_standalone_task_is_exposed_until_it_stops(short_path):
    async def main():
        cluster = FakeCluster()
        async with World.open(short_path, None, task_definition(), CLUSTER, cluster=cluster) as world:
            params = {"taskDefinition": "web", "networkConfiguration": PUBLIC}
            await world.store.transact(lambda tx: tasks.run_task(tx, params, context()))
            await world.until(lambda: world.tasks("RUNNING") and rows(world)[80].applied, "it runs")
            [one] = world.tasks()
            assert cluster.exposed() == {f"task-{one.id}": {80: rows(world)[80].port}}

            world.runtime.end(one.id, 0)
            await world.until(lambda: not cluster.has, "withdrawn")
            assert rows(world) == {}

    asyncio.run(main())


def test_a_process_that_begins_takes_away_what_nobody_wants_and_applies_what_differs(short_path):
    async def main():
        cluster = FakeCluster()
        old = Exposure(
            namespace=place_of((REGION, "default", "old", None), context())[0],
            name="old", region=REGION, cluster="default", service="old", task_id=None,
            ports=[ExposedPort(container_port=80, node_port=30009)],
        )  # fmt: skip
        cluster.has[old.key] = old
        async with World.open(short_path, None, task_definition(), cluster=cluster) as world:
            await create(world)
            await world.until(lambda: rows(world) and rows(world)[80].applied, "applied")
            await world.until(lambda: "old" not in cluster.exposed(), "the old one is gone")

        [mine] = cluster.has.values()
        cluster.calls.clear()
        async with World.open(short_path, None, cluster=cluster) as world:
            await world.until(lambda: cluster.calls, "it has begun")
            await world.controller.close()
            assert cluster.calls == [("exposures", "")], "what is as wanted is left alone"

        cluster.has[mine.key] = msgspec.structs.replace(mine, ports=[ExposedPort(container_port=80)])
        async with World.open(short_path, None, cluster=cluster) as world:
            await world.until(lambda: cluster.has[mine.key] == mine, "it is as wanted again")

    asyncio.run(main())


def test_a_cluster_that_is_down_at_the_start_is_asked_until_it_answers(short_path):
    async def main():
        cluster = FakeCluster()
        cluster.down = "connection refused"
        async with World.open(short_path, None, task_definition(), cluster=cluster) as world:
            await create(world)
            await world.until(lambda: cluster.calls.count(("exposures", "")) > 2, "it is asked")
            cluster.down = None
            await world.until(lambda: rows(world)[80].applied, "applied")

    asyncio.run(main())


@pytest.mark.parametrize("how", ["changed", "deleted"])
def test_what_somebody_else_changes_is_applied_again(short_path, how):
    async def main():
        cluster = FakeCluster()
        async with World.open(short_path, None, task_definition(), cluster=cluster) as world:
            await create(world)
            await world.until(lambda: rows(world) and rows(world)[80].applied, "applied")
            [mine] = cluster.has.values()
            other = msgspec.structs.replace(mine, ports=[ExposedPort(container_port=80)])
            cluster.spoil("web", other if how == "changed" else None)
            await world.until(lambda: cluster.has.get(mine.key) == mine, "it is as wanted again")

    asyncio.run(main())


def test_nobody_goes_by_a_node_port_that_somebody_took_away_before_it_is_applied_again(short_path):
    async def main():
        cluster = FakeCluster()
        async with World.open(short_path, None, task_definition(), cluster=cluster) as world:
            await create(world)
            await world.until(lambda: rows(world) and rows(world)[80].applied, "applied")
            number = rows(world)[80].port
            [mine] = cluster.has.values()
            cluster.gate = asyncio.Event()
            cluster.spoil("web", None)
            await world.until(lambda: not rows(world)[80].applied, "it is known that it is gone")
            cluster.gate.set()
            await world.until(lambda: rows(world)[80].applied, "it is there again")
            assert rows(world)[80].port == number
            assert cluster.has == {mine.key: mine}

    asyncio.run(main())


def test_a_change_made_while_we_apply_is_not_lost(short_path):
    async def main():
        cluster = FakeCluster()
        async with World.open(short_path, None, task_definition(), cluster=cluster) as world:
            await world.until(lambda: cluster.calls, "it has begun")
            cluster.gate = asyncio.Event()
            await create(world)
            await world.until(lambda: ("expose", "web") in cluster.calls, "it is being applied")
            namespace, name = place_of(KEY, context())
            cluster._drifted.put_nowait((namespace, name))
            cluster.gate.set()
            await world.until(lambda: cluster.calls.count(("expose", "web")) == 2, "it is applied again")

    asyncio.run(main())


def test_nodes_are_rows_and_endpoints_follow(short_path):
    async def main():
        cluster = FakeCluster()
        async with World.open(short_path, None, task_definition(), cluster=cluster) as world:
            await create(world)
            cluster.say_nodes(
                NodeObserved(name="one", addresses=["192.0.2.1"], ready=True),
                NodeObserved(name="two", addresses=["192.0.2.2"], ready=False),
            )
            await world.until(lambda: len(world.store.state.scan(Node)) == 2, "the nodes are rows")
            await world.until(lambda: direct(world) == {"192.0.2.1"}, "the one that is ready is a route")
            cluster.say_nodes(NodeObserved(name="two", addresses=["192.0.2.2"], ready=True))
            await world.until(lambda: direct(world) == {"192.0.2.2"}, "the other one is")
            assert [row.name for row in world.store.state.scan(Node)] == ["two"]

    asyncio.run(main())


def direct(world):
    """Return the hosts of direct routes that the hub has published."""
    return {
        route.host
        for target in world.hub._targets.values()
        for each in target.tasks
        for port in each.ports
        for route in port.routes
        if route.kind == "direct"
    }


def test_wanted_is_nothing_for_what_is_not_there():
    gone = msgspec.structs.replace(service(), status="INACTIVE")
    assert wanted(State([task_definition()]), KEY, context()) is None
    assert wanted(State([task_definition(), gone]), KEY, context()) is None
    lone = task()
    assert wanted(State([task_definition(), lone]), (REGION, "default", None, lone.id), context()) is None

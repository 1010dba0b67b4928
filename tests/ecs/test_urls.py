"""What a task is told of the other services of its cluster, and the ports that are kept for it."""

from __future__ import annotations

import dataclasses
import itertools

import msgspec
import pytest

from kecs.ecs import clusters, kept_ports, names, urls
from kecs.ecs.model import LocalPort, Service

from .conftest import register
from .shapes import REGION, Ecs
from .test_node_ports import on_pods
from .test_services import NETWORK, PUBLIC, create, delete, row, start_task, update


@pytest.fixture
def local() -> Ecs:
    """An ECS on `local`, in which ports are free from 25000 on."""
    ecs = Ecs()
    plain = ecs.context

    def free(avoid: set[int]) -> int:
        return next(port for port in itertools.count(25000) if port not in avoid)

    ecs.context = lambda: dataclasses.replace(plain(), free_port=free)
    ecs.call(clusters.create_cluster, capacityProviders=["FARGATE", "FARGATE_SPOT"])
    register(ecs)
    return ecs


def told(ecs: Ecs, by: str = "web") -> dict[str, str]:
    return urls.urls_of(ecs.state, start_task(ecs, by), ecs.runtime)


def test_a_task_is_told_of_every_service_but_its_own(local):
    for name in ("web", "api", "Back_end-2"):
        create(local, name, networkConfiguration=PUBLIC)
    create(local, "private", networkConfiguration=NETWORK)
    assert told(local) == {
        "KECS_URL_API": "http://127.0.0.1:25001",
        "KECS_URL_BACK_END_2": "http://127.0.0.1:25002",
        "KECS_URL_PRIVATE": "http://127.0.0.1:25003",
    }


def test_of_two_services_with_one_variable_the_older_has_it(local):
    for name in ("web", "a-b", "a_b"):
        create(local, name, networkConfiguration=PUBLIC)
    assert told(local) == {"KECS_URL_A_B": f"http://127.0.0.1:{row(local, 'a-b').kept_port}"}


def test_a_port_is_kept_for_the_service_s_life_and_is_nobody_else_s(local):
    local.write(lambda tx: tx.put(LocalPort(port=25000, region=REGION, task_id="t")))
    create(local, "web", networkConfiguration=PUBLIC)
    kept = row(local, "web").kept_port
    assert kept == 25001
    update(local, "web", networkConfiguration=NETWORK)
    update(local, "web", networkConfiguration=PUBLIC, forceNewDeployment=True)
    assert row(local, "web").kept_port == kept
    create(local, "api", networkConfiguration=PUBLIC)
    assert row(local, "api").kept_port == 25002
    gone = msgspec.structs.replace(row(local, "web"), status="INACTIVE")
    local.write(lambda tx: tx.put(gone))
    assert kept_ports.ports_in_rows(local.state) == {25000, 25002}


def test_without_a_free_port_or_a_port_of_tcp_a_service_goes_without(local):
    plain = local.context
    local.context = lambda: dataclasses.replace(plain(), free_port=lambda _: None)
    create(local, "web", networkConfiguration=PUBLIC)
    assert row(local, "web").kept_port is None
    local.context = plain
    udp = [{"name": "web", "image": "x", "portMappings": [{"containerPort": 53, "protocol": "udp"}]}]
    register(local, "dns", udp)
    create(local, "dns", "dns", networkConfiguration=PUBLIC)
    assert row(local, "dns").kept_port is None


def test_services_of_a_version_without_kept_ports_get_theirs_at_a_start(local):
    for name in ("web", "api", "gone"):
        create(local, name, networkConfiguration=PUBLIC)
    kept = row(local, "api").kept_port
    old = [msgspec.structs.replace(row(local, name), kept_port=None) for name in ("web", "gone")]
    local.write(lambda tx: tx.put(old[0]))
    local.write(lambda tx: tx.put(msgspec.structs.replace(old[1], status="INACTIVE")))
    local.write(lambda tx: kept_ports.settle_all(tx, lambda _: local.context()))
    assert row(local, "web").kept_port == 25000
    assert row(local, "api").kept_port == kept
    assert row(local, "gone").kept_port is None


def test_somebody_has_to_listen_while_a_living_task_was_told(local):
    create(local, "web", networkConfiguration=PUBLIC)
    assert not urls.are_told(local.state)
    own = start_task(local, "web")
    assert not urls.are_told(local.state), "its own tasks are not told of it"
    create(local, "api", networkConfiguration=NETWORK)
    task = start_task(local, "api")
    assert urls.are_told(local.state)
    for one in (own, task):
        local.write(lambda tx, one=one: tx.put(msgspec.structs.replace(one, last_status="STOPPED")))
    assert not urls.are_told(local.state)


def test_on_kubernetes_it_is_the_name_of_the_service_and_its_own_port():
    ecs = on_pods()
    create(ecs, "web", networkConfiguration=PUBLIC)
    create(ecs, "Api", networkConfiguration=PUBLIC)
    namespace = names.namespace("dev", "0a1b2c3d", REGION, "default")
    service = names.service_name("Api")
    assert told(ecs) == {"KECS_URL_API": f"http://{service}.{namespace}.svc.cluster.local:80"}
    assert [one.kept_port for one in ecs.state.scan(Service)] == [None, None]
    assert not urls.are_told(ecs.state)


def test_a_deleted_service_is_told_to_nobody(local):
    create(local, "web", networkConfiguration=PUBLIC)
    create(local, "api", desiredCount=0, networkConfiguration=PUBLIC)
    delete(local, "api")
    gone = msgspec.structs.replace(row(local, "api"), status="INACTIVE")
    local.write(lambda tx: tx.put(gone))
    assert told(local) == {}

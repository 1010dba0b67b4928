"""What is forgotten, and what is kept."""

import asyncio

import msgspec
import pytest
from tests.controlplane.world import REGION, FakeRuntime, Machine, service, state_of, task, task_definition

from kecs.controlplane import retention
from kecs.controlplane.retention import forget_old, retain
from kecs.ecs.model import ClientToken, LocalPort, Service, Task, TaskDefinition
from kecs.store.ecs import Store

HOUR = 3600.0
NOW = 10_000_000.0


def after(*rows, now=NOW):
    draft = state_of(*rows).draft()
    return draft, forget_old(draft, now)


@pytest.mark.parametrize(("age", "kept"), [(HOUR - 1, True), (HOUR + 1, False)])
def test_a_stopped_task_is_describable_for_an_hour(age, kept):
    one = task(status="STOPPED", stopped_at=NOW - age)
    draft, forgotten = after(one)

    assert bool(draft.scan(Task)) is kept
    assert forgotten == ([] if kept else [one.id])


def test_a_living_task_is_kept_however_old():
    draft, forgotten = after(task(created_at=1.0))

    assert draft.scan(Task)
    assert forgotten == []


def test_a_port_whose_task_is_gone_is_released():
    draft, _ = after(LocalPort(port=1, region="r", task_id="gone"))

    assert draft.scan(LocalPort)[0].released_at == NOW


def test_old_tokens_and_services_go_and_young_ones_stay():
    def token(name, at):
        return ClientToken(
            region=REGION, operation="RunTask", token=name, request_hash="", result=[], created_at=at
        )

    old = msgspec.structs.replace(service("old"), status="INACTIVE", deployments=[], created_at=1.0)
    young = msgspec.structs.replace(service("young"), status="INACTIVE", deployments=[], created_at=NOW - 60)
    draft, _ = after(token("old", 1.0), token("young", NOW - 60), old, young, service("alive"))

    assert [row.token for row in draft.scan(ClientToken)] == ["young"]
    assert [row.name for row in draft.scan(Service)] == ["young", "alive"]


def test_a_deleted_task_definition_goes_when_nothing_uses_it():
    def deleted(revision):
        row = task_definition(revision=revision)
        return msgspec.structs.replace(row, status="DELETE_IN_PROGRESS", delete_requested_at=1.0)

    draft, _ = after(deleted(1), deleted(2), deleted(3), task(), service(revision=2))

    assert [row.revision for row in draft.scan(TaskDefinition)] == [1, 2]


def test_the_runtime_hears_of_forgotten_tasks(short_path, monkeypatch):
    """One pass after the other, and a failing one does not end them."""
    monkeypatch.setattr(retention, "EVERY", 0.01)

    async def main():
        store = await Store.open(short_path / "kecs.duckdb")
        old = task(status="STOPPED", stopped_at=1.0)
        await store.transact(lambda tx: tx.put(old))
        runtime = FakeRuntime(Machine())
        running = asyncio.get_running_loop().create_task(retain(store, runtime, lambda: NOW))
        async with asyncio.timeout(5):
            while runtime.machine.forgotten != [old.id]:
                await asyncio.sleep(0.01)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        assert store.state.scan(Task) == []
        await store.close()

    asyncio.run(main())

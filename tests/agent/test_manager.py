"""The dictionary of forwards when things go wrong in the middle."""

from __future__ import annotations

import asyncio

import pytest
from tests.agent.scripted import refuses
from tests.agent.shapes import B, lone, port, snapshot, task, wanted
from tests.sockets import free_port

from kecs import files
from kecs.agent import book as module
from kecs.agent import state
from kecs.client import rpc_types as rpc
from kecs.errors import KecsError


def test_what_cannot_be_written_is_not_started(play, monkeypatch):
    async def scene(stage, manager):
        first, second = free_port(), free_port()
        await stage.start(wanted(local_port=first))

        def fail(path, document):
            raise KecsError("no space left")

        with monkeypatch.context() as patch:
            patch.setattr(files, "write_yaml", fail)
            with pytest.raises(KecsError, match="no space left"):
                await stage.start(wanted(local_port=second, name="a"), wanted(name="b"))
            with pytest.raises(KecsError, match="no space left"):
                await manager.stop(rpc.StopRequest(all=True))
        assert (stage.saved(), refuses(first), refuses(second)) == ([first], False, True)
        assert [row.local_port for row in (await manager.rows()).forwards] == [first]

    play(scene)


def test_a_start_that_is_cancelled_while_it_asks_leaves_nothing(play):
    async def scene(stage, manager):
        stage.answered.clear()
        starting = asyncio.get_running_loop().create_task(stage.start(wanted()))
        await asyncio.sleep(0)
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        stage.answered.set()
        assert (manager.runners, stage.saved()) == ({}, [])
        assert [one.created for one in await stage.start(wanted())] == [True]

    play(scene)


def test_a_stop_is_not_held_up_by_a_start_that_asks(play):
    async def scene(stage, manager):
        await stage.start(wanted())
        stage.answered.clear()
        starting = asyncio.get_running_loop().create_task(stage.start(wanted(name="later")))
        await asyncio.sleep(0)
        assert len((await manager.stop(rpc.StopRequest(all=True))).forwards) == 1
        stage.answered.set()
        assert (await starting)[0].forward.name == "later"

    play(scene)


def test_two_starts_at_once_make_one_forward(play):
    async def scene(stage, manager):
        both = await asyncio.gather(stage.start(wanted()), stage.start(wanted()))
        assert sorted(one.created for (one,) in both) == [False, True]
        assert len(manager.runners) == 1

    play(scene)


def test_the_same_twice_in_one_request_is_created_once(play):
    async def scene(stage, manager):
        first, second = await stage.start(wanted(), wanted())
        assert (first.created, second.created) == (True, False)
        assert first.forward.id == second.forward.id

    play(scene)


def test_forwards_that_end_together_are_written_once(play, monkeypatch):
    async def scene(stage, manager):
        tasks = [f"{number:032x}" for number in range(1, 30)]
        stage.line = snapshot(2, *(lone(task(one, port(80, 29001))) for one in tasks))
        await stage.start(*(wanted(f"prod/{one}", "task") for one in tasks))
        writes = []
        real = module.state.save
        monkeypatch.setattr(module.state, "save", lambda *given: writes.append(real(*given)))

        stage.resolver._heard(snapshot(3), first=True)
        async with asyncio.timeout(5):
            while not writes:
                await asyncio.sleep(0)
        assert len(writes) == 1
        assert {one.ended for one in state.load(stage.paths)[0].forwards} == {
            f"task {one[:8]} is gone" for one in tasks
        }

    play(scene)


def test_waiting_is_for_all_and_an_end_is_told_at_once(play):
    async def scene(stage, manager):
        stage.line = snapshot(2, lone(task(B, status="PENDING")))
        waiting = asyncio.get_running_loop().create_task(
            stage.start(wanted("prod/bbbbbbbb", "task"), wait=60)
        )
        while not manager.runners:
            await asyncio.sleep(0)
        stage.resolver._heard(snapshot(3, lone(task(B, status="STOPPED", reason="it broke"))), first=True)
        with pytest.raises(KecsError, match="is ENDED: task bbbbbbbb is STOPPED: it broke"):
            await waiting

    play(scene)


def test_an_id_and_a_name_both_find_a_forward(play):
    async def scene(stage, manager):
        (one,) = await stage.start(wanted(name="mine"))
        assert (await manager.get("mine")).id == (await manager.get(one.forward.id)).id
        stopped = await manager.stop(rpc.StopRequest(forwards=["mine", one.forward.id]))
        assert [row.name for row in stopped.forwards] == ["mine"]

    play(scene)

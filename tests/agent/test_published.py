"""A published port at the agent: only where k3d has a load balancer, kept, shown, and no other's."""

from __future__ import annotations

import asyncio
import shutil

import msgspec
import pytest
from tests.agent.scripted import make_instance, short_home
from tests.agent.shapes import A, port, service, snapshot, task, wanted
from tests.agent.stage import Stage
from tests.sockets import free_port

from kecs.agent import state
from kecs.client import instance as instances
from kecs.client import rpc_types as rpc
from kecs.client.instance import K3d
from kecs.errors import ExitCode, KecsError


@pytest.fixture
def play():
    """Play a scene on an instance on k3d with these members; None: on the runtime `local`."""
    home = short_home()

    def play(scene, members):
        async def run():
            paths = make_instance(home)
            if members is not None:
                k3d = K3d(cluster="kecs-default", api_port=6443, **members)
                instances.change(paths, lambda was: msgspec.structs.replace(was, runtime="k3d", k3d=k3d))
            stage = Stage(paths)
            try:
                await scene(stage, stage.manager)
            finally:
                await stage.close()

        asyncio.run(run())

    yield play
    shutil.rmtree(home)


BALANCED = {"load_balancer": True}


def refused(stage, *specs):
    async def ask():
        with pytest.raises(KecsError) as caught:
            await stage.start(*specs)
        assert stage.saved() == []
        return caught.value

    return ask()


def test_it_is_kept_and_shown(play):
    async def scene(stage, manager):
        (started,) = await stage.start(wanted(publish=18080))
        (entry,) = state.load(stage.paths)[0].forwards
        assert (started.forward.publish, entry.publish) == (18080, 18080)
        assert (await manager.export()).forwards[0].publish == 18080
        assert 18080 in manager.avoided_ports()

    play(scene, BALANCED)


def test_no_local_port_is_chosen_where_docker_shall_listen(play):
    high = free_port()

    async def scene(stage, manager):
        stage.line = snapshot(2, service(task(A, port(high, 29001)), ports=[port(high)]))
        (started,) = await stage.start(wanted(publish=high))
        assert started.forward.local_port != high, "the target port is the first choice else"

    play(scene, BALANCED)


@pytest.mark.parametrize(
    ("members", "says", "hint"),
    [
        (None, "cannot be published on the runtime `local`", "kecs start --runtime k3d --load-balancer"),
        ({}, "the cluster `kecs-default` has no load balancer", "`kecs destroy`, then `kecs start"),
    ],
)
def test_without_a_load_balancer_it_is_refused(play, members, says, hint):
    async def scene(stage, manager):
        error = await refused(stage, wanted(publish=18080))
        assert says in error.message
        assert hint in error.hint
        assert error.exit_code == ExitCode.USAGE
        of_a_file = rpc.ApplyRequest(
            owner="/f.yaml", forwards=[wanted(name="a", target_port=80, publish=18080)]
        )
        with pytest.raises(KecsError, match="cannot be published"):
            await manager.applier.apply(of_a_file)
        assert stage.saved() == []

    play(scene, members)


def test_a_file_that_publishes_one_of_anothers_is_a_conflict(play):
    async def scene(stage, manager):
        await stage.start(wanted(publish=18080))
        request = rpc.ApplyRequest(
            owner="/f.yaml", forwards=[wanted(name="a", target_port=80, publish=18080)]
        )
        with pytest.raises(KecsError, match="port 18080 of `a` belongs to the forward `prod-web`") as caught:
            await manager.applier.apply(request)
        assert caught.value.exit_code == ExitCode.CONFLICT

    play(scene, BALANCED)


def test_a_file_publishes_keeps_changes_and_takes_back(play):
    async def scene(stage, manager):
        async def run(**members):
            spec = wanted(name="a", target_port=80, **members)
            reply = await manager.applier.apply(rpc.ApplyRequest(owner="/f.yaml", forwards=[spec]))
            (step,) = reply.steps
            assert state.load(stage.paths)[0].forwards[0].publish == members.get("publish")
            return step.sign, step.changes, step.forward.local_port

        sign, _, local = await run(publish=18080)
        assert sign == "+"
        assert await run(publish=18080) == ("=", [], local)
        assert await run(publish=18081) == ("~", ["publish 18080 -> 18081"], local)
        assert await run() == ("~", ["publish 18081 -> none"], local)

    play(scene, BALANCED)

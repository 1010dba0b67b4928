"""Load balancers that an edit left under a wrong name, or dead: what `K3dCluster.start` makes of each."""

from __future__ import annotations

import os
import re
import signal

import pytest
from tests.k3d.clusters import Stage
from tests.sockets import free_port

from kecs.errors import KecsError
from kecs.k3d.failures import PortTaken


@pytest.fixture
def stage(k3d, tmp_path):
    one = Stage(k3d, tmp_path / "instance", load_balancer=True)
    one.create()
    return one


@pytest.fixture
def scripted_stage(scripted, tmp_path):
    one = Stage(scripted, tmp_path / "instance", load_balancer=True)
    one.create()
    return one


def is_whole(stage) -> bool:
    """Both containers run under their own names, nothing else is there."""
    states = stage.k3d.containers()
    return states == {stage.server: "running", stage.balancer: "running"}


def stray(stage) -> str:
    [name] = [
        name for name in stage.k3d.containers() if re.fullmatch(re.escape(stage.balancer) + r"-\w{5}", name)
    ]
    return name


def kill_edit(stage, step: str, *ports: str) -> None:
    """Begin an edit and kill k3d at `step`."""
    stage.k3d.hold(step)
    process = stage.k3d.spawn(*stage.edit(*ports))
    stage.k3d.wait_held(step)
    process.kill()
    process.communicate()
    stage.k3d.release(step)


def test_an_edit_that_was_killed_while_it_stopped_the_old_balancer(stage):
    before = stage.k3d.ports(stage.balancer)
    kill_edit(stage, "edit:stopping", f"127.0.0.1:{free_port()}:30081")
    # Docker goes on with the stop: 10 s later nothing serves any more.
    stage.k3d.wait_for(lambda states: "exited" in states.values())
    state, detail = stage.cluster.state()
    assert state == "broken"
    assert detail.startswith("an edit of its load balancer broke off: ")
    assert f"load balancer {stray(stage)} exited" in detail
    stage.cluster.start()
    assert is_whole(stage)
    assert sorted(stage.k3d.ports(stage.balancer)) == sorted(before)
    assert any("an edit of it broke off" in note for note in stage.notes)


def test_it_is_repaired_at_once_and_stays(stage):
    """Repaired while Docker still stops the old balancer: it must not die afterwards."""
    kill_edit(stage, "edit:stopping", f"127.0.0.1:{free_port()}:30081")
    assert stage.k3d.containers()[stray(stage)] in ("running", "exited")
    stage.cluster.start()
    assert is_whole(stage)
    state = stage.k3d.state["containers"].values() if hasattr(stage.k3d, "state") else ()
    assert all(each["dies_at"] is None for each in state)


@pytest.mark.parametrize("step", ["edit:renamed", "edit:created", "edit:started"])
def test_edits_that_were_killed_elsewhere(scripted_stage, step):
    stage, port = scripted_stage, free_port()
    before = stage.k3d.ports(stage.balancer)
    kill_edit(stage, step, f"127.0.0.1:{port}:30081")
    stray(stage)
    assert stage.cluster.state()[0] == "broken"
    stage.cluster.start()
    assert is_whole(stage)
    # Started is as good as done; before that the old one goes on.
    added = [("127.0.0.1", port, 30081)] if step == "edit:started" else []
    assert sorted(stage.k3d.ports(stage.balancer)) == sorted(before + added)
    assert stage.cluster.state()[0] == "running"


def test_two_edits_at_once_of_others(scripted_stage):
    """The old balancer serves under a random name: it is not stopped for the repair."""
    stage = scripted_stage
    stage.k3d.hold("edit:looked")
    both = [stage.k3d.spawn(*stage.edit(f"127.0.0.1:{free_port()}:30081")) for _ in range(2)]
    stage.k3d.wait_held("edit:looked", 2)
    stage.k3d.hold("edit:renamed")
    for count, process in enumerate(both, 1):
        stage.k3d.release("edit:looked", process.pid)
        stage.k3d.wait_held("edit:renamed", count)
    for process in both:
        stage.k3d.release("edit:renamed", process.pid)
        process.communicate(timeout=20)
    stage.k3d.release("edit:looked")
    stage.k3d.release("edit:renamed")
    assert stage.k3d.containers()[stray(stage)] == "running"
    [old] = [each for each in stage.k3d.state["containers"].values() if each["name"] == stray(stage)]
    stage.cluster.start()
    assert is_whole(stage)
    [new] = [each for each in stage.k3d.state["containers"].values() if each["name"] == stage.balancer]
    assert (new["id"], new["started_at"]) == (old["id"], old["started_at"])
    assert stage.k3d.run(*stage.edit(f"127.0.0.1:{free_port()}:30083")).returncode == 0


def test_an_edit_whose_port_was_taken(stage):
    port = free_port()
    stage.k3d.take(port)
    assert stage.k3d.run(*stage.edit(f"127.0.0.1:{port}:30081")).returncode == 1
    assert stage.k3d.containers()[stage.balancer] == "exited"
    state, detail = stage.cluster.state()
    assert (state, f"load balancer {stage.balancer} exited" in detail) == ("broken", True)
    stage.cluster.start()
    assert is_whole(stage)


def test_a_stray_that_cannot_be_removed(scripted_stage):
    stage = scripted_stage
    kill_edit(stage, "edit:stopping", f"127.0.0.1:{free_port()}:30081")
    stage.k3d.faults(undeletable=[stage.balancer])
    with pytest.raises(KecsError, match="did not receive an exit event") as caught:
        stage.cluster.start()
    assert "repairing the load balancer" in caught.value.message
    assert "docker ps -a" in caught.value.hint
    stage.k3d.faults()
    stage.cluster.start()
    assert is_whole(stage)


def test_a_port_of_the_balancer_was_taken_while_it_was_down(stage):
    stage.k3d.run("kill", stage.balancer, program="docker")
    stage.k3d.take(stage.wanted.balancer_api_port)
    with pytest.raises(PortTaken) as caught:
        stage.cluster.start()
    assert caught.value.port == stage.wanted.balancer_api_port
    stage.k3d.give_back()
    stage.cluster.start()
    assert is_whole(stage)


def test_a_kecs_that_is_killed_in_an_edit_leaves_the_lock_to_k3d(scripted_stage):
    """The edit goes on to its end, and whoever comes next waits for it: never two at once."""
    stage = scripted_stage
    port = free_port()
    stage.k3d.hold("edit:stopping")
    pid = os.fork()
    if pid == 0:
        try:
            with stage.cluster.locked():
                stage.cluster.k3d(*stage.edit(f"127.0.0.1:{port}:30081"), limit=60)
        finally:
            os._exit(0)
    stage.k3d.wait_held("edit:stopping")
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    other = stage.another()
    assert other._lock.is_busy()
    stage.k3d.release("edit:stopping")
    other.start()
    assert stage.k3d.overlaps() == 0
    assert is_whole(stage)
    assert ("127.0.0.1", port, 30081) in stage.k3d.ports(stage.balancer)

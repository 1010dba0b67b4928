"""How a task ends: order, patience, and that nothing of it is left, whatever it did to escape."""

from __future__ import annotations

import os
import signal
import time

import pytest
from tests.runtimes.world import (
    World,
    container,
    daemon,
    in_world,
    is_alive,
    of,
    python,
    sh,
    until,
)

from kecs.runtimes import watch


@in_world
async def test_a_container_has_its_stop_timeout_and_is_killed_then(world: World) -> None:
    """One that ignores the stop signal is killed after stopTimeout; one that takes its time may."""
    deaf = container("deaf", sh("trap '' TERM; echo on; sleep 600"), stop_timeout=0.3)
    slow = container("slow", sh("trap 'sleep 0.2; echo done; exit 5' TERM; while :; do sleep 0.01; done"))
    spec = await world.run(deaf, slow)
    await world.running(spec)
    await until(lambda: (world.folder(spec) / "deaf.log").stat().st_size)
    began = time.monotonic()
    last = await world.stop(spec)

    assert 0.3 <= time.monotonic() - began < 2
    assert (of(last, "deaf").exit_code, of(last, "slow").exit_code) == (137, 5)
    assert await world.log(spec, "slow") == b"done\n"


@pytest.mark.parametrize("deaf", [False, True])
def test_a_grandchild_that_made_itself_a_daemon_is_ended(deaf: bool) -> None:
    """Two forks and a session of its own do not take a process out of its task."""

    @in_world
    async def scenario(world: World) -> None:
        pid_file = world.home / "pid"
        command = sh(" ".join(f"'{word}'" for word in daemon(pid_file, deaf=deaf)) + "; exec sleep 600")
        spec = await world.run(container("app", command, stop_timeout=0.3))
        await until(pid_file.exists)
        grandchild = int(pid_file.read_text())
        assert os.getsid(grandchild) != of(await world.running(spec), "app").pid
        await world.stop(spec)

        assert not is_alive(grandchild)

    scenario()


@in_world
async def test_a_daemon_that_hides_its_environment_is_ended(world: World) -> None:
    """The shim is the reaper of all its descendants, even of those that no longer say whose they are."""
    pid_file = world.home / "pid"
    words = " ".join(f"'{word}'" for word in daemon(pid_file))
    spec = await world.run(container("app", sh(f"env -i {words}; exec sleep 600")))
    await until(pid_file.exists)
    grandchild = int(pid_file.read_text())
    await world.stop(spec)

    assert not is_alive(grandchild)


@in_world
async def test_the_end_of_the_main_process_ends_its_container(world: World) -> None:
    """As where process 1 of a container ends: what it leaves behind is killed at once."""
    pid_file = world.home / "pid"
    leaver = container("leaver", daemon(pid_file, deaf=True), essential=False)
    spec = await world.run(leaver, container("app", sh("exec sleep 600")))
    seen = await world.until(spec, lambda seen: seen.containers and of(seen, "leaver").status == "STOPPED")

    assert of(seen, "leaver").exit_code == 0
    await until(lambda: not is_alive(int(pid_file.read_text())))
    await world.stop(spec)


@in_world
async def test_a_shell_around_the_program_does_not_cost_its_grace(world: World) -> None:
    """The shell dies of the stop signal; the program below it is told too and has its time."""
    program = (
        "import signal, sys, time; signal.signal(15, lambda *_: (time.sleep(0.1), print('bye'), sys.exit()))"
    )
    words = " ".join(f'"{word}"' for word in python(f"{program}; print('on', flush=True); time.sleep(600)"))
    spec = await world.run(container("app", sh(f"{words}; true")))
    await until(lambda: (world.folder(spec) / "app.log").exists())
    await until(lambda: (world.folder(spec) / "app.log").read_bytes() == b"on\n")
    last = await world.stop(spec)

    assert await world.log(spec, "app") == b"on\nbye\n"
    assert of(last, "app").exit_code == 143


@in_world
async def test_an_essential_container_takes_the_others_with_it_in_reverse_order(world: World) -> None:
    """The others get the stop signal, those that are depended on last."""
    say = "trap 'sleep 0.05; date +%s%N; exit 0' TERM; while :; do sleep 0.01; done"
    base = container("base", sh(say))
    middle = container("middle", sh(say), depends_on=[{"container": "base", "condition": "START"}])
    top = container("top", sh(say), depends_on=[{"container": "middle", "condition": "START"}])
    app = container("app", sh("read x < fifo; exit 7"), working_directory=str(world.home))
    os.mkfifo(world.home / "fifo")
    spec = await world.run(base, middle, top, app)
    await world.running(spec)
    (world.home / "fifo").write_text("go\n")
    last = await world.ended(spec)

    assert of(last, "app").exit_code == 7
    ends = [int(await world.log(spec, name)) for name in ("top", "middle", "base")]
    assert ends == sorted(ends)
    assert all(of(last, name).exit_code == 0 for name in ("top", "middle", "base"))


@in_world
async def test_a_nonessential_container_ends_alone(world: World) -> None:
    """A task goes on without it, and ends with its last container."""
    one = container("one", sh("exit 4"), essential=False)
    spec = await world.run(one, container("two", sh("exec sleep 600")))
    seen = await world.until(spec, lambda seen: seen.containers and of(seen, "one").status == "STOPPED")
    assert (of(seen, "one").exit_code, of(seen, "two").status, seen.ended) == (4, "RUNNING", False)
    await world.stop(spec)

    spec = await world.run(one, container("two", sh("exit 0"), essential=False))
    assert of(await world.ended(spec), "two").exit_code == 0


@in_world
async def test_the_shim_stops_its_task_by_a_signal_too(world: World) -> None:
    """Without any control plane, SIGTERM to the shim stops the task in order."""
    spec = await world.run(container("app", sh("trap 'echo bye; exit 0' TERM; while :; do sleep 0.01; done")))
    await world.running(spec)
    os.kill(world.state(spec)["shim"]["pid"], signal.SIGTERM)

    assert of(await world.ended(spec), "app").exit_code == 0
    assert await world.log(spec, "app") == b"bye\n"


@in_world
async def test_a_shim_that_hangs_is_ended(world: World) -> None:
    """After stop timeout and margin the task is ended without its shim's help."""
    before, watch.STOP_MARGIN = watch.STOP_MARGIN, 0.2
    try:
        spec = await world.run(container("app", sh("exec sleep 600"), stop_timeout=0.1))
        await world.running(spec)
        os.kill(world.state(spec)["shim"]["pid"], signal.SIGSTOP)
        last = await world.stop(spec)
    finally:
        watch.STOP_MARGIN = before

    assert last.lost
    assert (of(last, "app").status, of(last, "app").exit_code) == ("STOPPED", None)

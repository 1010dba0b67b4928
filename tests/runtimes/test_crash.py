"""What is left after kill -9 of a shim, of a container, of a control plane; and who is never touched."""

from __future__ import annotations

import os
import signal
import subprocess
import time

import msgspec
import pytest
from tests.runtimes.world import (
    World,
    all_run,
    container,
    daemon,
    in_world,
    is_alive,
    of,
    sh,
    task,
    until,
    web,
)

from kecs.runtimes import link, process, watch


def rewrite(world: World, spec: object, **members: object) -> None:
    """Change members of a task's state file."""
    path = world.folder(spec) / "state.json"
    path.write_bytes(msgspec.json.encode(msgspec.json.decode(path.read_bytes()) | members))


@in_world
async def test_kill_9_of_the_shim_ends_the_task_within_two_seconds(world: World) -> None:
    """Its containers die with it, a daemon of theirs is swept, and what was seen stays honest."""
    pid_file = world.home / "pid"
    words = " ".join(f"'{word}'" for word in daemon(pid_file, deaf=True))
    first = container("first", sh("exit 3"), essential=False)
    spec = await world.run(first, container("app", sh(f"{words}; exec sleep 600")))
    await until(pid_file.exists)
    seen = await world.until(spec, lambda seen: of(seen, "first").exit_code == 3)
    began = time.monotonic()
    os.kill(world.state(spec)["shim"]["pid"], signal.SIGKILL)
    last = await world.ended(spec)

    assert time.monotonic() - began < 2
    assert not is_alive(int(pid_file.read_text()))
    assert not is_alive(of(seen, "app").pid)
    assert last.lost
    assert of(last, "first") == of(seen, "first")
    assert (of(last, "app").status, of(last, "app").exit_code) == ("STOPPED", None)
    assert "watched over it died" in of(last, "app").reason


@in_world
async def test_kill_9_of_a_container_is_its_exit(world: World) -> None:
    """It is told at once, with 137."""
    spec = await world.run(web(29931))
    seen = await world.running(spec)
    began = time.monotonic()
    os.kill(of(seen, "web").pid, signal.SIGKILL)
    last = await world.ended(spec)

    assert time.monotonic() - began < 1
    assert (of(last, "web").exit_code, of(last, "web").reason, last.lost) == (137, None, False)


@pytest.mark.parametrize("politely", [True, False])
def test_another_control_plane_finds_the_task_again(politely: bool) -> None:
    """The task goes on, its state is told again, and orders reach it."""

    @in_world
    async def scenario(world: World) -> None:
        spec = await world.run(web(29932))
        seen = await world.until(spec, lambda seen: seen.containers and of(seen, "web").listening)
        first, pump = world.runtime, world._pump
        if politely:
            await world.close()
        world.seen.clear()
        await world.open(spec.id)
        again = await world.until(spec, lambda _: True)
        assert again == seen

        assert of(await world.stop(spec), "web").exit_code == 143
        if not politely:
            await first.close()
            await pump

    scenario()


@in_world
async def test_a_task_that_ended_meanwhile_is_told_as_it_ended(world: World) -> None:
    """Its shim left the exit codes; nothing is lost."""
    spec = await world.run(container("app", sh("sleep 0.2; exit 6")))
    await world.running(spec)
    shim = world.state(spec)["shim"]
    await world.close()
    world.seen.clear()
    await until(lambda: not is_alive(shim["pid"]))
    await world.open(spec.id)
    last = await world.ended(spec)

    assert (of(last, "app").exit_code, last.lost) == (6, False)
    assert process.reap(shim["pid"])


@in_world
async def test_a_task_whose_shim_died_meanwhile_is_lost_and_swept(world: World) -> None:
    """Also after the death of everything: a daemon of the task, alive, is found by its environment."""
    pid_file = world.home / "pid"
    words = " ".join(f"'{word}'" for word in daemon(pid_file))
    spec = await world.run(container("app", sh(f"{words}; exec sleep 600")))
    await until(pid_file.exists)
    await world.running(spec)
    shim = world.state(spec)["shim"]["pid"]
    await world.close()
    os.kill(shim, signal.SIGKILL)
    os.waitpid(shim, 0)
    assert is_alive(int(pid_file.read_text()))
    world.seen.clear()
    await world.open(spec.id)

    assert (await world.ended(spec)).lost
    assert not is_alive(int(pid_file.read_text()))


@in_world
async def test_a_task_that_left_nothing_is_lost(world: World) -> None:
    """Its row was written and it was never run, or its folder is gone, or its file is garbage."""
    await world.close()
    never, garbage = "0" * 32, "1" * 32
    (world.paths.tasks / garbage).mkdir(mode=0o700)
    (world.paths.tasks / garbage / "state.json").write_text('{"version": 1, "task": tor')
    await world.open(never, garbage)

    await until(lambda: never in world.seen and garbage in world.seen)
    assert all(seen.lost and seen.ended for name in (never, garbage) for seen in world.seen[name])


@pytest.mark.parametrize(
    "stranger", ["another process", "a process of another task", "a process that started at another time"]
)
def test_a_process_that_is_not_the_tasks_is_never_touched(stranger: str) -> None:
    """A pid in a state file means nothing without start time, boot and the task's name."""

    @in_world
    async def scenario(world: World) -> None:
        spec = await world.run(container("app", ["true"]))
        await world.ended(spec)
        await world.close()
        environment = {"KECS_TASK_ARN": spec.arn + "0"} if stranger == "a process of another task" else {}
        other = subprocess.Popen(["sleep", "600"], env={"PATH": os.environ["PATH"], **environment})
        try:
            there = process.process(other.pid)
            start = "1" if stranger.endswith("another time") else there.start
            state = world.state(spec)
            task = state["task"] | {"ended": False}
            rewrite(world, spec, shim={"pid": other.pid, "start": start}, task=task)
            world.seen.clear()
            await world.open(spec.id)

            assert (await world.ended(spec)).lost
            assert is_alive(other.pid)
            await world.runtime.stop(spec.id)
            await world.runtime.forget(spec.id)
            assert is_alive(other.pid)
        finally:
            other.kill()
            other.wait()

    scenario()


@in_world
async def test_after_another_boot_nothing_is_touched(world: World) -> None:
    """Neither the pid of the file nor what seems to be named like the task: both are of another life."""
    spec = await world.run(container("app", sh("exec sleep 600")))
    await world.running(spec)
    await world.close()
    state = world.state(spec)
    rewrite(world, spec, bootId="of yesterday")
    world.seen.clear()
    await world.open(spec.id)

    assert (await world.ended(spec)).lost
    assert is_alive(state["processes"]["app"]["pid"])
    assert is_alive(state["shim"]["pid"])
    await world.close()
    rewrite(world, spec, bootId=state["bootId"])
    world.seen.clear()
    await world.open(spec.id)
    await world.stop(spec)


@in_world
async def test_what_nobody_expects_is_ended_and_its_folder_removed(world: World) -> None:
    """A living leftover is ended with all it has; folders of stopped tasks stay while they are kept."""
    alive = await world.run(container("app", sh("trap '' TERM; exec sleep 600")))
    kept = await world.run(container("app", ["true"]))
    gone = await world.run(container("app", ["true"]))
    await world.running(alive)
    await world.ended(kept)
    await world.ended(gone)
    await world.close()
    await world.open(keep=(kept.id,))

    await until(lambda: [folder.name for folder in world.paths.tasks.iterdir()] == [kept.id])
    assert world.left() == []


@in_world
async def test_a_hung_leftover_is_ended_all_the_same(world: World) -> None:
    """A shim that is stopped cannot obey, and is killed with all its processes."""
    spec = await world.run(container("app", sh("exec sleep 600")))
    await world.running(spec)
    os.kill(world.state(spec)["shim"]["pid"], signal.SIGSTOP)
    await world.close()
    before, watch._KILL_PATIENCE = watch._KILL_PATIENCE, 0.3
    try:
        await world.open(keep=())
        await until(lambda: not world.folder(spec).exists())
    finally:
        watch._KILL_PATIENCE = before
    assert world.left() == []


@in_world
async def test_a_hung_shim_is_told_from_its_file(world: World) -> None:
    """A control plane that starts gets its observation, though the shim says nothing."""
    spec = await world.run(container("app", sh("exec sleep 600")))
    await world.running(spec)
    shim = world.state(spec)["shim"]["pid"]
    os.kill(shim, signal.SIGSTOP)
    await world.close()
    world.seen.clear()
    await world.open(spec.id)
    assert all_run(await world.running(spec))
    os.kill(shim, signal.SIGCONT)
    await world.stop(spec)


@in_world
async def test_a_lost_connection_is_made_again(world: World) -> None:
    """A shim that lives is heard again after its connection broke."""
    spec = await world.run(container("app", sh("exec sleep 600")))
    await world.running(spec)
    world.runtime._watches[spec.id]._link.close()

    assert of(await world.stop(spec), "app").exit_code == 143


@in_world
async def test_a_shim_without_an_order_starts_nothing_and_goes(world: World) -> None:
    """A control plane that dies between the two leaves neither a process nor a state."""
    spec = task(container("app", ["true"]))
    folder = world.folder(spec)
    folder.mkdir(mode=0o700)
    shim, connected = await link.start(folder, spec.arn)
    report = await connected.hear()
    assert report is not None
    assert report.task is None
    assert world.state(spec)["shim"] == {"pid": shim.pid, "start": shim.start}  # found from now on
    connected.close()
    await link.exited(shim)

    assert [file.name for file in folder.iterdir()] == ["shim.err"]


@in_world
async def test_many_shims_killed_at_once(world: World) -> None:
    """All are lost within two seconds, by few looks at the machine's processes."""
    specs = [await world.run(container("app", sh("sleep 600; true"))) for _ in range(10)]
    for spec in specs:
        await world.running(spec)
    began = time.monotonic()
    for spec in specs:
        os.kill(world.state(spec)["shim"]["pid"], signal.SIGKILL)
    for spec in specs:
        assert (await world.ended(spec)).lost
    assert time.monotonic() - began < 2


@in_world
async def test_a_shim_that_cannot_start_fails_its_task(world: World) -> None:
    """Its own last words are the reason."""
    before = link._PROGRAM
    link._PROGRAM = "/no/such/shim.py"
    try:
        last = await world.ended(await world.run(container("app", ["true"])))
    finally:
        link._PROGRAM = before
    assert last.failure.startswith("ResourceInitializationError: ")
    assert "No such file or directory" in last.failure

"""A task from run to end: what a container gets, what is told of it, and why one does not start."""

from __future__ import annotations

import asyncio
import json
import os
import pwd
import time

import pytest
from tests.runtimes.world import World, all_run, container, in_world, of, python, sh, task, web

from kecs.aio import create_task

needs_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can run as somebody else")


@in_world
async def test_a_task_runs_listens_and_stops(world: World) -> None:
    """A container is RUNNING with its pid, listens where it was told to, and ends of the stop signal."""
    spec = await world.run(web(29911))

    seen = await world.until(spec, lambda seen: seen.containers and seen.containers[0].listening)
    assert of(seen, "web").status == "RUNNING"
    assert of(seen, "web").listening == [("127.0.0.1", 29911)]
    assert of(seen, "web").pid == world.state(spec)["processes"]["web"]["pid"]
    assert (of(seen, "web").runtime_id or "").startswith(spec.id)

    last = await world.stop(spec)
    assert (of(last, "web").status, of(last, "web").exit_code) == ("STOPPED", 143)
    assert of(last, "web").listening == []
    assert (last.lost, last.failure, last.port_taken) == (False, None, None)
    assert of(last, "web").finished_at >= of(last, "web").started_at


@in_world
async def test_starting_is_quick(world: World) -> None:
    """From run() to the program's own first instruction it takes well under 0.3 s, here 50 ms alone."""
    took = []
    for _ in range(5):  # the machine may be busy with others
        began = time.time()
        spec = await world.run(container("app", sh("date +%s.%N")))
        await world.ended(spec)
        took.append(float(await world.log(spec, "app")) - began)

    assert min(took) < 0.3


@in_world
async def test_a_container_gets_its_environment_and_nothing_else(world: World) -> None:
    """Kept variables, ECS's own, ports of all containers and the definition's, which win; no other."""
    app = container(
        "app",
        python("import json, os; print(json.dumps(dict(os.environ)))"),
        environment={"GREETING": "hej", "AWS_REGION": "mars", "KECS_TASK_ARN": "of another"},
        ports=[{"container_port": 80, "host_port": 29901, "name": "http-api"}],
    )
    other = container(
        "other", ["true"], essential=False, ports=[{"container_port": 9000, "host_port": 29902}]
    )
    spec = await world.run(app, other)
    await world.ended(spec)

    environment = json.loads(await world.log(spec, "app"))
    environment.pop("LC_CTYPE", None)  # Python's own (PEP 538)
    assert environment == {
        "PATH": os.environ["PATH"],
        "HOME": "/tmp",
        "LC_ALL": "C.UTF-8",
        "AWS_REGION": "mars",
        "AWS_DEFAULT_REGION": "eu-north-1",
        "GREETING": "hej",
        "KECS_TASK_ARN": spec.arn,
        "KECS_CONTAINER_NAME": "app",
        "PORT": "29901",
        "PORT_80": "29901",
        "PORT_HTTP_API": "29901",
        "PORT_9000": "29902",
    }


@in_world
async def test_a_container_is_a_clean_process(world: World) -> None:
    """Arguments as given, the instance's folder, umask 022, own session; no signal, no descriptor."""
    code = """
import json, os, signal, sys
ignored = [n for n in range(1, 32) if n not in (9, 19) and signal.getsignal(n) == signal.SIG_IGN]
umask = os.umask(0)
print(json.dumps([sys.argv[1:], os.getcwd(), umask, os.getsid(0) == os.getpid(), ignored,
                  sorted(os.listdir("/proc/self/fd")), sys.stdin.read(), os.readlink("/proc/self/fd/0")]))
sys.stdout.flush()
print("to error", file=sys.stderr)
"""
    spec = await world.run(container("app", ["ü", ""], entry_point=python(code, "a b")))
    await world.ended(spec)

    first, second = (await world.log(spec, "app")).splitlines()
    argv, cwd, umask, leads, ignored, descriptors, stdin, null = json.loads(first)
    assert (argv, cwd, umask, leads) == (["a b", "ü", ""], str(world.home), 0o022, True)
    assert ignored == [13, 25]  # Python itself: SIGPIPE and SIGXFSZ
    assert (descriptors, stdin, null) == (["0", "1", "2", "3"], "", "/dev/null")  # 3 is listdir's own
    assert second == b"to error"


@pytest.mark.parametrize(
    ("script", "code"), [("exit 3", 3), ("kill -9 $$", 137), ("kill -TERM $$", 143), ("true", 0)]
)
def test_exit_codes(script: str, code: int) -> None:
    """An exit code is the program's own, or 128 and the signal; no reason is invented."""

    @in_world
    async def scenario(world: World) -> None:
        last = await world.ended(await world.run(container("app", sh(script))))
        assert (of(last, "app").exit_code, of(last, "app").reason) == (code, None)
        assert (last.failure, last.lost) == (None, False)

    scenario()


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({"command": []}, "no command; the local runtime runs processes, not images; runtimes that run i"),
        ({"command": ["no-such-program"]}, 'exec: "no-such-program": executable file not found in $PATH'),
        ({"command": ["/no/such"]}, 'exec: "/no/such": no such file or directory'),
        ({"command": ["/etc/passwd"]}, 'exec: "/etc/passwd": permission denied'),
        ({"command": ["true"], "working_directory": "/no/such"},
         'cannot use the working directory "/no/such": no such file or directory'),
        ({"command": ["true"], "user": "nobody-like-this"}, 'there is no user "nobody-like-this"'),
        ({"command": ["true"], "user": "root:no-such-group"}, 'there is no group "no-such-group"'),
    ],
)  # fmt: skip
def test_why_a_container_cannot_start(members: dict, words: str) -> None:
    """Each cause is a CannotStartContainerError that names container and cause, and fails the task."""

    @in_world
    async def scenario(world: World) -> None:
        bystander = container("side", sh("sleep 600"))
        spec = await world.run(bystander, container("app", **members))
        last = await world.ended(spec)

        reason = of(last, "app").reason
        assert reason.startswith("CannotStartContainerError: container app")
        assert words in reason
        assert last.failure == reason
        assert (of(last, "app").exit_code, of(last, "app").started_at) == (None, None)
        assert of(last, "side").exit_code == 143

    scenario()


@in_world
async def test_a_script_whose_interpreter_is_missing_says_so(world: World) -> None:
    """The file is there, so "no such file" alone would mislead."""
    script = world.home / "script"
    script.write_text("#!/no/such/interpreter\n")
    script.chmod(0o755)
    last = await world.ended(await world.run(container("app", [str(script)])))

    assert "its interpreter does not exist" in of(last, "app").reason


@in_world
async def test_a_nonessential_container_that_cannot_start_does_not_end_the_task(world: World) -> None:
    """Only an essential container takes the task with it."""
    spec = await world.run(
        container("app", sh("sleep 600")), container("side", ["no-such-program"], essential=False)
    )
    seen = await world.until(
        spec, lambda seen: seen.containers and of(seen, "side").reason and of(seen, "app").status == "RUNNING"
    )
    assert (seen.ended, seen.failure) == (False, None)
    await world.stop(spec)


@needs_root
@in_world
async def test_a_container_runs_as_the_user_it_names(world: World) -> None:
    """Ids, groups and HOME are the user's; it may write to its own output by path."""
    nobody = pwd.getpwnam("nobody")
    command = sh("id -u; id -g; echo $HOME $USER; echo by path > /dev/stdout")
    spec = await world.run(container("app", command, user="nobody", working_directory="/"))
    await world.ended(spec)

    assert (await world.log(spec, "app")).decode().split("\n")[:4] == [
        str(nobody.pw_uid), str(nobody.pw_gid), f"{nobody.pw_dir} nobody", "by path",
    ]  # fmt: skip


@needs_root
@in_world
async def test_a_container_of_another_user_dies_with_its_shim(world: World) -> None:
    """The order to the kernel is given after the change of user, which would take it back."""
    spec = await world.run(container("app", sh("exec sleep 600"), user="65534:65534", working_directory="/"))
    await world.running(spec)
    os.kill(world.state(spec)["shim"]["pid"], 9)

    assert (await world.ended(spec)).lost


@in_world
async def test_run_is_idempotent_and_a_task_that_ended_can_be_run_anew(world: World) -> None:
    """The second run of a living task starts nothing; after its end the same id runs again."""
    spec = await world.run(container("app", sh("echo begun; exec sleep 600")))
    await world.running(spec)
    await world.runtime.run(spec)
    pid = world.state(spec)["shim"]["pid"]
    await world.stop(spec)
    assert (await world.log(spec, "app")) == b"begun\n"

    world.seen.clear()
    await world.runtime.run(spec)
    await world.running(spec)
    assert world.state(spec)["shim"]["pid"] != pid
    await world.stop(spec)


@in_world
async def test_stop_is_idempotent_even_for_unknown_tasks(world: World) -> None:
    """Whoever waits for an end hears of one."""
    unknown = task(container("app", ["true"]))
    await world.runtime.stop(unknown.id)
    assert (await world.ended(unknown)).lost

    spec = await world.run(container("app", sh("exec sleep 600")))
    await world.runtime.stop(spec.id)  # before it has even started
    await world.runtime.stop(spec.id)
    last = await world.ended(spec)
    assert of(last, "app").exit_code in (None, 143)
    assert not last.lost
    world.seen.clear()
    await world.runtime.stop(spec.id)
    assert await world.ended(spec) == last


@in_world
async def test_stop_at_any_moment_of_the_start(world: World) -> None:
    """However far the start has come, the task is stopped in order and not lost."""
    specs = []
    for number in range(8):
        spec = await world.run(container("app", sh("exec sleep 600")))
        specs.append(spec)
        asyncio.get_running_loop().call_later(
            0.01 * number, lambda spec=spec: create_task(world.runtime.stop(spec.id), name="stop")
        )
    for spec in specs:
        last = await world.ended(spec)
        assert (of(last, "app").status, last.lost, last.failure) == ("STOPPED", False, None)
        assert of(last, "app").exit_code == (143 if of(last, "app").started_at else None)


@in_world
async def test_forget_removes_the_folder(world: World) -> None:
    """What is kept of a task goes when it can no longer be described, the task itself too if it must."""
    ended = await world.run(container("app", ["true"]))
    await world.ended(ended)
    alive = await world.run(container("app", sh("trap '' TERM; sleep 600")))
    await world.running(alive)
    for spec in (ended, alive):
        assert world.folder(spec).is_dir()
        await world.runtime.forget(spec.id)
        assert not world.folder(spec).exists()
    assert world.left() == []


@in_world
async def test_a_folder_that_cannot_be_made_is_an_observation(world: World) -> None:
    """A failure to start the shim is no exception but the task's failure."""
    world.paths.tasks.rmdir()
    world.paths.tasks.write_text("in the way")
    spec = await world.run(container("app", ["true"]))

    last = await world.ended(spec)
    assert last.failure.startswith("ResourceInitializationError: the task's own process cannot be started")


@in_world
async def test_a_long_path_to_the_folder_does_not_matter(world: World) -> None:
    """The socket is bound and reached by a short name, wherever the instance is."""
    await world.close()
    world.paths = type(world.paths)(world.home / ("d" * 100) / ("e" * 100), "default")
    await world.open()
    spec = await world.run(container("app", sh("exec sleep 600")))
    await world.running(spec)
    await world.close()
    await world.open(spec.id)
    world.seen.clear()

    assert all_run(await world.running(spec))
    await world.stop(spec)


@in_world
async def test_twenty_tasks_at_once(world: World) -> None:
    """Many tasks start, listen and stop side by side."""
    specs = [await world.run(web(29800 + number)) for number in range(20)]
    for spec in specs:
        await world.until(spec, lambda seen: seen.containers and seen.containers[0].listening)
    for spec in specs:
        await world.runtime.stop(spec.id)
    for spec in specs:
        assert of(await world.ended(spec), "web").exit_code == 143

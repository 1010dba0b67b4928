"""A place where tests run real tasks: a temporary instance, its runtime, and what the runtime has said."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import os
import shutil
import sys
import tempfile
import time
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec

from kecs import aio
from kecs.paths import InstancePaths
from kecs.runtimes import sweep
from kecs.runtimes.base import ContainerObserved, ContainerSpec, PortSpec, TaskObserved, TaskSpec
from kecs.runtimes.local import LocalRuntime

ENVIRONMENT = {"PATH": os.environ["PATH"], "HOME": "/tmp", "LC_ALL": "C.UTF-8", "SECRET_OF_THE_SHELL": "no"}
PYTHON = getattr(sys, "_base_executable", sys.executable)
DEADLINE = 10.0

SERVER = """
import os, socket, sys, signal
listener = socket.create_server((sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1", int(os.environ["PORT"])))
while True:
    listener.accept()[0].close()
"""
"""Listens on PORT of an address until it is ended."""

DAEMON = """
import os, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        with open(sys.argv[1] + ".new", "w") as file:
            file.write(str(os.getpid()))
        os.rename(sys.argv[1] + ".new", sys.argv[1])
        {deaf}
        time.sleep(600)
    os._exit(0)
os.wait()
"""
"""Leaves a process behind that made itself a daemon and writes its pid to a file."""


def python(code: str, *arguments: str) -> list[str]:
    """Return the command that runs Python code, started quickly."""
    return [PYTHON, "-I", "-S", "-c", code, *arguments]


def daemon(pid_file: Path, *, deaf: bool = False) -> list[str]:
    """Return the command of a program that leaves a daemon behind; a deaf one ignores SIGTERM."""
    ignore = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)"
    return python(DAEMON.format(deaf=ignore if deaf else "pass"), str(pid_file))


def sh(script: str) -> list[str]:
    """Return the command that runs a shell script."""
    return ["/bin/sh", "-c", script]


def container(name: str, command: list[str], **members: object) -> ContainerSpec:
    """Return a container that runs `command`."""
    return msgspec.convert(
        {"name": name, "image": "none", "command": command, "stop_timeout": 5.0, **members}, ContainerSpec
    )


def web(port: int, *arguments: str, **members: object) -> ContainerSpec:
    """Return a container that listens on `port`."""
    ports = [PortSpec(container_port=80, host_port=port, name="http")]
    return container("web", python(SERVER, *arguments), ports=msgspec.to_builtins(ports), **members)


def task(*containers: ContainerSpec, **members: object) -> TaskSpec:
    """Return a task with a random id."""
    task_id = uuid.uuid4().hex
    arn = f"arn:aws:ecs:eu-north-1:123456789012:task/blue/{task_id}"
    return TaskSpec(
        id=task_id, arn=arn, region="eu-north-1", cluster="blue", family="f", revision=1,
        containers=list(containers), **members,
    )  # fmt: skip


def is_alive(pid: int) -> bool:
    """Tell whether a process exists and has not ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


async def until(condition: Callable[[], object], what: str = "", seconds: float = DEADLINE) -> None:
    """Wait until `condition` holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what or inspect.getsource(condition)}"
        await asyncio.sleep(0.005)


class World:
    """One instance; several runtimes may come and go, as control planes do."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.paths = InstancePaths(home, "default")
        self.seen: dict[str, list[TaskObserved]] = {}
        self.arns: set[str] = set()
        self.runtime: LocalRuntime | None = None
        self._pump: asyncio.Task[None] | None = None

    async def open(self, *expected: str, keep: tuple[str, ...] | None = None) -> LocalRuntime:
        """Begin with a runtime of its own, as a control plane that starts."""
        runtime = self.runtime = LocalRuntime(self.paths, environment=ENVIRONMENT, directory=str(self.home))
        await runtime.open(expected, keep)
        self._pump = aio.create_task(self._take(runtime), name="observations")
        return runtime

    async def close(self) -> None:
        """Let go, as a control plane that leaves."""
        if self.runtime is not None and self._pump is not None:
            await self.runtime.close()
            await self._pump
            self.runtime = self._pump = None

    async def run(self, *containers: ContainerSpec) -> TaskSpec:
        """Run a task."""
        spec = task(*containers)
        self.arns.add(spec.arn)
        assert self.runtime is not None
        await self.runtime.run(spec)
        return spec

    async def stop(self, spec: TaskSpec) -> TaskObserved:
        """Stop a task and return its last observation."""
        assert self.runtime is not None
        await self.runtime.stop(spec.id)
        return await self.ended(spec)

    async def ended(self, spec: TaskSpec) -> TaskObserved:
        """Wait for the last observation of a task."""
        return await self.until(spec, lambda seen: seen.ended)

    async def until(
        self, spec: TaskSpec, condition: Callable[[TaskObserved], object], seconds: float = DEADLINE
    ) -> TaskObserved:
        """Wait until the newest observation of a task satisfies `condition`."""

        def holds() -> bool:
            return bool(self.seen.get(spec.id)) and bool(condition(self.seen[spec.id][-1]))

        try:
            await until(holds, "observation", seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}; seen: {self.seen.get(spec.id, [])[-3:]}") from None
        return self.seen[spec.id][-1]

    async def running(self, spec: TaskSpec) -> TaskObserved:
        """Wait until all containers of a task run."""
        return await self.until(spec, lambda seen: seen.containers and all_run(seen))

    def folder(self, spec: TaskSpec) -> Path:
        """Return the task's folder."""
        return self.paths.tasks / spec.id

    def state(self, spec: TaskSpec) -> dict:
        """Return what the task's shim has written."""
        return msgspec.json.decode((self.folder(spec) / "state.json").read_bytes())

    async def log(self, spec: TaskSpec, name: str) -> bytes:
        """Return all that a container wrote."""
        assert self.runtime is not None
        return b"".join([chunk async for chunk in self.runtime.logs(spec.id, name, follow=False)])

    def left(self) -> list[int]:
        """Return the processes of this world's tasks that are alive."""
        return [one.pid for one in sweep.find(lambda arn: arn in self.arns)]

    async def _take(self, runtime: LocalRuntime) -> None:
        async for seen in runtime.observations():
            self.seen.setdefault(seen.task_id, []).append(seen)


def all_run(seen: TaskObserved) -> bool:
    return all(one.status == "RUNNING" for one in seen.containers)


def of(seen: TaskObserved, name: str) -> ContainerObserved:
    """Return one container of an observation."""
    return next(one for one in seen.containers if one.name == name)


def in_world(test: Callable[[World], Awaitable[None]]) -> Callable[[], None]:
    """Make a test of an `async def` that takes a `World`; it must leave no process and no descriptor."""

    @functools.wraps(test)
    def run() -> None:
        home = Path(tempfile.mkdtemp(dir="/tmp", prefix="kecs-"))
        descriptors = set(Path("/proc/self/fd").iterdir())
        world = World(home)

        async def scenario() -> None:
            try:
                await world.open()
                await test(world)
            finally:
                await world.close()

        try:
            asyncio.run(scenario())
            assert world.left() == []
            assert set(Path("/proc/self/fd").iterdir()) <= descriptors
            with contextlib.suppress(ChildProcessError):
                raise AssertionError(f"a child is left: {os.waitpid(-1, os.WNOHANG)}")
        finally:
            asyncio.run(sweep.end(lambda arn: arn in world.arns))
            with contextlib.suppress(ChildProcessError):
                while os.waitpid(-1, 0):
                    pass
            shutil.rmtree(home)

    del run.__wrapped__  # pytest would look for a fixture called `world`
    return run

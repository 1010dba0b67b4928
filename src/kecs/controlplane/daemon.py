"""The control plane as a process: the one place where its parts are put together.

Life: lock, database, port, serve, *ready*, take the tasks up; then either leave quietly at SIGTERM (tasks go
on, the next process adopts them) or, told so by `POST /_kecs/shutdown`, end every local task, and those on
k3d, and leave. What runs on somebody's cluster stays there.
`python -m kecs.controlplane` calls `main`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import resource
import signal
import time
import uuid
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from pathlib import Path

from kecs import __version__, aio, files, log
from kecs.client import instance as instances
from kecs.client.admin_types import Status, StopProgress
from kecs.client.instance import Instance
from kecs.client.wake import Wake
from kecs.controlplane.admin import build_admin
from kecs.controlplane.agent_watch import AgentWatch
from kecs.controlplane.cluster import choose
from kecs.controlplane.controller import ADOPTION, Controller
from kecs.controlplane.ecs_model import EcsModel
from kecs.controlplane.http import App, Receive, Scope, Send, Servers, build_api
from kecs.controlplane.hub import Hub
from kecs.controlplane.retention import retain
from kecs.controlplane.shutdown import SILENT, Shutdown, stop_tasks, stop_tasks_of
from kecs.controlplane.start_up import (
    bind_api,
    contexts,
    environments_of,
    free_ports,
    named_ports,
    traits_of,
)
from kecs.controlplane.task_logs import TaskLogs
from kecs.controlplane.task_ports import TaskPorts, can_bind
from kecs.ecs import deployments, kept_ports, urls
from kecs.ecs.model import Cluster, Service, Task
from kecs.ecs.state import State
from kecs.errors import KecsError
from kecs.net import listener, unix
from kecs.paths import InstancePaths, check_instance_name
from kecs.store.ecs import Store
from kecs.wire import awsjson

AGENT_RETURNS_WITHIN = 1.5
"""Seconds that a planned stop waits, after our start, for an agent that followed the process before us."""
KNOWN_WITHIN = 20.0
"""Seconds for the cluster of an instance on k3d to say which one it is, where nobody is served."""

_log = logging.getLogger(__name__)


class Daemon:
    """The parts of one running control plane, and the answers that need several of them."""

    def __init__(self, paths: InstancePaths, instance: Instance, store: Store, *, plans: bool = True) -> None:
        """With `plans` False no service gets tasks: what is there is only to be stopped."""
        self.paths = paths
        self.instance = instance
        self.region = instance.region
        self.started_at = time.time()
        self.store = store
        named = named_ports(paths)
        self.context = contexts(instance, free_ports(named))
        chosen = choose(paths, instance)
        self.runtime, self.cluster = chosen.runtime, chosen.cluster
        self._rouse = chosen.rouse
        self.hub = Hub(store.state, traits_of(instance))
        self.logs = TaskLogs(lambda: store.state, self.runtime)
        self.controller = Controller(
            store,
            self.runtime,
            self.hub,
            ports=TaskPorts(listener.TASK_PORTS, can_bind, named),
            environments=environments_of(
                paths, lambda task: urls.urls_of(store.state, task, traits_of(instance))
            ),
            context=self.context,
            exposes=chosen.exposes,
            images=chosen.images,
            plans=plans,
        )
        self.agent = _watch_agent(paths, self.hub, lambda: urls.are_told(store.state))
        self.leaving = asyncio.Event()
        self.taken_up = asyncio.Event()
        """The controller knows the tasks."""
        self._shutdown = Shutdown(self.end_tasks, self._leave)

    @property
    def state(self) -> State:
        """The committed state."""
        return self.store.state

    @property
    def is_stopping(self) -> bool:
        """Tell whether `shutdown` was called."""
        return self._shutdown.is_begun

    async def take_up(self) -> None:
        """Take the tasks up, and let the agent know the endpoints."""
        self.store.subscribe(self.logs.on_commit)
        self.store.subscribe(self.agent.on_commit)
        await self._know_the_cluster()
        await self.store.transact(lambda tx: kept_ports.settle_all(tx, self.context))
        await self.controller.open()
        self._open_hub()
        self.taken_up.set()

    async def work(self) -> None:
        """Take the tasks up, then forget what is old, for ever. Raises `KecsError` when they cannot be."""
        await self.take_up()
        await retain(self.store, self.runtime, time.time)

    async def awoke(self, _seconds: float) -> None:
        """Ask the cluster what has become of it while this machine slept."""
        self._rouse()

    async def _know_the_cluster(self) -> None:
        """Return once the cluster has said that it is the right one; while it is silent, forwards go on."""
        if self.cluster is None:
            return
        knowing = aio.create_task(self.cluster.known(), name="identity of the cluster")
        try:
            await asyncio.wait({knowing}, timeout=ADOPTION)
            if not knowing.done():
                self.controller.follow()
                self._open_hub()
            await knowing
        finally:
            await aio.cancel(knowing)

    def _open_hub(self) -> None:
        due = asyncio.get_running_loop().time() + AGENT_RETURNS_WITHIN if self.agent.lives() else 0.0
        self.hub.open(agent_due=due)

    def status(self) -> Status:
        """Say how it is."""
        tasks = self.state.scan(Task)
        running, pending = deployments.counts(tasks)
        return Status(
            version=__version__,
            pid=os.getpid(),
            instance=self.instance.name,
            instance_id=self.instance.id,
            runtime=self.instance.runtime,
            region=self.region,
            api_port=self.instance.api_port,
            started_at=self.started_at,
            clusters=sum(row.status == "ACTIVE" for row in self.state.scan(Cluster)),
            services=sum(row.status == "ACTIVE" for row in self.state.scan(Service)),
            tasks_running=running,
            tasks_pending=pending,
            memory=resident_bytes(),
            agent=self.agent.status(),
            cluster=self.cluster.status(self.state) if self.cluster is not None else None,
        )

    def held(self, task: Task) -> str | None:
        """Return what a task waits for before it is started, and how far that is; None: for nothing."""
        return self.controller.held(task)

    def troubles(self, row: Service | Task) -> list[str]:
        """Return what keeps a service or a task from being as wanted and no row tells, a sentence each."""
        found = [self.cluster.trouble()] if self.cluster is not None else []
        return [each for each in (*found, *self.controller.troubles(row)) if each is not None]

    def begin_stop(self) -> None:
        """Begin to end every task and then this process, unless that was begun before."""
        self._shutdown.begin()

    def shutdown(self) -> AsyncIterator[StopProgress]:
        """End every task, then this process; the last line comes when the socket is gone."""
        return self._shutdown.lines()

    async def end_tasks(self) -> AsyncIterator[str]:
        """End every task that does not outlive its instance; yield what a person may like to know of it."""
        if self.cluster is None:
            await self.taken_up.wait()
            async for text in stop_tasks(self.controller):
                yield text
        elif self.instance.k3d is not None:
            async for text in stop_tasks_of(self.cluster, self.taken_up, self.controller):
                yield text
        # On somebody's cluster pods stay, and the next process takes them up.

    def _leave(self) -> None:
        remove_traces(self.paths)
        self.leaving.set()


async def serve(paths: InstancePaths, instance: Instance, ready_fd: int | None) -> None:
    """Run the control plane until it is told to leave. Raises `KecsError` when it cannot begin."""
    leaving = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, leaving.set)
    async with contextlib.AsyncExitStack() as stack:
        stack.callback(remove_traces, paths)
        files.write_atomic(paths.controlplane_pid, f"{os.getpid()}\n".encode())
        instance, api_sockets = bind_api(paths, instance)
        for each in api_sockets:
            stack.callback(each.close)
        store = await Store.open(paths.database)
        stack.push_async_callback(store.close)
        daemon = Daemon(paths, instance, store)
        daemon.leaving = leaving
        stack.push_async_callback(daemon.runtime.close)
        model = EcsModel()
        api = _Gate(build_api(store, model, instance, daemon.context), daemon)
        servers = Servers(api, api_sockets, build_admin(daemon), unix.bind_private(paths.controlplane_socket))
        stack.push_async_callback(servers.stop)
        stack.callback(daemon.hub.close)
        await servers.start()
        model.start()
        _tell_ready(ready_fd)
        _log.info("ready: http://127.0.0.1:%d", instance.api_port, extra={"pid": os.getpid()})
        stack.push_async_callback(daemon.controller.close)
        work = aio.create_task(daemon.work(), name="work of the control plane")
        stack.push_async_callback(aio.cancel, work)
        watching = aio.create_task(daemon.agent.run(), name="watch of the agent")
        stack.push_async_callback(aio.cancel, watching)
        waking = aio.create_task(Wake(daemon.awoke).watch(), name="notice a sleep")
        stack.push_async_callback(aio.cancel, waking)
        if instances.require(paths).desired == "stopped":
            # Said while we were starting, by one who could not reach us: nobody else will tell us.
            daemon.begin_stop()
        await first_of((work, watching, waking), leaving, daemon.controller.failed)
        if daemon.controller.failed.is_set():
            raise KecsError("a part of the control plane failed", f"see `{paths.controlplane_log}`")
        _log.info("leaving%s", "" if daemon.is_stopping else ": tasks go on")


async def first_of(tasks: Collection[asyncio.Task[None]], *events: asyncio.Event) -> None:
    """Return when one of the events is set. Raises what a task raised: none of them ends by itself."""
    waiting = [aio.create_task(event.wait(), name="end of the control plane") for event in events]
    try:
        await asyncio.wait({*tasks, *waiting}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await aio.cancel(*waiting)
    for task in tasks:
        if task.done():
            task.result()


async def stop_without_api(paths: InstancePaths, instance: Instance) -> None:
    """End what a control plane that died has left running; nobody is served."""
    async with contextlib.AsyncExitStack() as stack:
        try:
            store = await Store.open(paths.database)
        except KecsError as error:
            # The next start says so to a person. Nothing survives a stop, whatever became of the rows.
            _log.error("ending all tasks without their rows: %s", error.message)
            await _end_every_task(paths, instance)
            return
        stack.push_async_callback(store.close)
        daemon = Daemon(paths, instance, store, plans=False)
        stack.push_async_callback(daemon.runtime.close)
        stack.push_async_callback(daemon.controller.close)
        if daemon.cluster is not None:
            try:
                async with asyncio.timeout(KNOWN_WITHIN):
                    await daemon.cluster.known()
            except TimeoutError:
                _log.warning("%s", SILENT)
                return
        await daemon.controller.open()
        daemon.taken_up.set()
        async for text in daemon.end_tasks():
            _log.info("%s", text)


async def _end_every_task(paths: InstancePaths, instance: Instance) -> None:
    """End all that a runtime finds of this instance's tasks; their folders stay."""
    if instance.k3d is not None:
        return  # the cluster is stopped next
    runtime = choose(paths, instance).runtime
    try:
        await runtime.open((), keep=None)
        await runtime.settled()
    finally:
        await runtime.close()


class _Gate:
    """Lets requests through to the API until the instance is being stopped."""

    def __init__(self, api: App, daemon: Daemon) -> None:
        self._api = api
        self._daemon = daemon

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not self._daemon.is_stopping:
            await self._api(scope, receive, send)
            return
        answer = awsjson.error(
            str(uuid.uuid4()), "ServiceUnavailableException", "The instance is being stopped.", 503
        )
        headers = [(name.encode(), value.encode()) for name, value in answer.headers]
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await send({"type": "http.response.body", "body": answer.body})


def _watch_agent(paths: InstancePaths, hub: Hub, told: Callable[[], bool]) -> AgentWatch:
    from kecs.client.agent import is_up
    from kecs.client.lifetime import has_forwards
    from kecs.client.supervise import Supervisor

    def wanted() -> bool:
        try:
            instance = instances.read(paths)
            wished = instance is not None and instance.desired == instance.agent == "running"
            return wished and (told() or has_forwards(paths))
        except KecsError as error:
            _log.warning("cannot tell whether the agent is wanted: %s", error.message)
            return False

    def lives() -> bool:
        return is_up(str(paths.agent_socket))

    return AgentWatch(hub, Supervisor(paths, "agent"), wanted, lives, told)


def remove_traces(paths: InstancePaths) -> None:
    """Remove socket and pid file; the lock keeps them ours until this process ends."""
    paths.controlplane_socket.unlink(missing_ok=True)
    paths.controlplane_pid.unlink(missing_ok=True)


def resident_bytes() -> int:
    """Return this process's resident memory."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        # The most it ever had; bytes on macOS.
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return pages * resource.getpagesize()


def _tell_ready(descriptor: int | None) -> None:
    if descriptor is not None:
        with contextlib.suppress(BrokenPipeError):
            os.write(descriptor, b"ready\n")
        os.close(descriptor)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the control plane of an instance; return the process's exit code."""
    parser = argparse.ArgumentParser(prog="kecs.controlplane", description="The control plane of KECS.")
    parser.add_argument("--home", required=True, type=Path)
    parser.add_argument("--instance", required=True, type=check_instance_name)
    parser.add_argument("--ready-fd", type=int)
    parser.add_argument(
        "--stop", action="store_true", help="end the tasks of a dead control plane, then exit"
    )
    options = parser.parse_args(arguments)
    paths = InstancePaths(options.home, options.instance)
    if options.ready_fd is not None:
        os.set_inheritable(options.ready_fd, False)
    try:
        return _run(paths, options.ready_fd, stop=options.stop)
    except KecsError as error:
        _log.error("%s", error.message, extra={"hint": error.hint})
        return int(error.exit_code)
    except Exception:  # noqa: BLE001 - the top of the process: who started it reads the last words
        _log.exception("the control plane failed")
        return 1


def _run(paths: InstancePaths, ready_fd: int | None, *, stop: bool) -> int:
    log.set_up(paths.controlplane_log)
    for library in ("uvicorn.error", "httpx2", "httpcore2"):
        logging.getLogger(library).setLevel(logging.WARNING)
    lock = files.try_lock(paths.controlplane_lock)
    if lock is None:
        return 0
    instance = instances.require(paths)
    if stop:
        if instance.kubernetes is None or instance.k3d is not None:  # else pods stay
            asyncio.run(stop_without_api(paths, instance))
    elif instance.desired == "running":
        asyncio.run(serve(paths, instance, ready_fd))
    return 0

"""The agent's one composition root: what it is made of, how it begins, how it leaves.

`python -m kecs.agent` calls `main`. Order of the beginning: lock, relay loop, listeners, socket, `ready`;
of the end: socket, relay loop, files, lock. Whoever hears the answer to `agent.shutdown` can start another
at once.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import resource
import signal
import sys
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kecs import __version__, aio, files, log
from kecs.agent.kept import KeptPorts
from kecs.agent.manager import Manager
from kecs.agent.names import NamesPort
from kecs.agent.notifier import Notifier
from kecs.agent.prober import Prober
from kecs.agent.relay import Relay
from kecs.agent.resolver import Resolver
from kecs.agent.rpc import Caller, Method, RpcServer
from kecs.agent.runner import Runner
from kecs.agent.tunnels import Tunnels, opener
from kecs.client import instance as instances
from kecs.client import metrics_address, watch
from kecs.client import rpc_types as rpc
from kecs.client.agent import is_up
from kecs.client.endpoints import EndpointsLine
from kecs.client.instance import Instance
from kecs.client.supervise import Supervisor
from kecs.client.wake import Wake
from kecs.errors import ExitCode, KecsError
from kecs.forward.machine import State
from kecs.net import messages, unix
from kecs.paths import InstancePaths, check_instance_name

if TYPE_CHECKING:
    from kecs.agent.metrics_door import MetricsDoor

DESCRIPTORS = 65536
"""Open files asked for: each connection needs two, 1,024 may be held for each forward."""
LOCK_WAIT = 3.0
"""Seconds to wait for the lock while nobody listens: its holder is leaving, beginning, or only looking."""

_log = logging.getLogger("kecs.agent")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the agent until it is told to leave; return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m kecs.agent")
    parser.add_argument("--home", required=True, type=Path)
    parser.add_argument("--instance", required=True)
    parser.add_argument("--ready-fd", type=int)
    options = parser.parse_args(arguments)
    try:
        paths = InstancePaths(options.home.absolute(), check_instance_name(options.instance))
        return _run(paths, options.ready_fd)
    except KecsError as error:
        _log_to_standard_error()
        _log.error("%s", error.message, extra={"hint": error.hint, "exit_code": int(error.exit_code)})
        return int(error.exit_code)
    except Exception:  # noqa: BLE001 - the top of the process
        _log_to_standard_error()
        _log.critical("the agent failed", exc_info=True)
        return 1


def _run(paths: InstancePaths, ready: int | None) -> int:
    if ready is not None:
        os.set_inheritable(ready, False)
    address = paths.agent_socket
    files.make_private_folder(paths.forward_logs)
    try:
        log.set_up(paths.agent_log)
    except OSError as error:
        raise files.unusable(paths.agent_log, error) from error
    logging.raiseExceptions = False  # a full disk must not fill standard error instead
    lock = _take_lock(paths)
    if lock is None:
        _log.info("another agent runs already")
        return 0
    with contextlib.ExitStack() as release:
        release.callback(os.close, lock)
        instance = instances.require(paths)
        if instance.desired == "stopped":
            _log.info("the instance is stopped: no agent is wanted")
            return 0
        if instance.agent == "stopped":
            raise KecsError(
                "the agent was stopped by a person",
                "start it by `kecs port-forward agent restart`",
                ExitCode.UNREACHABLE,
            )
        _allow_many_descriptors()
        return asyncio.run(Agent(paths, instance, release).run(address, ready))


class Agent:
    """One agent at work."""

    def __init__(self, paths: InstancePaths, instance: Instance, lock: contextlib.ExitStack) -> None:
        """`lock` is closed to release the lock."""
        self._paths = paths
        self._instance = instance
        self._lock = lock
        self._started_at = time.time()
        self._tasks: list[asyncio.Task[None]] = []
        self._closed = False

    async def run(self, address: Path, ready: int | None) -> int:
        """Serve until told to leave (0) or until something that must not end has ended (1)."""
        self._leave = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self._leave.set)
        self._relay = Relay()
        self._tunnels = Tunnels(self._relay, opener(self._instance), self._tunnels_changed)
        self._notifier = Notifier(self._paths.name)
        self._manager = Manager(
            self._paths, self._instance, self._relay, self._ask, self._tunnels, [self._state_changed]
        )
        self._prober = Prober(self._relay, self._tunnels, self._health_changed)
        self._resolver = Resolver(
            self._paths,
            self._relay,
            self._manager.runners,
            Supervisor(self._paths, "controlplane"),
            prober=self._prober,
        )
        self._manager.attach(self._resolver)
        self._names = NamesPort(
            self._manager, self._instance.region, self._relay, self._resolver.picture, self._tunnels
        )
        self._resolver.also(self._names)
        self._kept = KeptPorts(self._relay, self._resolver.picture)
        self._resolver.also(self._kept)
        self._manager.applier.names = self._names
        self._metrics = self._metrics_door()
        self._connect()
        self._relay.start()
        try:
            self._manager.restore()
            self._names.restore()
            files.write_atomic(self._paths.agent_pid, f"{os.getpid()}\n".encode())
            if self._metrics is not None:
                await self._metrics.open()
            self._server = RpcServer(unix.bind_private(address), self._methods())
            await self._server.start()
            _log.info("agent %s is ready with %d forwards", __version__, len(self._manager.runners))
            if ready is not None:
                _say_ready(ready)
            try:
                return await self._wait_for_the_end()
            finally:
                await self._close()
                await self._server.close()
        finally:
            await self._close()

    def _connect(self) -> None:
        """Say who hears which of the relay loop's messages."""
        relay, manager, resolver = self._relay, self._manager, self._resolver
        relay.on(messages.Seen, resolver.on_seen)
        relay.on(messages.Drained, resolver.on_drained)
        relay.on(messages.Refused, manager.handler(Runner.refused))
        relay.on(messages.Waiting, self._waiting)
        relay.on(messages.Opened, manager.handler(Runner.opened))
        relay.on(messages.Ended, manager.handler(Runner.ended))
        relay.on(messages.CarrierLost, self._tunnels.lost)
        relay.on(messages.Congested, self._tunnels.congested)

    def _metrics_door(self) -> MetricsDoor | None:
        if self._instance.metrics_address is None:
            return None
        from kecs.agent.metrics import Metrics  # late: most agents serve none
        from kecs.agent.metrics_door import MetricsDoor

        metrics = Metrics(
            self._paths.name,
            self._relay,
            self._manager.runners,
            [lambda: self._names.named, lambda: self._kept.named],
            is_connected=lambda: self._resolver.status == "connected",
            resident=resident_bytes,
        )
        return MetricsDoor(metrics_address.parse(self._instance.metrics_address), metrics.page)

    def _waiting(self, message: messages.Waiting) -> None:
        self._manager.handler(Runner.waiting)(message)
        self._names.waiting(message)

    def _tunnels_changed(self, forwards: Collection[str]) -> None:
        self._manager.tunnels_changed(forwards)

    async def _wait_for_the_end(self) -> int:
        leave = aio.create_task(self._wait_for_leave(), name="wait for the word to leave")
        self._tasks = [
            aio.create_task(self._resolver.follow(), name="follow the endpoints"),
            aio.create_task(self._resolver.tell(), name="answer the control plane"),
            aio.create_task(Wake(self._awoke).watch(), name="notice a sleep"),
        ]
        fateful: set[asyncio.Future[Any]] = {*self._tasks, leave, self._relay.died}
        await asyncio.wait(fateful, return_when=asyncio.FIRST_COMPLETED)
        if self._closed:
            await leave  # `agent.shutdown` ended the tasks; it says when its answer is sent
        if leave.done():
            return 0
        if self._relay.died.done():
            _log.critical("the relay loop ended: %s", self._relay.died.result())
        await aio.cancel(leave)
        return 1

    def _state_changed(self, runner: Runner, before: State, after: State, reason: str | None) -> None:
        if runner.id in self._manager.runners:
            self._notifier.changed(runner.entry, before, after, reason)
        else:
            self._notifier.forget(runner.id)  # a person stopped it

    def _health_changed(self, forward: str) -> None:
        self._resolver.again(forward)

    async def _awoke(self, _seconds: float) -> None:
        """Check everything: the machine has slept."""
        self._relay.send(messages.Awake())
        self._tunnels.hurry()
        self._prober.ask_now()
        for runner in list(self._manager.runners.values()):
            runner.retry()
        try:
            self._resolver.learn(await self._ask())
        except KecsError as error:  # the stream of endpoints notices the same
            _log.warning("after a sleep: %s", error.message)

    async def _wait_for_leave(self) -> None:
        await self._leave.wait()

    async def _close(self) -> None:
        """Leave so that nothing of this agent is in another's way; once."""
        if self._closed:
            return
        self._closed = True
        with contextlib.suppress(OSError):
            self._paths.agent_socket.unlink()
        await aio.cancel(*self._tasks)
        await self._manager.end_tasks()
        if self._metrics is not None:
            await self._metrics.close()
        await self._prober.close()
        await self._notifier.close()
        await self._tunnels.close()
        self._relay.send(messages.Stop())
        self._relay.join()
        self._manager.close()
        self._names.leave()
        self._kept.leave()
        with contextlib.suppress(OSError):
            self._paths.agent_pid.unlink()
        self._lock.close()
        _log.info("agent left")

    async def _ask(self) -> EndpointsLine:
        return await watch.await_endpoints(self._paths)

    # Methods of the RPC

    def _methods(self) -> dict[str, Method]:
        manager = self._manager
        return {
            "agent.hello": self._hello,
            "agent.status": self._status,
            "agent.shutdown": self._shutdown,
            "forward.start": lambda request, _: manager.start(request),
            "forward.stop": lambda request, _: manager.stop(request),
            "forward.list": lambda _request, _: manager.rows(),
            "forward.get": lambda request, _: manager.get(request.forward),
            "forward.watch": self._watch,
            "forward.apply": lambda request, _: manager.applier.apply(request),
            "forward.down": lambda request, _: manager.applier.down(request),
            "forward.subscribe": self._subscribe,
            "forward.history": lambda request, _: manager.history(request.forward),
            "forward.export": lambda _request, _: manager.export(),
            "names.open": self._open_names,
            "names.close": self._close_names,
        }

    async def _hello(self, _request: rpc.Empty, _caller: Caller) -> rpc.Hello:
        return rpc.Hello(
            version=__version__,
            pid=os.getpid(),
            instance=self._paths.name,
            instance_id=self._instance.id,
        )

    async def _status(self, _request: rpc.Empty, _caller: Caller) -> rpc.AgentStatus:
        door = self._metrics
        return rpc.AgentStatus(
            version=__version__,
            pid=os.getpid(),
            started_at=self._started_at,
            forwards=len(self._manager.runners),
            controlplane=self._resolver.status,
            memory=resident_bytes(),
            warnings=[*self._manager.warnings, *self._names.warnings, *(door.warnings if door else ())],
            names_port=self._names.port,
            metrics=door.url if door else None,
        )

    async def _open_names(self, request: rpc.NamesRequest, _caller: Caller) -> rpc.NamesReply:
        return rpc.NamesReply(port=self._names.open(request.owner))

    async def _close_names(self, request: rpc.NamesRequest, _caller: Caller) -> rpc.NamesReply:
        port = self._names.close(request.owner)
        await self._relay.stats()  # the port is free when the person hears of it
        return rpc.NamesReply(port=port)

    async def _shutdown(self, _request: rpc.Empty, caller: Caller) -> rpc.Empty:
        self._server.refuse_more()
        await self._close()
        caller.on_answered.callback(self._leave.set)
        return rpc.Empty()

    async def _watch(self, request: rpc.GetRequest, caller: Caller) -> rpc.ForwardRow:
        def tell(event: rpc.ConnectionEvent) -> None:
            caller.notify("forward.event", event)

        row, leave = self._manager.watch(request.forward, tell)
        caller.on_leave.callback(leave)
        return row

    async def _subscribe(self, _request: rpc.Empty, caller: Caller) -> rpc.ForwardRows:
        def tell(news: rpc.ForwardsChanged) -> None:
            caller.notify("forward.changed", news)

        rows, leave = await self._manager.subscribe(tell)
        caller.on_leave.callback(leave)
        return rows


def _log_to_standard_error() -> None:
    """Where the log could not be opened: `kecs.client.launch` reads it there."""
    root = logging.getLogger()
    if not root.handlers:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(log.JsonFormatter())
        root.addHandler(handler)


def resident_bytes() -> int:
    """Return the memory of this process that is really there."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, IndexError):
        # The most it ever had, in kB; in bytes on macOS (getrusage(2) of each).
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == "darwin" else most * 1024
    return pages * resource.getpagesize()


def _take_lock(paths: InstancePaths) -> int | None:
    """Take the agent's lock; None when an agent holds it that answers, or will.

    One that does not may be leaving, or be a command that only looks whether it can have the lock.
    """
    end = time.monotonic() + LOCK_WAIT
    while (lock := files.try_lock(paths.agent_lock)) is None:
        if is_up(str(paths.agent_socket)) or time.monotonic() > end:
            return None
        time.sleep(0.02)
    return lock


def _say_ready(descriptor: int) -> None:
    with contextlib.suppress(OSError):  # whoever started us may be gone
        os.write(descriptor, b"ready\n")
    os.close(descriptor)


def _allow_many_descriptors() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(DESCRIPTORS, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))

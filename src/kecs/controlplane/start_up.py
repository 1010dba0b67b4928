"""What the daemon decides before it serves: which port the API gets, what its instance asks for."""

from __future__ import annotations

import socket
import time
import uuid
from collections.abc import Callable, Mapping

import msgspec

from kecs.client import instance as instances
from kecs.client import ports, secrets
from kecs.client.instance import Instance
from kecs.controlplane.environment import MissingResourceError, environment_of
from kecs.controlplane.specs import override_of
from kecs.controlplane.task_flow import Environments
from kecs.controlplane.task_ports import can_bind
from kecs.ecs import node_ports
from kecs.ecs.context import Context, Knobs, RuntimeTraits
from kecs.ecs.model import Task, TaskDefinition
from kecs.errors import ExitCode, KecsError
from kecs.net import listener
from kecs.paths import InstancePaths, instance_flag

FIRST_API_PORT = 5373
"""The port of the first instance; another one gets the next that is free."""
API_PORTS = range(FIRST_API_PORT, FIRST_API_PORT + 1000)
API_ADDRESSES = ("127.0.0.1",)
"""Where the API listens: its URL is `http://127.0.0.1:PORT`."""
NAMED_FOR = 2.0
"""Seconds for which the ports that instances and forwards name are not read again."""


def bind_api(paths: InstancePaths, instance: Instance) -> tuple[Instance, tuple[socket.socket, ...]]:
    """Bind the API's port; one that had to be chosen is written to `instance.yaml` first of all.

    Raises `KecsError` (exit 4) when a stranger has the instance's own port.
    """
    if instance.api_port:
        try:
            return instance, listener.bind(API_ADDRESSES, instance.api_port)
        except listener.PortTaken as error:
            raise KecsError(
                f"the instance's port {instance.api_port} is taken"
                + (f" by {error.holder}" if error.holder else ""),
                "end that program, or give the instance another port: "
                f"`kecs start{instance_flag(paths.name)} --port N`",
                ExitCode.CONFLICT,
            ) from error
    avoid = ports.named_ports(paths.home, None)
    chosen, sockets = listener.bind_chosen(API_ADDRESSES, API_PORTS, avoid)
    changed = instances.change(paths, lambda now: msgspec.structs.replace(now, api_port=chosen))
    return changed, sockets


def knobs_of(instance: Instance) -> Knobs:
    """Return the times that the instance was started with."""
    known = instance.knobs
    default = Knobs()
    return Knobs(
        healthy_after=known.get("healthyAfter", default.healthy_after),
        ready_timeout=known.get("readyTimeout", default.ready_timeout),
        drain=known.get("drain", default.drain),
        time_scale=known.get("timeScale", default.time_scale),
    )


def traits_of(instance: Instance) -> RuntimeTraits:
    """Return what operations must know of the instance's runtime."""
    pods = instance.runtime != "local"
    return RuntimeTraits(
        name=instance.runtime,
        instance=instance.name,
        instance_id=instance.id,
        node_ports=node_ports.parse(instance.node_ports or node_ports.DEFAULT_RANGE) if pods else None,
        published=node_ports.parse(instance.published) if pods and instance.published else None,
        published_by=f"k3d-{instance.k3d.cluster}-server-0" if instance.k3d is not None else None,
    )


def contexts(
    instance: Instance, free_port: Callable[[set[int]], int | None] | None = None
) -> Callable[[str], Context]:
    """Return what makes the context of one call in a region, now; `free_port` is of use on `local` only."""
    knobs, traits = knobs_of(instance), traits_of(instance)

    def context(region: str) -> Context:
        return Context(
            region=region,
            now=time.time(),
            new_id=lambda: uuid.uuid4().hex,
            runtime=traits,
            knobs=knobs,
            free_port=None if traits.runs_pods else free_port,
        )

    return context


def free_ports(named: Callable[[], set[int]]) -> Callable[[set[int]], int | None]:
    """Return what finds a port that nobody has: not of those it is given, nor of those `named`.

    It is bound and released at once (`task_ports.can_bind`), which waits for nothing.
    """

    def find(avoid: set[int]) -> int | None:
        avoid = avoid | named()
        return next((port for port in listener.KEPT_PORTS if port not in avoid and can_bind(port)), None)

    return find


def environments_of(
    paths: InstancePaths, urls: Callable[[Task], Mapping[str, str]] = lambda _: {}
) -> Environments:
    """Return what resolves the variables of a task's containers from this instance's files.

    `urls` are those of other services (`kecs.ecs.urls`); what the definition says goes before.
    """

    def resolve(task: Task, definition: TaskDefinition) -> Mapping[str, Mapping[str, str]]:
        containers = definition.definition.get("containerDefinitions", [])
        values: dict[str, str] = {}
        if any(container.get("secrets") for container in containers):
            try:
                values = secrets.load(paths)
            except KecsError as error:
                raise MissingResourceError(
                    f"ResourceInitializationError: unable to pull secrets or registry auth: {error.message}"
                ) from error
        return {
            container["name"]: {
                **urls(task),
                **environment_of(
                    container, override_of(task, container["name"]), secrets=values, s3=paths.s3
                ),
            }
            for container in containers
        }

    return resolve


def named_ports(paths: InstancePaths) -> Callable[[], set[int]]:
    """Return what tells which ports instances and forwards name; it reads their files at most every 2 s."""
    known: set[int] = set()
    read_at = -NAMED_FOR

    def named() -> set[int]:
        nonlocal known, read_at
        if time.monotonic() - read_at >= NAMED_FOR:
            known = ports.named_ports(paths.home, None)
            read_at = time.monotonic()
        return known

    return named

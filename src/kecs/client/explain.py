"""Gathering what `kecs explain` tells: the control plane's answer, forwards, and what happened to them.

Used by `kecs.cli.explain`. A control plane that died is brought back, as by every command that needs it; an
agent is never started. What cannot be asked becomes a sentence of the explanation of a forward, not an error.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import msgspec

from kecs import files
from kecs.client import explain_forward, forward_log, launch
from kecs.client import instance as instances
from kecs.client.admin_types import Explain
from kecs.client.agent import AgentClient, NotRunning
from kecs.client.controlplane import ControlPlaneClient
from kecs.client.explain_forward import Forward, Publication, Surroundings
from kecs.errors import ExitCode, KecsError
from kecs.paths import InstancePaths

TIMEOUT = 5.0
"""Seconds that a daemon has to answer; one that hangs is a fact to be told."""
Note = Callable[[str], None]


def explain_target(
    paths: InstancePaths, kind: str, cluster: str, name: str, region: str | None, note: Note
) -> Explain:
    """Explain a `service` or a `task`, with the forwards that lead to it.

    Raises `KecsError` (exit 3) when there is none, (exit 5) when the control plane cannot be asked.
    """
    answer = launch.ensure_controlplane(paths, note).explain(kind, cluster, name, region)
    forwards = [one for one in _forwards(paths)[0] if _leads_to(one, answer)]
    if not forwards:
        opens = [answer.opens] if answer.opens else []
        return msgspec.structs.replace(answer, advice=[*answer.advice, *opens], opens=None)
    timeline = list(answer.timeline)
    for one in forwards:
        timeline += _events(paths, one)
    told = [
        f"forward {one.name} ({one.url} -> {one.target}) {explain_forward.standing(one)}" for one in forwards
    ]
    unwell = [one for one in forwards if one.state != "ACTIVE"]
    advice = [f"`kecs explain forward {one.name}` says why that forward does not serve" for one in unwell]
    return msgspec.structs.replace(
        answer,
        facts=[*answer.facts, *told],
        advice=[*answer.advice, *advice],
        timeline=sorted(timeline, key=lambda event: event.time),
        opens=None,
    )


def explain_a_forward(paths: InstancePaths, name: str, note: Note) -> Explain:
    """Explain a forward by its name or id.

    Raises `KecsError` (exit 3) when there is none, (exit 5) when the instance is stopped.
    """
    launch.require_running(paths)
    forwards, agent = _forwards(paths)
    it = next((one for one in forwards if name in (one.name, one.id)), None)
    if it is None:
        raise _unknown(name, forwards)
    around = Surroundings(agent=agent, events=tuple(_events(paths, it)))
    try:
        target = _ask(launch.ensure_controlplane(paths, note), it)
    except KecsError as error:
        if explain_forward.is_missing(error):
            around = replace(around, missing=error)
        else:
            around = replace(around, controlplane=error)
    else:
        around = replace(around, target=target)
    return explain_forward.explain(it, replace(around, publication=_publication(paths, it)))


def _ask(client: ControlPlaneClient, it: Forward) -> Explain:
    """Ask about what a forward leads to."""
    client.timeout = TIMEOUT
    if it.service is not None:
        return client.explain("service", it.cluster, it.service, it.region)
    if it.tags and it.task_id is None:
        return client.explain("tags", it.cluster, json.dumps(dict(it.tags)), it.region)
    return client.explain("task", it.cluster, it.task_id or "", it.region)


def _publication(paths: InstancePaths, it: Forward) -> Publication | None:
    """Ask Docker for the published port of a forward."""
    if it.publish is None or it.service is None:
        return None
    from kecs.client import k3d, published
    from kecs.k3d.balancer import Balancer

    instance = instances.require(paths)
    try:
        published.check(it.publish, instance)
        targets = ControlPlaneClient(paths, TIMEOUT).endpoints().targets
        balancer = Balancer(k3d.cluster_of(paths, k3d.tools_of(instance, os.environ)))
        there = {one.host_port: one.node_port for one in balancer.mappings()}
    except KecsError as error:
        return Publication(trouble=error)
    wanted = published.node_port_of(targets, it.region, it.cluster, it.service, it.target_port)
    return Publication(leads_to=there.get(it.publish), node_port=wanted)


def _forwards(paths: InstancePaths) -> tuple[list[Forward], KecsError | None]:
    """Return the forwards as the agent tells of them, else as its file does and why the agent does not."""
    try:
        with AgentClient(paths, TIMEOUT) as agent:
            rows: list[dict[str, Any]] = agent.ask("forward.list")["forwards"]
    except KecsError as error:
        # That it does not run is what a forward without a state says already.
        why = None if isinstance(error, NotRunning) else error
        return _kept(paths), why
    return [explain_forward.forward(row) for row in rows], None


def _kept(paths: InstancePaths) -> list[Forward]:
    """Return the forwards of `config.yaml`."""
    try:
        document = files.read_yaml(paths.forwards_config, version=1) or {}
        return [explain_forward.forward(entry) for entry in document.get("forwards") or []]
    except (files.Unreadable, KeyError, TypeError, AttributeError):
        return []  # the agent moves it aside and says so when it starts


def _events(paths: InstancePaths, it: Forward) -> list[Any]:
    # An earlier forward of the same name wrote to the same file. The log's clock is coarser than created_at.
    log = paths.forward_logs / f"{it.name}.log"
    return list(forward_log.read(log, f"forward {it.name}", since=it.created_at - 1.0))


def _leads_to(it: Forward, answer: Explain) -> bool:
    """Tell whether a forward leads to the service or task of `answer`."""
    if (it.region, it.cluster) != (answer.region, answer.cluster):
        return False
    if answer.task_id is None:
        return it.service == answer.service
    return answer.task_id in (it.task_id, *it.endpoints)


def _unknown(name: str, forwards: list[Forward]) -> KecsError:
    known = ", ".join(f"`{one.name}`" for one in forwards[:5])
    return KecsError(
        f"there is no forward `{name}`",
        f"there is {known}" if known else "`kecs port-forward start` makes one",
        ExitCode.NOT_FOUND,
    )

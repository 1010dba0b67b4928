"""Checks of ports: that of the ECS API, and those that forwards keep."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from kecs import files
from kecs.client.agent import AgentClient, is_up
from kecs.client.controlplane import ControlPlaneClient
from kecs.client.doctor.finding import Finding, error, ok, warning
from kecs.client.doctor.machine import Known, Machine
from kecs.errors import KecsError
from kecs.paths import instance_flag

FIRST_API_PORT = 5373
"""What a first `kecs start` takes when it is free (kecs.controlplane.start_up)."""
TIMEOUT = 3.0


def check_api_ports(machine: Machine) -> Iterator[Finding]:
    """Look whether the API's port of each instance is free, or its own."""
    found = [finding for known in machine.instances for finding in _api_port(machine, known)]
    if not machine.instances and (holder := machine.holder(FIRST_API_PORT)) is not None:
        found.append(
            warning(
                "API port",
                f"port {FIRST_API_PORT} is taken by {holder}",
                "nothing has to be done: `kecs start` chooses another port and keeps it",
            )
        )
    yield from found or [ok("API port", f"port {FIRST_API_PORT} is free for `kecs start`")]


def _api_port(machine: Machine, known: Known) -> Iterator[Finding]:
    it = known.instance
    if it is None or not it.api_port:
        return
    try:
        if ControlPlaneClient(known.paths, TIMEOUT).status().api_port == it.api_port:
            yield ok("API port", f"the instance `{it.name}` answers on port {it.api_port}")
            return
    except KecsError:
        pass  # stopped, or in trouble of which `check_daemons` tells
    holder = machine.holder(it.api_port)
    if holder is None:
        yield ok("API port", f"port {it.api_port} of the instance `{it.name}` is free")
    elif not is_up(str(known.paths.controlplane_socket)):
        flag = instance_flag(it.name)
        yield error(
            "API port",
            f"port {it.api_port} of the instance `{it.name}` is taken by {holder}",
            f"stop what holds it, or choose another port: `kecs start{flag} --port N`",
        )


def check_kept_ports(machine: Machine) -> Iterator[Finding]:
    """Look whether the ports that forwards keep are free, or their own."""
    found: list[Finding] = []
    kept = 0
    for known in machine.instances:
        try:
            ports = _kept(known)
        except KecsError as why:
            found.append(error("kept ports", why.message, why.hint or "restore it"))
            continue
        kept += len(ports)
        failed = _failed(known)
        if failed is not None:
            found += failed
            continue
        for (port, udp), name in ports.items():
            if (holder := (machine.holder_of_udp if udp else machine.holder)(port)) is not None:
                which = f"UDP port {port}" if udp else f"port {port}"
                found.append(
                    error(
                        "kept ports",
                        f"{which} of {name} in the instance `{known.paths.name}` is taken by {holder}",
                        "stop what holds it: the forward never moves to another port by itself",
                    )
                )
    yield from found or [ok("kept ports", f"{kept} ports are kept for forwards, and no stranger has one")]


def _kept(known: Known) -> dict[tuple[int, bool], str]:
    """Return the ports of `config.yaml`, and whether they are UDP's, with the names of their forwards."""
    document: dict[str, Any] = files.read_yaml(known.paths.forwards_config, version=1) or {}
    found: dict[tuple[int, bool], str] = {}
    for entry in document.get("forwards") or []:
        if isinstance(entry, dict) and isinstance(entry.get("localPort"), int) and not entry.get("ended"):
            found[entry["localPort"], entry.get("protocol") == "udp"] = f"the forward `{entry.get('name')}`"
    names = document.get("names")
    if isinstance(names, dict) and names.get("owners") and isinstance(names.get("localPort"), int):
        found[names["localPort"], False] = "the names"
    return found


def _failed(known: Known) -> list[Finding] | None:
    """Return what an agent that runs says of ports that it could not get; None when none tells."""
    try:
        with AgentClient(known.paths, TIMEOUT) as agent:
            rows: list[dict[str, Any]] = agent.ask("forward.list")["forwards"]
    except KecsError:
        return None
    return [
        error(
            "kept ports",
            f"the forward `{row['name']}` of `{known.paths.name}` does not listen: {row['reason']}",
            f"`kecs explain forward {row['name']}` says what to do",
        )
        for row in rows
        if row["state"] == "FAILED"
    ]

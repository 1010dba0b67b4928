"""Checks of the daemons: that those run that should, answer, and are of this version."""

from __future__ import annotations

from collections.abc import Iterator

from kecs import __version__
from kecs.client import launch
from kecs.client.agent import AgentClient, NotRunning
from kecs.client.controlplane import ControlPlaneClient
from kecs.client.doctor.finding import Finding, error, not_used, ok, warning
from kecs.client.doctor.machine import Known, Machine
from kecs.client.instance import Instance
from kecs.client.lifetime import has_forwards
from kecs.errors import KecsError
from kecs.paths import instance_flag

TIMEOUT = 3.0
"""Seconds that a daemon has to answer. One that is busy takes some milliseconds."""


def check_daemons(machine: Machine) -> Iterator[Finding]:
    """Look at the daemons of each instance."""
    nothing = True
    for known in machine.instances:
        if known.instance is not None:
            nothing = False
            yield from _of(known, known.instance)
    if nothing:
        yield not_used("daemons", "there is no instance yet: `kecs start` makes one")


def _of(known: Known, it: Instance) -> Iterator[Finding]:
    paths, name = known.paths, it.name
    if it.desired != "running":
        if launch.is_locked(paths.controlplane_lock) or launch.is_locked(paths.agent_lock):
            yield error(
                "daemons",
                f"a daemon of the instance `{name}` runs although it was stopped",
                f"`kecs stop{instance_flag(name)}` ends it",
            )
        else:
            yield ok("daemons", f"the instance `{name}` is stopped, and nothing of it runs")
        return
    found = [*_controlplane(known, it), *_agent(known, it)]
    yield from found or [ok("daemons", f"the daemons of the instance `{name}` answer")]


def _controlplane(known: Known, it: Instance) -> Iterator[Finding]:
    try:
        answer = ControlPlaneClient(known.paths, TIMEOUT).status()
    except NotRunning:
        yield error(
            "daemons",
            f"the control plane of the instance `{it.name}` does not run",
            f"`kecs status{instance_flag(it.name)}` starts it again, or says why not; its log: "
            f"`{known.paths.controlplane_log}`",
        )
        return
    except KecsError as why:
        yield error("daemons", f"instance `{it.name}`: {why.message}", why.hint or "run `kecs status`")
        return
    if answer.version != __version__:
        yield warning(
            "daemons",
            f"the control plane of `{it.name}` is of KECS {answer.version}, this is {__version__}",
            f"`kecs stop{instance_flag(it.name)}`, then `kecs start{instance_flag(it.name)}`",
        )
    for text in answer.warnings:
        yield warning("daemons", text, f"`kecs status{instance_flag(it.name)}` shows it until it is mended")
    if answer.cluster is not None and not answer.cluster.connected:
        yield error(
            "daemons",
            f"the instance `{it.name}` does not reach its cluster: {answer.cluster.detail}",
            f"`kubectl --context {answer.cluster.context} get nodes` shows whether you do",
        )


def _agent(known: Known, it: Instance) -> Iterator[Finding]:
    restart = f"`kecs port-forward agent restart{instance_flag(it.name)}`"
    try:
        with AgentClient(known.paths, TIMEOUT) as agent:
            version = str(agent.ask("agent.hello").get("version"))
    except NotRunning:
        if _is_wanted(known, it):
            yield error("daemons", f"the agent of the instance `{it.name}` does not run", restart)
        return
    except KecsError as why:
        yield error("daemons", f"instance `{it.name}`: {why.message}", why.hint or restart)
        return
    if version != __version__:
        yield warning(
            "daemons",
            f"the agent of `{it.name}` is of KECS {version}, this is {__version__}",
            f"{restart} replaces it, on the same ports",
        )


def _is_wanted(known: Known, it: Instance) -> bool:
    try:
        return it.agent == "running" and has_forwards(known.paths)
    except KecsError:
        return True  # a newer version wrote the file: `check_kept_ports` says so

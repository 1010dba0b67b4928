"""`kecs status` and `kecs list`: how one instance is, and which there are."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from kecs.cli import output as out
from kecs.cli.commands import command, pass_session, rows_option
from kecs.cli.session import Session
from kecs.errors import ExitCode, KecsError

if TYPE_CHECKING:
    from kecs.client.admin_types import ClusterStatus, Status
    from kecs.client.instance import Instance, K3d, Kubernetes
    from kecs.client.k3d import State
    from kecs.paths import InstancePaths


@command("status")
@rows_option("json", "yaml")
@pass_session
def status(session: Session, output: str | None) -> int:
    """Show how the instance is. Exit code 0: it runs, 5: it does not, 3: there is none.

    One that should run and whose control plane has died is brought back first. On k3d the states of the
    cluster's nodes are shown.
    """
    from kecs.client import instance as instances
    from kecs.client import launch

    instance = instances.require(session.paths)
    k3d = _look(session, instance) if instance.k3d is not None else None
    if instance.desired != "running":
        if output:
            out.document(_row(instance, "stopped", k3d), output)
        else:
            out.line(f"{instance.name}  stopped")
        session.note(f"start it by {session.command('start')}")
        return ExitCode.UNREACHABLE
    answer = launch.ensure_controlplane(session.paths, session.note).status()
    for warning in _warnings(answer):
        session.warn(warning)
    agent = _agent(session.paths)
    if output:
        document = (
            _row(instances.require(session.paths), "running", k3d) | _details(answer) | {"agentStatus": agent}
        )
        out.document(document, output)
    else:
        _print(answer, agent, k3d)
    return ExitCode.DONE


@command("list")
@rows_option("json", "yaml")
@pass_session
def list_instances(session: Session, output: str | None) -> None:
    """List the instances of this KECS_HOME. Starts nothing."""
    from kecs.client import instance as instances

    settings = session.settings
    rows = []
    for name in instances.names(settings.paths("default")):
        paths = settings.paths(name)
        try:
            instance = instances.read(paths)
        except KecsError as error:
            session.warn(error.message)
            continue
        if instance is not None:
            rows.append(_row(instance, _state(paths, instance)))
    if output:
        out.document(rows, output)
    elif rows:
        cells = [
            (row["name"], row["state"], row["runtime"], row["region"], row["api"] or "-") for row in rows
        ]
        out.table(("NAME", "STATE", "RUNTIME", "REGION", "API"), cells)
    else:
        session.note(f"there is no instance in `{settings.home}`; create one by `kecs start`")


def _state(paths: InstancePaths, instance: Instance) -> str:
    from kecs.client.agent import is_up

    if instance.desired == "stopped":
        return "stopped"
    return "running" if is_up(str(paths.controlplane_socket)) else "crashed"


def _look(session: Session, instance: Instance) -> State:
    """Return how the instance's own cluster is, and warn where that is not as it should be."""
    import os

    from kecs.client import k3d

    found = k3d.look(session.paths, instance, os.environ)
    running = instance.desired == "running"
    if k3d.never_was(instance):
        session.warn(f"its first start was interrupted: {session.command('start')} begins anew")
    elif running and found.state != "running":
        repair = f"; {session.command('start')} puts that right" if found.state != "unknown" else ""
        session.warn(f"its cluster `{found.cluster}` is {found.state}: {found.detail}{repair}")
    elif not running and found.state not in ("stopped", "absent", "unknown"):
        session.warn(f"its cluster `{found.cluster}` is {found.state}: {session.command('stop')} stops it")
    return found


def _row(instance: Instance, state: str, k3d: State | None = None) -> dict[str, Any]:
    return {
        "name": instance.name,
        "id": instance.id,
        "state": state,
        "runtime": instance.runtime,
        "region": instance.region,
        "apiPort": instance.api_port,
        "api": f"http://127.0.0.1:{instance.api_port}" if instance.api_port else None,
        "requireKey": instance.require_key,
        "directory": instance.directory,
        "createdAt": instance.created_at,
        "auto": instance.auto,
        "kubernetes": _plain(instance.kubernetes),
        "k3d": _of_k3d(instance.k3d, k3d),
        "nodePorts": instance.node_ports,
        "published": instance.published,
    }


def _plain(chosen: Kubernetes | None) -> dict[str, str] | None:
    if chosen is None:
        return None
    return {
        "kubeconfig": chosen.kubeconfig,
        "context": chosen.context,
        "clusterUid": chosen.cluster_uid,
    }


def _of_k3d(chosen: K3d | None, found: State | None) -> dict[str, Any] | None:
    """Return what was chosen of a cluster of k3d, and how it is where that was looked at."""
    if chosen is None:
        return None
    import msgspec

    plain: dict[str, Any] = msgspec.to_builtins(chosen)
    del plain["docker"]  # DOCKER_* may hold what is nobody's business
    return plain | (msgspec.to_builtins(found) if found is not None else {})


def _details(answer: Status) -> dict[str, Any]:
    import msgspec

    plain: dict[str, Any] = msgspec.to_builtins(answer)
    return {name: value for name, value in plain.items() if name not in ("instance", "instanceId")}


def _warnings(answer: Status) -> list[str]:
    from kecs import __version__

    found = list(answer.warnings)
    if answer.version != __version__:
        found.append(
            f"the control plane is of KECS {answer.version}, this is {__version__}: "
            "`kecs stop`, then `kecs start`"
        )
    return found


def _agent(paths: InstancePaths) -> dict[str, Any] | None:
    """Return what the agent says of itself; None when none runs."""
    from kecs.client.agent import AgentClient, NotRunning, WentAway

    with AgentClient(paths) as agent:
        try:
            answer: dict[str, Any] = agent.ask("agent.status")
        except (NotRunning, WentAway):
            return None
        except KecsError as error:  # it hangs: reported, not killed (docs/design/contracts.md, 5)
            return {"error": error.message}
    return answer


def _print(answer: Status, agent: dict[str, Any] | None, k3d: State | None) -> None:
    if agent is None:
        about = answer.agent.state
    elif "error" in agent:
        about = agent["error"]
    else:
        about = (
            f"{answer.agent.state}  pid {agent['pid']}  forwards {agent['forwards']}  "
            f"{out.size(agent['memory'])}  up {out.ago(agent['startedAt'])}"
        )
    if answer.agent.detail:
        about += f"  ({answer.agent.detail})"
    tasks = f"tasks {answer.tasks_running} running, {answer.tasks_pending} pending"
    uptime = f"{out.size(answer.memory)}  up {out.ago(answer.started_at)}"
    rows = [
        ("instance", f"{answer.instance}  running  runtime {answer.runtime}  region {answer.region}"),
        ("api", f"http://127.0.0.1:{answer.api_port}"),
        ("ecs", f"clusters {answer.clusters}  services {answer.services}  {tasks}"),
        ("control plane", f"pid {answer.pid}  {uptime}  version {answer.version}"),
        ("agent", about),
    ]
    if agent is not None and agent.get("namesPort"):
        rows.append(("names", f"http://SERVICE.CLUSTER.localhost:{agent['namesPort']}/"))
    if answer.cluster is not None:
        rows.insert(1, ("cluster", _cluster(answer.cluster)))
    if k3d is not None:
        rows.insert(1, ("k3d", f"{k3d.cluster}  {k3d.state}  {out.clean(k3d.detail)}"))
    for name, text in rows:
        out.line(f"{name:<14} {text}")


def _cluster(cluster: ClusterStatus) -> str:
    if cluster.connected:
        how = f"connected  {cluster.nodes_ready} of {cluster.nodes} nodes ready"
    elif cluster.lost_at is not None:
        since = time.strftime("%H:%M:%S", time.localtime(cluster.lost_at))
        how = f"unreachable since {since} ({out.ago(cluster.lost_at)}): {cluster.detail}"
    else:
        how = "connecting"
    return f"{cluster.context}  {cluster.server}  {out.clean(how)}"

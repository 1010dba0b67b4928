"""`kecs ps`: services and tasks, their ports, and the forwards and names that reach them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from kecs.cli import output as out
from kecs.cli.commands import command, pass_session, rows_option
from kecs.cli.session import Session
from kecs.errors import KecsError
from kecs.forward.ports import port_text

if TYPE_CHECKING:
    from kecs.client.admin_types import Ps, PsPort, PsService, PsTask
    from kecs.paths import InstancePaths

SHORT_ID = 8
"""Digits of a task id in the table; as many name a task in every command."""


@command("ps")
@click.option("--stopped", is_flag=True, help="Show tasks that have stopped too.")
@rows_option("wide", "json", "yaml")
@pass_session
def ps(session: Session, stopped: bool, output: str | None) -> None:
    """List services and tasks: status, whether they are public, ports, and the forwards that reach them."""
    from kecs.client import launch

    answer = launch.ensure_controlplane(session.paths, session.note).ps(stopped=stopped)
    rows, names_port = reached(session.paths)
    joined = join(answer, rows)
    if names_port is not None:
        joined = named(joined, names_port, _region(session.paths))
    if output in ("json", "yaml"):
        import msgspec

        out.document(msgspec.to_builtins(joined), output)
        return
    if not joined.services and not joined.tasks:
        session.note("there is no service and no task")
    if joined.services:
        print_services(joined, wide=output == "wide")
    if joined.tasks:
        if joined.services:
            out.line("")
        print_tasks(joined, wide=output == "wide")


def reached(paths: InstancePaths) -> tuple[list[dict[str, Any]], int | None]:
    """Return the agent's rows and the port of names; nothing without an agent: none is started for it."""
    from kecs.client.agent import AgentClient

    with AgentClient(paths) as agent:
        try:
            rows: list[dict[str, Any]] = agent.ask("forward.list")["forwards"]
            names_port: int | None = agent.ask("agent.status").get("namesPort")
        except KecsError:
            return [], None
    return [row for row in rows if row["state"] not in ("FAILED", "ENDED")], names_port


def named(answer: Ps, port: int, here: str) -> Ps:
    """Write into each public service its URL by name; `here` is the region of the instance."""
    import msgspec

    from kecs.client.names import url_of

    services = [
        msgspec.structs.replace(one, url=url_of(one.service, one.cluster, one.region, here, port))
        if one.public
        else one
        for one in answer.services
    ]
    return msgspec.structs.replace(answer, services=services)


def _region(paths: InstancePaths) -> str:
    from kecs.client import instance as instances

    return instances.require(paths).region


def join(answer: Ps, rows: list[dict[str, Any]]) -> Ps:
    """Write into each service and each port which forwards reach it, as `127.0.0.1:PORT`."""
    import msgspec

    replace = msgspec.structs.replace
    services = [
        replace(one, forwards=[_listed(row) for row in rows if _is_of(row, one)]) for one in answer.services
    ]
    tasks = [
        replace(task, ports=[replace(port, forward=_forward_to(task, port, rows)) for port in task.ports])
        for task in answer.tasks
    ]
    return replace(answer, services=services, tasks=tasks)


def local(row: dict[str, Any]) -> str:
    """Return where a forward listens."""
    from kecs.cli.forward_row import host_port

    return host_port(row["address"], row["localPort"])


def _listed(row: dict[str, Any]) -> str:
    return port_text(local(row), row.get("protocol"))


def print_services(answer: Ps, *, wide: bool) -> None:
    """Print the table of services."""
    named_any = any(one.url for one in answer.services)
    header = ["SERVICE", "STATUS", "RUNNING", "ROLLOUT", "DEFINITION", "PUBLIC", "FORWARD"]
    rows = [
        [
            f"{one.cluster}/{one.service}",
            one.status,
            f"{one.running}/{one.desired}" + (f" +{one.pending}" if one.pending else ""),
            one.rollout_state or "-",
            one.task_definition,
            _yes(one.public),
            ", ".join(one.forwards) or "-",
            *([one.url or "-"] if named_any else []),
            one.region,
            str(one.deployments),
        ]
        for one in answer.services
    ]
    if named_any:
        header += ["URL"]
    if wide:
        header += ["REGION", "DEPLOYMENTS"]
    out.table(header, [row[: len(header)] for row in rows])


def print_tasks(answer: Ps, *, wide: bool) -> None:
    """Print the table of tasks."""
    header = ["TASK", "SERVICE", "STATUS", "HEALTH", "DEFINITION", "PUBLIC", "PORTS", "AGE"]
    rows = [
        [
            f"{one.cluster}/{one.task_id if wide else one.task_id[:SHORT_ID]}",
            one.service or "-",
            one.last_status if one.last_status == one.desired_status else _moving(one),
            one.health_status if one.health_status != "UNKNOWN" else "-",
            one.task_definition,
            _yes(one.public),
            ", ".join(_port(port) for port in one.ports) or "-",
            out.ago(one.created_at),
            one.region,
            out.clean(one.stopped_reason or one.waiting or "-"),
            f"{one.namespace}/{one.pod}" if one.pod else "-",
        ]
        for one in answer.tasks
    ]
    if wide or any(one.stopped_reason or one.waiting for one in answer.tasks):
        header += ["REGION", "REASON"]
    if wide and any(one.pod for one in answer.tasks):
        header += ["POD"]
    out.table(header, [row[: len(header)] for row in rows])


def _moving(task: PsTask) -> str:
    return f"{task.last_status} -> {task.desired_status}"


def _port(port: PsPort) -> str:
    """Return `80 on 29999` or `80 on node port 30123`, what is not ready, and the forward that reaches it."""
    number = port_text(port.container_port, port.protocol)
    here = f"{number} on {port.host_port}" if port.host_port not in (0, port.container_port) else number
    if port.node_port is not None:
        here = f"{number} on node port {port.node_port}"
    state = "" if port.ready else " (not ready)"
    return here + state + (f" <- {port.forward}" if port.forward else "")


def _forward_to(task: PsTask, port: PsPort, rows: list[dict[str, Any]]) -> str | None:
    for row in rows:
        its_service = (row["region"], row["cluster"], row["service"]) == (
            task.region,
            task.cluster,
            task.service,
        )
        # By a node's address, which belongs to no task, Kubernetes chooses among all of the service.
        reaches = any(
            endpoint["taskId"] == task.task_id or (its_service and endpoint["taskId"] is None)
            for endpoint in row["endpoints"]
        )
        if reaches and row["targetPort"] == port.container_port and row["protocol"] == port.protocol:
            return local(row)
    return None


def _is_of(row: dict[str, Any], service: PsService) -> bool:
    return (row["region"], row["cluster"], row["service"]) == (
        service.region,
        service.cluster,
        service.service,
    )


def _yes(value: bool) -> str:
    return "yes" if value else "no"

"""`kecs port-forward start service|task`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from kecs.cli import forward_options as options
from kecs.cli import forward_row, forward_typed, targets
from kecs.cli import output as out
from kecs.cli.session import Session
from kecs.errors import ExitCode, KecsError

if TYPE_CHECKING:
    from kecs.client.rpc_types import StartReply
    from kecs.forward.spec import TargetType


@click.command("service", cls=options.WaitCommand)
@options.of_services
def start_service(session: Session, **given: Any) -> None:
    """Forward local ports to all ready tasks of the service TARGET: `cluster/service`, or its ARN.

    Ports are written as for kubectl, several for several forwards, or with --local-port and --target-port:

    \b
    kecs port-forward start service prod/web
    kecs port-forward start service prod/web 8080:80 :9090
    kecs port-forward start service prod/web --local-port 8080 --target-port http
    """  # noqa: D301 - click reads \b
    _start(session, "service", **given)


@click.command("task", cls=options.WaitCommand)
@options.of_tasks
def start_task(session: Session, **given: Any) -> None:
    """Forward local ports to one task: TARGET is `cluster/task`, or its ARN, and with --tag the cluster.

    By id, or the first 8 or more digits of it, the forward ends with the task. By tags it follows:

    \b
    kecs port-forward start task dev/0123abcd 9229
    kecs port-forward start task dev --tag Component=worker --tag Environment=dev 9229
    """  # noqa: D301 - click reads \b
    _start(session, "task", **given)


def _start(
    session: Session,
    kind: TargetType,
    *,
    wait: str | None,
    foreground: bool,
    output: str | None,
    names: bool,
    **given: Any,
) -> None:
    forwards = forward_typed.specs(kind, **given)
    seconds = None if wait is None else targets.seconds(wait)
    if foreground and output:
        raise KecsError("`--foreground` prints events, not rows", "leave out `-o`", ExitCode.USAGE)
    from kecs.client import launch
    from kecs.client.agent import AgentClient
    from kecs.client.instance import require
    from kecs.client.rpc_types import StartRequest, to_json

    request = StartRequest(forwards=forwards, wait=seconds)
    reply = launch.ask_agent(session.paths, session.note, lambda agent: agent.start(request))
    port = launch.ask_agent(session.paths, session.note, AgentClient.open_names) if names else None
    if output:
        out.document([to_json(one.forward) for one in reply.forwards], output)
    else:
        for one in reply.forwards:
            row = to_json(one.forward)
            out.line(forward_row.line(row))
            if port is not None and (url := forward_row.by_name(row, require(session.paths).region, port)):
                out.line(f"    {url}")
            if not one.created:
                session.note(f"`{one.forward.name}` was there already")
    if port is not None:
        session.note(forward_row.names(port))
    if seconds is not None:
        _check_active(reply, seconds)
    if foreground:
        from kecs.cli import foreground as front

        front.stay(session, reply)


def _check_active(reply: StartReply, seconds: float) -> None:
    for one in reply.forwards:
        if one.forward.state != "ACTIVE":
            why = f": {one.forward.reason}" if one.forward.reason else ""
            raise KecsError(
                f"`{one.forward.name}` is {one.forward.state} after {seconds:g} s{why}",
                f"it stays and goes on trying; see `kecs port-forward logs {one.forward.name}`",
            )

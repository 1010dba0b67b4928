"""`kecs port-forward start service|task`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from kecs.cli import forward_options as options
from kecs.cli import forward_publish, forward_row, forward_typed, targets
from kecs.cli import output as out
from kecs.cli.session import Session
from kecs.errors import ExitCode, KecsError

if TYPE_CHECKING:
    from kecs.cli.forward_publish import Publishing
    from kecs.client.rpc_types import ForwardRow, StartReply
    from kecs.forward.spec import ForwardSpec, TargetType


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
    yes: bool = False,
    **given: Any,
) -> None:
    forwards = forward_typed.specs(kind, **given)
    seconds = None if wait is None else targets.seconds(wait)
    if foreground and output:
        raise KecsError("`--foreground` prints events, not rows", "leave out `-o`", ExitCode.USAGE)
    if foreground and any(one.publish is not None for one in forwards):
        raise KecsError(
            "`--foreground` ends with Ctrl-C, and a published port stays",
            "leave one of them out",
            ExitCode.USAGE,
        )
    from kecs.client import launch
    from kecs.client.agent import AgentClient
    from kecs.client.instance import require
    from kecs.client.rpc_types import StartRequest, to_json

    request = StartRequest(forwards=forwards, wait=seconds)
    publishing = _publishing(session, forwards, yes=yes)
    reply = launch.ask_agent(session.paths, session.note, lambda agent: agent.start(request))
    silent = _publish(session, publishing, forwards, reply) if publishing is not None else None
    port = launch.ask_agent(session.paths, session.note, AgentClient.open_names) if names else None
    if output:
        out.document([to_json(one.forward) for one in reply.forwards], output)
    else:
        for one in reply.forwards:
            row = to_json(one.forward)
            out.line(forward_row.line(row))
            if row["publish"]:
                out.line(f"    {forward_row.published(row)}")
            if port is not None and (url := forward_row.by_name(row, require(session.paths).region, port)):
                out.line(f"    {url}")
            if not one.created:
                session.note(f"`{one.forward.name}` was there already")
    if port is not None:
        session.note(forward_row.names(port))
    if silent is not None:
        raise silent
    if seconds is not None:
        _check_active(reply, seconds)
    if foreground:
        from kecs.cli import foreground as front

        front.stay(session, reply)


def _publishing(session: Session, forwards: list[ForwardSpec], *, yes: bool) -> Publishing | None:
    """Ask for the edits that the published ports need, when everything else is known to be right."""
    if not any(one.publish is not None for one in forwards):
        return None
    from kecs.client import launch, published
    from kecs.client.rpc_types import StartRequest

    instance = launch.require_running(session.paths)
    for one in forwards:
        published.check(one.publish, instance)
    question = StartRequest(forwards=forwards, dry_run=True)
    launch.ask_agent(session.paths, session.note, lambda agent: agent.start(question))
    mine = forward_publish.of_specs(forwards, instance.region)
    ports = {wish.port for wish in mine}
    others = [
        wish for wish in forward_publish.of_rows(forward_publish.rows(session)) if wish.port not in ports
    ]
    publishing = forward_publish.Publishing(session, instance, yes=yes)
    publishing.balancer.mend()
    publishing.plan([*mine, *others], needed=mine)
    if late := [wish for wish in publishing.late if wish in mine]:
        raise KecsError(
            f"{late[0].target} has no node port yet",
            f"`kecs explain service {late[0].cluster}/{late[0].service}` tells why; then try again",
        )
    publishing.ask()
    publishing.remove()
    return publishing


def _publish(
    session: Session, publishing: Publishing, forwards: list[ForwardSpec], reply: StartReply
) -> KecsError | None:
    """Have the load balancer lead to the forwards that were started; when it cannot, they are stopped again.

    Returns the error when a port does not answer in the end.
    """
    try:
        publishing.add()
    except BaseException:
        if not publishing.done:
            _stop_again(session, [one.forward for one in reply.forwards if one.created])
        raise
    ports = {one.publish for one in forwards if one.publish is not None}
    return publishing.prove(forward_publish.rows(session), ports)


def _stop_again(session: Session, created: list[ForwardRow]) -> None:
    from kecs.client import launch
    from kecs.client.rpc_types import StopRequest

    if created:
        request = StopRequest(forwards=[row.id for row in created])
        launch.ask_agent(session.paths, session.note, lambda agent: agent.stop(request))
        names = ", ".join(f"`{row.name}`" for row in created)
        session.note(f"{names} was stopped again: the port could not be published")


def _check_active(reply: StartReply, seconds: float) -> None:
    for one in reply.forwards:
        if one.forward.state != "ACTIVE":
            why = f": {one.forward.reason}" if one.forward.reason else ""
            raise KecsError(
                f"`{one.forward.name}` is {one.forward.state} after {seconds:g} s{why}",
                f"it stays and goes on trying; see `kecs port-forward logs {one.forward.name}`",
            )

"""`kecs port-forward start service|task`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from kecs.cli import complete, targets
from kecs.cli import output as out
from kecs.cli.commands import Command, pass_session, rows_option
from kecs.cli.session import Session
from kecs.errors import ExitCode, KecsError

if TYPE_CHECKING:
    from kecs.client.rpc_types import ForwardRow, StartReply
    from kecs.forward.spec import ForwardSpec, RouteChoice, TargetType

WAIT = 30.0
"""Seconds of a bare `--wait`: the `ready_timeout` of a task (docs/design/contracts.md, 2)."""


class WaitCommand(Command):
    """A command whose `--wait` may stand alone: `--wait prod/web` does not take the target for a number."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Give a bare `--wait` its default before click reads the arguments."""
        given = list(args)
        for at, word in enumerate(args):
            if word == "--":
                break
            follower = args[at + 1] if at + 1 < len(args) else ""
            if word == "--wait" and not _is_number(follower):
                given[at] = f"--wait={WAIT:g}"
        return super().parse_args(ctx, given)


def _options(function: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(
        (
            click.argument("target", metavar="TARGET", shell_complete=complete.targets),
            click.argument("ports", nargs=-1, metavar="[[LOCAL]:TARGET]..."),
            click.option("--local-port", metavar="PORT", help="Local port; without it one is chosen."),
            click.option(
                "--target-port",
                metavar="PORT|NAME",
                help="Container port, or the name of its port mapping; needed where there are several.",
            ),
            click.option("--name", metavar="NAME", help="Name of the forward; default: by its target."),
            click.option(
                "--address",
                multiple=True,
                metavar="IP",
                help="Address to listen on, may be repeated; default: 127.0.0.1 and ::1.",
            ),
            click.option(
                "--wait",
                metavar="[SECONDS]",
                help=f"Return when the forward is ACTIVE; without a number within {WAIT:g} s.",
            ),
            click.option(
                "--foreground",
                is_flag=True,
                help="Stay, print connections as they come, and end the forward at Ctrl-C.",
            ),
            click.option(
                "--route",
                type=click.Choice(["auto", "direct", "tunnel"]),
                default="auto",
                help="How to reach the tasks: `direct` dials an address, `tunnel` goes through the API "
                "server of Kubernetes, `auto` is directly where that works.",
            ),
            click.option("--region", metavar="REGION", help="Region of the target; default: the instance's."),
            rows_option("json", "yaml"),
            pass_session,
        )
    ):
        function = option(function)
    return function


@click.command("service", cls=WaitCommand)
@_options
def start_service(session: Session, **given: Any) -> None:
    """Forward local ports to all ready tasks of the service TARGET: `cluster/service`, or its ARN.

    Ports are written as for kubectl, several for several forwards, or with --local-port and --target-port:

    \b
    kecs port-forward start service prod/web
    kecs port-forward start service prod/web 8080:80 :9090
    kecs port-forward start service prod/web --local-port 8080 --target-port http
    """  # noqa: D301 - click reads \b
    _start(session, "service", **given)


@click.command("task", cls=WaitCommand)
@_options
def start_task(session: Session, **given: Any) -> None:
    """Forward local ports to the one task TARGET, until it ends: `cluster/task`, or its ARN.

    The task is named by its id, or the first 8 or more digits of it.
    """
    _start(session, "task", **given)


def _start(
    session: Session,
    kind: TargetType,
    *,
    wait: str | None,
    foreground: bool,
    output: str | None,
    **given: Any,
) -> None:
    forwards = specs(kind, **given)
    seconds = None if wait is None else targets.seconds(wait)
    if foreground and output:
        raise KecsError("`--foreground` prints events, not rows", "leave out `-o`", ExitCode.USAGE)
    from kecs.client import launch
    from kecs.client.agent import WentAway
    from kecs.client.rpc_types import StartRequest, to_json

    request = StartRequest(forwards=forwards, wait=seconds)
    try:
        with launch.connect_agent(session.paths, session.note) as agent:
            reply = agent.start(request)
    except WentAway:  # the same request again is the same forward
        with launch.connect_agent(session.paths, session.note) as agent:
            reply = agent.start(request)
    if output:
        out.document([to_json(one.forward) for one in reply.forwards], output)
    else:
        for one in reply.forwards:
            out.line(line(one.forward))
            if not one.created:
                session.note(f"`{one.forward.name}` was there already")
    if seconds is not None:
        _check_active(reply, seconds)
    if foreground:
        from kecs.cli import foreground as front

        front.stay(session, reply)


def specs(
    kind: TargetType,
    *,
    target: str,
    ports: tuple[str, ...],
    local_port: str | None,
    target_port: str | None,
    name: str | None,
    address: tuple[str, ...],
    region: str | None,
    route: RouteChoice = "auto",
) -> list[ForwardSpec]:
    """Turn what was typed into forwards, without asking any daemon. Raises usage errors."""
    from kecs.cli.start import check_region
    from kecs.forward import spec

    if ports and (local_port is not None or target_port is not None):
        raise KecsError(
            "ports are given twice: as pairs and by `--local-port` or `--target-port`",
            "use one of both ways",
            ExitCode.USAGE,
        )
    if name is not None and len(ports) > 1:
        raise KecsError(
            f"one name, `{name}`, cannot name {len(ports)} forwards",
            "start them one by one, or leave the names to KECS",
            ExitCode.USAGE,
        )
    check_region(region)
    listen = targets.addresses(address)
    try:
        whither = spec.parse_target(target, kind, region=region)
        if name is not None:
            spec.check_name(name)
        pairs = [spec.parse_ports(pair) for pair in ports] or [
            spec.Ports(
                spec.parse_local_port(local_port) if local_port is not None else None,
                spec.parse_target_port(target_port) if target_port is not None else None,
            )
        ]
    except spec.TargetSyntaxError as error:
        raise targets.syntax_error(error) from error
    locals_ = [pair.local for pair in pairs if pair.local is not None]
    if twice := next((port for port in locals_ if locals_.count(port) > 1), None):
        raise KecsError(f"the local port {twice} is given twice", "give each its own", ExitCode.USAGE)
    return [
        spec.ForwardSpec(
            target=whither,
            name=name,
            local_port=pair.local,
            target_port=pair.target,
            address=listen,
            route=route,
        )
        for pair in pairs
    ]


def line(row: ForwardRow) -> str:
    """Return `NAME  http://127.0.0.1:PORT -> prod/web:80  STATE` (docs/design/contracts.md, 3)."""
    from kecs.cli.forward_list import host_port

    what = row.service or (row.task_id or "")[:8]
    why = f" ({out.clean(row.reason)})" if row.reason and row.state != "ACTIVE" else ""
    whither = f"{row.cluster}/{what}:{row.target_port}"
    return f"{row.name}  http://{host_port(row.address, row.local_port)} -> {whither}  {row.state}{why}"


def _check_active(reply: StartReply, seconds: float) -> None:
    for one in reply.forwards:
        if one.forward.state != "ACTIVE":
            why = f": {one.forward.reason}" if one.forward.reason else ""
            raise KecsError(
                f"`{one.forward.name}` is {one.forward.state} after {seconds:g} s{why}",
                f"it stays and goes on trying; see `kecs port-forward logs {one.forward.name}`",
            )


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True

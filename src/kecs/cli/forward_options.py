"""The options of `port-forward start` and `run`, as tables: what click shows in help and hands on.

`forward_typed` reads their values. The words are those of a file: what `--retry attempts=5` says is
`retry: {attempts: 5}` there (docs/reference/port-forward.schema.json).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from kecs.cli import complete, forward_publish
from kecs.cli.commands import Command, pass_session, rows_option

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


def of_services(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the session and the options of `start service`."""
    return _with(function, (*_START, *_PROMISES, *_PUBLISH))


def of_tasks(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the session and the options of `start task`."""
    return _with(function, (*_START, *_TAGS, *_PROMISES))


def _with(function: Callable[..., Any], options: tuple[Callable[..., Any], ...]) -> Callable[..., Any]:
    for option in reversed((*options, pass_session)):
        function = option(function)
    return function


_START = (
    click.argument("target", metavar="TARGET", shell_complete=complete.targets),
    click.argument("ports", nargs=-1, metavar="[[LOCAL]:TARGET[/udp]]..."),
    click.option("--local-port", metavar="PORT", help="Local port; without it one is chosen."),
    click.option(
        "--target-port",
        metavar="PORT|NAME[/udp]",
        help="Container port, or the name of its port mapping; needed where there are several. `53/udp` says "
        "UDP, where TCP has that port too.",
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
)
"""What is forwarded where, and when the command returns."""

_PROMISES = (
    click.option(
        "--no-auto-reconnect",
        "auto_reconnect",
        flag_value=False,
        default=True,
        help="End with the first task that was chosen, instead of following others.",
    ),
    click.option(
        "--hold",
        metavar="KEY=VALUE,...",
        help="How long and how many new connections wait for a ready task: `seconds=30,connections=1024`.",
    ),
    click.option(
        "--idle",
        metavar="SECONDS",
        help="UDP only: forget a client that was silent for so long; default: 60.",
    ),
    click.option(
        "--retry",
        metavar="KEY=VALUE,...",
        help="How a port that is taken is tried again: `initial=0.5,factor=2,max=15,jitter=0.2,attempts=0` "
        "(seconds; 0 attempts: for ever).",
    ),
    click.option(
        "--probe",
        metavar="tcp|http:/PATH",
        help="Ask each task whether it serves: by connecting, or by a GET of PATH; one that fails gets no "
        "connections until it succeeds.",
    ),
    click.option(
        "--notify",
        multiple=True,
        metavar="desktop|command:PROGRAM|URL",
        help="Tell that the forward reconnects, is back or has failed, may be repeated: on the desktop, to a "
        "program (the event as JSON on its standard input), or to a webhook.",
    ),
    click.option(
        "--names",
        is_flag=True,
        help="Let services answer by name too: `http://SERVICE.CLUSTER.localhost:PORT/`.",
    ),
)
"""For a service and for a task."""

_TAGS = (
    click.option(
        "--tag",
        "tags",
        multiple=True,
        metavar="KEY=VALUE",
        help="Find the task by its tags, may be repeated, all must match; TARGET is then the cluster alone. "
        "The newest is taken, and the forward follows when another one is.",
    ),
    click.option(
        "--strict",
        "--all",
        is_flag=True,
        help="Look at all tasks with the tags: more than one is an error that lists them.",
    ),
)
"""For a task only."""


_PUBLISH = (
    click.option(
        "--publish",
        metavar="HOSTPORT",
        help="Have k3d's load balancer lead this port of 127.0.0.1 to the service too: Docker itself holds "
        "it, whether KECS runs or not (runtime k3d with `--load-balancer`). The edit that this takes cuts "
        "the load balancer's connections.",
    ),
    forward_publish.yes_option,
)
"""For a service only."""


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True

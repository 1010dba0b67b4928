"""`kecs port-forward stop`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from kecs.cli import complete, forward_publish
from kecs.cli import output as out
from kecs.cli.commands import command, pass_session
from kecs.cli.forward_row import Row
from kecs.cli.session import Session
from kecs.errors import ExitCode, KecsError

if TYPE_CHECKING:
    from kecs.client.agent import AgentClient


@command("stop")
@click.argument("forwards", nargs=-1, metavar="[ID|NAME]...", shell_complete=complete.forwards)
@click.option("--all", "everything", is_flag=True, help="Stop all forwards of the instance.")
@click.option(
    "--names",
    is_flag=True,
    help="Let services no longer answer by name, as far as a command asked for it and not a file.",
)
@forward_publish.keep_option
@forward_publish.yes_option
@pass_session
def stop(
    session: Session,
    forwards: tuple[str, ...],
    everything: bool,
    names: bool,
    keep_published: bool,
    yes: bool,
) -> None:
    """Close forwards and forget them: all that are named, or none when one is not there.

    A published port is taken from k3d's load balancer first, which cuts its connections for a while: it says
    what and asks. On a stopped instance nothing is started: exit code 5.
    """
    if bool(forwards) and everything:
        raise _unclear("forwards are named and `--all` is given")
    if not (forwards or everything or names):
        raise _unclear("no forward is named")
    from kecs.client import instance, launch, lifetime

    paths = session.paths
    described = instance.require(paths)
    if described.desired == "stopped":
        raise launch.stopped(paths)
    if (everything or names) and not lifetime.has_forwards(paths):
        session.note("there is no port forward")
        return
    publishing = None
    if (forwards or everything) and described.k3d is not None and described.k3d.load_balancer:
        leaving = _leaving(forward_publish.rows(session), forwards, everything=everything)
        publishing = forward_publish.withdraw(session, described, leaving, keep=keep_published, yes=yes)
    with launch.connect_agent(paths, session.note) as agent:
        if forwards or everything:
            _stop(session, agent, forwards, everything=everything)
        if names:
            _close_names(session, agent)
    if publishing is not None:
        publishing.prove(forward_publish.rows(session))


def _leaving(rows: list[Row], forwards: tuple[str, ...], *, everything: bool) -> list[Row]:
    """Return the rows that are named; none when one is not there, which the agent then refuses."""
    if everything:
        return rows
    named = [row for row in rows if {row["id"], row["name"]} & set(forwards)]
    known = {word for row in named for word in (row["id"], row["name"])}
    return named if set(forwards) <= known else []


def _stop(session: Session, agent: AgentClient, forwards: tuple[str, ...], *, everything: bool) -> None:
    from kecs.client.rpc_types import StopRequest

    reply = agent.stop(StopRequest(forwards=list(forwards), all=everything))
    for row in reply.forwards:
        out.line(f"{row.name}  stopped")
    if not reply.forwards:
        session.note("there is no port forward")


def _close_names(session: Session, agent: AgentClient) -> None:
    port = agent.close_names()
    if port is None:
        session.note("services do not answer by name")
    else:
        session.note(f"services answer by name on port {port} as long as a file says `names: true`")


def _unclear(what: str) -> KecsError:
    return KecsError(what, "give ids or names as in `kecs port-forward list`, or `--all`", ExitCode.USAGE)

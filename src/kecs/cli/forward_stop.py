"""`kecs port-forward stop`."""

from __future__ import annotations

import click

from kecs.cli import complete
from kecs.cli import output as out
from kecs.cli.commands import command, pass_session
from kecs.cli.session import Session
from kecs.errors import ExitCode, KecsError


@command("stop")
@click.argument("forwards", nargs=-1, metavar="[ID|NAME]...", shell_complete=complete.forwards)
@click.option("--all", "everything", is_flag=True, help="Stop all forwards of the instance.")
@pass_session
def stop(session: Session, forwards: tuple[str, ...], everything: bool) -> None:
    """Close forwards and forget them: all that are named, or none when one is not there.

    On a stopped instance nothing is started: exit code 5.
    """
    if bool(forwards) == everything:
        raise KecsError(
            "forwards are named and `--all` is given" if forwards else "no forward is named",
            "give ids or names as in `kecs port-forward list`, or `--all`",
            ExitCode.USAGE,
        )
    from kecs.client import instance, launch, lifetime
    from kecs.client.rpc_types import StopRequest

    paths = session.paths
    if instance.require(paths).desired == "stopped":
        raise launch.stopped(paths)
    if everything and not lifetime.has_forwards(paths):
        session.note("there is no port forward")
        return
    with launch.connect_agent(paths, session.note) as agent:
        reply = agent.stop(StopRequest(forwards=list(forwards), all=everything))
    for row in reply.forwards:
        out.line(f"{row.name}  stopped")
    if not reply.forwards:
        session.note("there is no port forward")

"""`kecs port-forward down`: stop what a file started."""

from __future__ import annotations

from kecs.cli import config_file
from kecs.cli import output as out
from kecs.cli.commands import command, pass_session
from kecs.cli.session import Session


@command("down")
@config_file.option
@pass_session
def down(session: Session, config: str) -> None:
    """Stop all forwards that a file started, and no others; the file itself may be gone.

    On a stopped instance nothing is started: exit code 5.
    """
    owner = str(config_file.owner(config))
    from kecs.client import instance, launch, lifetime

    paths = session.paths
    if instance.require(paths).desired == "stopped":
        raise launch.stopped(paths)
    if not lifetime.has_forwards(paths):
        session.note(f"`{config}` has started no forward")
        return
    reply = launch.ask_agent(paths, session.note, lambda agent: agent.down(owner))
    for row in reply.forwards:
        out.line(f"{row.name}  stopped")
    if not reply.forwards:
        session.note(f"`{config}` has started no forward")

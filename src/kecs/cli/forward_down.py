"""`kecs port-forward down`: stop what a file started."""

from __future__ import annotations

from kecs.cli import config_file, forward_publish
from kecs.cli import output as out
from kecs.cli.commands import command, pass_session
from kecs.cli.session import Session


@command("down")
@config_file.option
@forward_publish.keep_option
@forward_publish.yes_option
@pass_session
def down(session: Session, config: str, keep_published: bool, yes: bool) -> None:
    """Stop all forwards that a file started, and no others; the file itself may be gone.

    Published ports are taken from k3d's load balancer first, in one edit, which cuts its connections for a
    while: it says what and asks.
    On a stopped instance nothing is started: exit code 5.
    """
    owner = str(config_file.owner(config))
    from kecs.client import instance, launch, lifetime

    paths = session.paths
    described = instance.require(paths)
    if described.desired == "stopped":
        raise launch.stopped(paths)
    if not lifetime.has_forwards(paths):
        session.note(f"`{config}` has started no forward")
        return
    publishing = None
    if described.k3d is not None and described.k3d.load_balancer:
        leaving = [row for row in forward_publish.rows(session) if row["owner"] == owner]
        publishing = forward_publish.withdraw(session, described, leaving, keep=keep_published, yes=yes)
    reply = launch.ask_agent(paths, session.note, lambda agent: agent.down(owner))
    for row in reply.forwards:
        out.line(f"{row.name}  stopped")
    if not reply.forwards:
        session.note(f"`{config}` has started no forward")
    if publishing is not None:
        publishing.prove(forward_publish.rows(session))

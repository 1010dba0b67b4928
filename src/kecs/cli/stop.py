"""`kecs stop` and `kecs destroy`."""

from __future__ import annotations

import sys

import click

from kecs.cli.commands import command, pass_session
from kecs.cli.session import Session
from kecs.errors import ExitCode, KecsError


@command("stop")
@pass_session
def stop(session: Session) -> None:
    """Stop the instance: its agent, its tasks, its control plane, so that nothing of it keeps running here.

    At the next start services start their tasks again and forwards are back on their ports; standalone
    tasks are STOPPED. On k3d the cluster is stopped too; on your cluster all tasks go on, and the next start
    takes them up.
    """
    from kecs.client import instance, lifetime

    if lifetime.stop(session.paths, session.note):
        session.note(f"the instance `{session.paths.name}` is stopped")
        if instance.require(session.paths).runtime == "kubernetes":
            session.note("its tasks go on: pods, Services and node ports stay on the cluster")
    else:
        session.note(f"the instance `{session.paths.name}` was stopped already")


@command("destroy")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.option(
    "--force",
    is_flag=True,
    help="Delete the folder even where the cluster cannot be reached: it stays as it is.",
)
@pass_session
def destroy(session: Session, yes: bool, force: bool) -> None:
    """Stop the instance and delete its folder: its ECS resources, secrets, forwards and logs.

    On k3d its cluster is deleted first; on your cluster its namespaces, with everything in them. When the
    cluster cannot be reached, nothing is deleted, unless `--force` says so.
    """
    from kecs.client import lifetime

    paths = session.paths
    if not paths.root.exists():
        from kecs.client import instance

        instance.require(paths)
    if not yes:
        if not sys.stdin.isatty():
            raise KecsError(
                f"`kecs destroy` deletes all that `{paths.name}` knows, and nobody can be asked here",
                "say so beforehand: `kecs destroy --yes`",
                ExitCode.USAGE,
            )
        click.confirm(f"Delete the instance `{paths.name}` with all its state?", abort=True, err=True)
    lifetime.destroy(paths, session.note, force=force)
    session.note(f"the instance `{paths.name}` is deleted")

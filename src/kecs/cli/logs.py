"""`kecs logs`: what tasks wrote, and what daemons did."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from kecs.cli import complete
from kecs.cli import output as out
from kecs.cli.commands import command, pass_session
from kecs.cli.session import Session, paint
from kecs.cli.targets import name_of
from kecs.errors import ExitCode, KecsError

if TYPE_CHECKING:
    from kecs.client.admin_types import Refusal


@command("logs")
@click.argument("target", required=False, metavar="[[CLUSTER/]TASK|SERVICE]", shell_complete=complete.targets)
@click.option("--container", metavar="NAME", help="Only this container of a task.")
@click.option("-f", "--follow", is_flag=True, help="Go on until Ctrl-C.")
@click.option("--region", metavar="REGION", help="Region to look in; default: the instance's.")
@click.option("--daemon", type=click.Choice(["agent", "controlplane"]), help="The log of a daemon instead.")
@pass_session
def logs(
    session: Session,
    /,
    target: str | None,
    container: str | None,
    follow: bool,
    region: str | None,
    daemon: str | None,
) -> None:
    """Print what the containers of a task, or of all tasks of a service, wrote.

    It is kept as long as the task can be described. What cannot be read of a container is said as it happens,
    and is an error in the end when no other container's log was read.
    """
    from kecs.client import instance, launch
    from kecs.client.agent import exit_code

    if (target is None) == (daemon is None):
        raise KecsError(
            "a target and `--daemon` are given" if target else "no service, task or daemon is named",
            "write `kecs logs cluster/service`, `kecs logs cluster/task` or `kecs logs --daemon agent`",
            ExitCode.USAGE,
        )
    if daemon is not None:
        from kecs.cli import log_files

        instance.require(session.paths)
        paths = session.paths
        log_files.show(paths.agent_log if daemon == "agent" else paths.controlplane_log, follow=follow)
        return
    assert target is not None
    cluster, name = name_of(target)
    client = launch.ensure_controlplane(session.paths, session.note)
    terminal = sys.stdout.isatty()
    sources: set[tuple[str, str]] = set()
    failed: dict[tuple[str, str], Refusal] = {}
    found = client.logs(cluster, name, container=container, region=region, follow=follow)
    for line in found:
        source = (line.task_id, line.container)
        if line.error is not None:
            failed[source] = line.error
            session.warn(f"{line.task_id[:8]} {line.container}: {line.error.message}")
            continue
        sources.add(source)
        prefix = paint(f"{line.task_id[:8]} {line.container} |", "faint", terminal)
        out.line(f"{prefix} {line.text}")
    if failed and sources <= failed.keys():
        last = next(reversed(failed.values()))
        raise KecsError(
            "no log of these containers could be read to its end", last.hint, exit_code(last.exit_code)
        )
    if not sources:
        session.note("nothing was written so far")

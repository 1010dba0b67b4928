"""`kecs port-forward logs`."""

from __future__ import annotations

import click

from kecs.cli import complete, log_files
from kecs.cli.commands import command, pass_session
from kecs.cli.session import Session
from kecs.errors import ExitCode, KecsError
from kecs.paths import InstancePaths


@command("logs")
@click.argument("forward", metavar="ID|NAME", shell_complete=complete.forwards)
@click.option("-f", "--follow", is_flag=True, help="Go on until Ctrl-C.")
@pass_session
def logs(session: Session, forward: str, follow: bool) -> None:
    """Print what happened to a forward: its states, and connections that failed. Starts nothing."""
    from kecs.client import instance

    instance.require(session.paths)
    log_files.show(session.paths.forward_logs / f"{name_of(session.paths, forward)}.log", follow=follow)


def name_of(paths: InstancePaths, forward: str) -> str:
    """Return the name of a forward that `config.yaml` knows by id or name. Raises exit 3."""
    from kecs import files

    document = files.read_yaml(paths.forwards_config, version=1) or {}
    entries = [entry for entry in document.get("forwards") or [] if isinstance(entry, dict)]
    for entry in entries:
        if forward in (entry.get("id"), entry.get("name")):
            return str(entry["name"])
    known = ", ".join(f"`{entry.get('name')}`" for entry in entries[:5])
    raise KecsError(
        f"there is no forward `{forward}`",
        f"there is {known}" if known else "`kecs port-forward start` makes one",
        ExitCode.NOT_FOUND,
    )

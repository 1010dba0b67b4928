"""`kecs port-forward export`: the forwards as they are, written as a file for `port-forward run`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from kecs.cli.commands import command, pass_session
from kecs.cli.session import Session
from kecs.errors import ExitCode, KecsError


@command("export")
@click.option(
    "-o",
    "--output",
    type=click.Path(),
    metavar="FILE",
    help="Write to FILE, which must not exist yet; default: standard output.",
)
@click.option("--force", is_flag=True, help="Replace FILE.")
@pass_session
def export(session: Session, output: str | None, force: bool) -> None:
    """Write the forwards as a file that `kecs port-forward run` takes: what a team commits.

    Forwards that have ended are left out; those that `auto: true` made are written one by one. On a stopped
    instance nothing is started: exit code 5.
    """
    if force and output is None:
        raise KecsError("`--force` is about a file, and none is named", "add `-o FILE`", ExitCode.USAGE)
    from kecs.client import instance, launch, lifetime
    from kecs.client.agent import AgentClient
    from kecs.client.rpc_types import ExportReply
    from kecs.forward.export import export as text_of

    described = instance.require(session.paths)
    if described.desired == "stopped":
        raise launch.stopped(session.paths)
    kept = ExportReply(forwards=[])
    if lifetime.has_forwards(session.paths):
        kept = launch.ask_agent(session.paths, session.note, AgentClient.export)
    text = text_of(kept.forwards, region=described.region, names=kept.names)
    if not kept.forwards:
        session.note("there is no port forward")
    if output is None:
        sys.stdout.write(text)
        return
    _write(Path(output), output, text, force=force)
    session.note(f"wrote {len(kept.forwards)} forwards to `{output}`")
    session.note(
        "here they run already and stay whose they are: `kecs port-forward stop --all` before "
        f"`kecs port-forward run --config {output}`"
    )


def _write(path: Path, given: str, text: str, *, force: bool) -> None:
    """Write a file as the person's other ones: it is theirs, not one of the instance's private ones."""
    how = os.O_WRONLY | os.O_CREAT | (os.O_TRUNC if force else os.O_EXCL)
    try:
        descriptor = os.open(path, how, 0o666)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as error:
        raise KecsError(
            f"`{given}` exists", "name another file, or add `--force` to replace it", ExitCode.CONFLICT
        ) from error
    except OSError as error:
        raise KecsError(
            f"`{given}` cannot be written: {error.strerror or error}", "name another file", ExitCode.USAGE
        ) from error

"""`kecs secrets`: values for the `secrets` of task definitions."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from kecs.cli import output as out
from kecs.cli.commands import Entry, Group, command, pass_session, rows_option
from kecs.cli.session import Session
from kecs.errors import ExitCode, KecsError

COMMANDS = {
    "set": Entry("kecs.cli.secrets:set_secret", "Keep a value."),
    "list": Entry("kecs.cli.secrets:list_secrets", "List the names; values are never printed."),
    "rm": Entry("kecs.cli.secrets:remove", "Forget values."),
}


@click.group("secrets", cls=Group, entries=COMMANDS)
def secrets() -> None:
    """Keep the values of secrets and parameters that task definitions name in `secrets`.

    They are in `secrets.yaml` of the instance, readable by you alone, and are read when a task starts.
    """


@command("set")
@click.argument("name")
@click.argument("value", required=False)
@click.option("--from-file", type=click.Path(), metavar="FILE", help="Read the value from FILE, whole.")
@pass_session
def set_secret(session: Session, name: str, value: str | None, from_file: str | None) -> None:
    """Keep VALUE under NAME; without VALUE it is asked for without echo, or read from standard input.

    NAME is the whole `valueFrom` of a task definition, or the secret's or parameter's name within it, such
    as `prod/db-password`.
    """
    from kecs.client import instance, secrets

    secrets.check_name(name)
    if value is not None and from_file is not None:
        raise KecsError("both VALUE and `--from-file` are given", "give one of them", ExitCode.USAGE)
    instance.require(session.paths)
    if value is None:
        value = _read(from_file) if from_file is not None else _ask(name)
    replaced = secrets.put(session.paths, name, value)
    session.note(f"{'replaced' if replaced else 'kept'} `{name}`; tasks that start from now on get it")


@command("list")
@rows_option("json", "yaml")
@pass_session
def list_secrets(session: Session, output: str | None) -> None:
    """List the names of the values that are kept."""
    from kecs.client import instance, secrets

    instance.require(session.paths)
    names = sorted(secrets.load(session.paths))
    if output:
        out.document(names, output)
    elif names:
        out.line("\n".join(names))
    else:
        session.note(f"there is no secret; keep one by {session.command('secrets set NAME')}")


@command("rm")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@pass_session
def remove(session: Session, names: tuple[str, ...]) -> None:
    """Forget the values of NAMEs: of all, or of none when one is not there."""
    from kecs.client import instance, secrets

    instance.require(session.paths)
    secrets.remove(session.paths, list(names))
    session.note("forgot " + ", ".join(f"`{name}`" for name in names))


def _ask(name: str) -> str:
    if sys.stdin.isatty():
        import getpass

        return getpass.getpass(f"Value of {name}: ")
    # As `echo value | kecs secrets set NAME` means it: without the newline at the end.
    return sys.stdin.read().removesuffix("\n")


def _read(file: str) -> str:
    try:
        return Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise KecsError(
            f"`{file}` cannot be read: {why}", "give a text file that you can read", ExitCode.USAGE
        ) from error

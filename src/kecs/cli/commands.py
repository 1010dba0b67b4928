"""The kinds of commands and groups: `--instance` everywhere, and modules that are imported when needed.

`kecs --help`, and a command that talks to a running daemon, must not import what they do not use
(docs/design/design.md, 3.12), so a group is a table of names, places and one-line descriptions.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Concatenate, NamedTuple, ParamSpec, TypeVar

import click

from kecs.cli.session import Session

P = ParamSpec("P")
R = TypeVar("R")


class Entry(NamedTuple):
    """A command of a group: where it is (`module:attribute`), and its line in the group's help."""

    place: str
    line: str


class Command(click.Command):
    """A command that takes `--instance`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params.append(_instance_option())


class Group(click.Group):
    """A group that takes `--instance` and imports its commands when they are called."""

    command_class = Command

    def __init__(
        self,
        *args: Any,
        entries: Mapping[str, Entry],
        aliases: Mapping[str, str] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.entries = entries
        self.aliases = aliases or {}
        self.params.append(_instance_option())

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Return the names in the order of the table."""
        return list(self.entries)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import and return the command, by its name or alias."""
        entry = self.entries.get(self.aliases.get(cmd_name, cmd_name))
        if entry is None:
            return None
        module, _, attribute = entry.place.partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Write the table of commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.line) for name, entry in self.entries.items()])


def command(name: str, **attributes: Any) -> Callable[[Callable[..., Any]], Command]:
    """Make a command of a function; its docstring is its help."""
    return click.command(name, cls=Command, **attributes)


def rows_option(*formats: str) -> Callable[[Any], Any]:
    """Add `-o`: how rows are printed."""
    return click.option(
        "-o",
        "--output",
        type=click.Choice(formats),
        help=f"Print as {', '.join(formats[:-1])} or {formats[-1]}.",
    )


def pass_session(function: Callable[Concatenate[Session, P], R]) -> Callable[P, R]:
    """Give the run's `Session` to a command as its first argument."""

    @functools.wraps(function)
    def with_session(*args: P.args, **kwargs: P.kwargs) -> R:
        return function(click.get_current_context().ensure_object(Session), *args, **kwargs)

    return with_session


def _instance_option() -> click.Option:
    return click.Option(
        ["-i", "--instance"],
        metavar="NAME",
        expose_value=False,
        callback=_choose_instance,
        shell_complete=_complete_instance,
        help="Which instance; default: $KECS_INSTANCE, else `default`.",
    )


def _choose_instance(ctx: click.Context, _param: click.Parameter, value: str | None) -> None:
    if value is not None:
        ctx.ensure_object(Session).instance = value


def _complete_instance(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> Sequence[Any]:
    from kecs.cli import complete

    return complete.instances(incomplete)

"""What every command shares: which instance is meant, and where words for the person go.

One `Session` is made by `kecs.cli.main` and travels as click's `ctx.obj`. It reads nothing by itself.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kecs.paths import InstancePaths
    from kecs.settings import Settings


class Session:
    """One run of the command line."""

    def __init__(self) -> None:
        self.instance: str | None = None
        """What `--instance` said; the innermost one counts."""

    @property
    def settings(self) -> Settings:
        """The settings, from the environment as it is now."""
        from kecs import settings

        return settings.load()

    @property
    def paths(self) -> InstancePaths:
        """Where the chosen instance keeps its files. Raises a usage error for a name that cannot be one."""
        return self.settings.paths(self.instance)

    def note(self, text: str) -> None:
        """Tell the person something that is not a result: one line on standard error."""
        print(text, file=sys.stderr, flush=True)  # noqa: T201 - this is where notes are printed

    def warn(self, text: str) -> None:
        """Tell the person of something that may be wrong."""
        self.note(f"{paint('warning', 'yellow', sys.stderr.isatty())}: {text}")

    def command(self, words: str) -> str:
        """Return a `kecs` command for this instance, in backticks, for a hint."""
        from kecs.paths import instance_flag

        return f"`kecs {words}{instance_flag(self.paths.name)}`"


_COLOURS = {"red": "31", "green": "32", "yellow": "33", "cyan": "36", "bold": "1", "faint": "2"}


def paint(text: str, colour: str, terminal: bool) -> str:
    """Return `text` in `colour` where that can be seen: on a terminal, and not with NO_COLOR."""
    if not terminal or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return text
    return f"\x1b[{_COLOURS[colour]}m{text}\x1b[0m"

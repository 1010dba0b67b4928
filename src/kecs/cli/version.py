"""`kecs version`."""

from __future__ import annotations

from kecs import __version__
from kecs.cli import output as out
from kecs.cli.commands import command


@command("version")
def version() -> None:
    """Print the version of KECS."""
    out.line(f"kecs {__version__}")

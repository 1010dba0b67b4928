"""`kecs port-forward list --watch`: the forwards as they change, until Ctrl-C.

On a terminal a table that is drawn anew at each change; elsewhere a line for each change, or with `-o json`
and `-o yaml` an object. It follows the instance through restarts of the agent, and starts none that a person
stopped.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from kecs.cli import forward_row
from kecs.cli import output as out
from kecs.cli.forward_changes import changes
from kecs.cli.forward_row import Row
from kecs.cli.session import Session

if TYPE_CHECKING:
    from rich.table import Table


_NEVER_CUT = {"STATE", "LOCAL", "OPEN", "TOTAL", "HELD"}
"""Columns that are of no use in part; the others share what room there is, in several lines."""
_STYLES = {"green": "green", "yellow": "yellow", "red": "red", "faint": "dim"}


class Screen(Protocol):
    """Where changes are shown."""

    def show(self, rows: dict[str, Row], changed: list[Row], gone: list[Row]) -> None:
        """Show a change; `rows` are all forwards of now, by id."""


def show(session: Session, output: str | None) -> None:
    """Show the forwards until Ctrl-C. Raises `KecsError` (exit 5) when the instance is stopped meanwhile."""
    rows: dict[str, Row] = {}
    with screen(output) as shown:
        for changed, removed in changes(session):
            gone = [rows.pop(identity) for identity in removed if identity in rows]
            rows |= {row["id"]: row for row in changed}
            shown.show(rows, changed, gone)


@contextmanager
def screen(output: str | None) -> Iterator[Screen]:
    """Give where `output` is shown: a terminal that can has a table, everything else gets lines."""
    if output in ("json", "yaml"):
        yield _Documents(output)
    elif sys.stdout.isatty() and os.environ.get("TERM") != "dumb":
        table = _Table(wide=output == "wide")
        with table.live:
            yield table
    else:
        yield Lines()


class _Documents:
    """An object a change: JSON in one line, or a YAML document."""

    def __init__(self, how: str) -> None:
        self._how = how

    def show(self, rows: dict[str, Row], changed: list[Row], gone: list[Row]) -> None:  # noqa: ARG002
        value: dict[str, Any] = {"forwards": changed, "removed": [row["id"] for row in gone]}
        if self._how == "json":
            out.line(json.dumps(value, ensure_ascii=False))
        else:
            out.line("---")
            out.document(value, "yaml")
            sys.stdout.flush()


class Lines:
    """A line for each forward that changed in what people look at: not for each connection."""

    def __init__(self) -> None:
        self._before: dict[str, tuple[object, ...]] = {}

    def know(self, rows: Iterable[Row]) -> None:
        """Note all rows of now, which the person was shown otherwise."""
        self._before = {row["id"]: self._seen(row) for row in rows}

    def show(self, rows: dict[str, Row], changed: list[Row], gone: list[Row]) -> None:  # noqa: ARG002
        """Print what changed."""
        clock = time.strftime("%H:%M:%S")
        for row in changed:
            seen = self._seen(row)
            if self._before.get(row["id"]) != seen:
                out.line(f"{clock}  {forward_row.line(row)}")
            self._before[row["id"]] = seen
        for row in gone:
            self._before.pop(row["id"], None)
            out.line(f"{clock}  {row['name']}  stopped")

    @staticmethod
    def _seen(row: Row) -> tuple[object, ...]:
        return row["state"], row["reason"], row["address"], row["localPort"], row.get("chosen")


class _Table:
    """A table at the foot of the terminal, drawn anew at each change and once a second, as ages grow."""

    def __init__(self, *, wide: bool) -> None:
        from rich.live import Live

        self._wide = wide
        self._rows: dict[str, Row] = {}
        self.live = Live(get_renderable=self._table, refresh_per_second=1, vertical_overflow="ellipsis")

    def show(self, rows: dict[str, Row], changed: list[Row], gone: list[Row]) -> None:  # noqa: ARG002
        self._rows = dict(rows)  # another one each time: Rich's thread draws from it
        self.live.refresh()

    def _table(self) -> Table:
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, pad_edge=False, header_style="bold")
        for name in forward_row.header(wide=self._wide):
            table.add_column(name, no_wrap=name in _NEVER_CUT, overflow="fold")
        ordered = sorted(self._rows.values(), key=lambda row: row["createdAt"])
        for row in ordered:
            # `Text`, so that brackets in a reason are not taken for markup.
            cells = forward_row.cells(row, wide=self._wide)
            table.add_row(*(Text(cell, _STYLES.get(out.colour(cell) or "", "")) for cell in cells))
        if not ordered:
            table.add_row(Text("there is no port forward", "dim"))
        return table

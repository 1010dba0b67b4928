"""How results are printed: tables by hand, JSON, YAML. Rich costs 90 ms to import and is not needed here."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import Any

from kecs.cli.session import paint

_COLOURS = {
    "ACTIVE": "green",
    "RUNNING": "green",
    "running": "green",
    "HEALTHY": "green",
    "COMPLETED": "green",
    "connected": "green",
    "WAITING": "yellow",
    "STARTING": "yellow",
    "PENDING": "yellow",
    "IN_PROGRESS": "yellow",
    "starting": "yellow",
    "FAILED": "red",
    "UNHEALTHY": "red",
    "BACKOFF": "red",
    "crashed": "red",
    "ENDED": "faint",
    "STOPPED": "faint",
    "stopped": "faint",
}


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print columns two spaces apart; a cell that is a known state has its colour on a terminal."""
    terminal = sys.stdout.isatty()
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]
    lines = [paint(_line(header, widths).rstrip(), "bold", terminal)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        if terminal:
            cells = [
                paint(cell, _COLOURS[text], True) if text in _COLOURS else cell
                for cell, text in zip(cells, row, strict=True)
            ]
        lines.append("  ".join(cells).rstrip())
    sys.stdout.write("\n".join(lines) + "\n")


def colour(text: str) -> str | None:
    """Return the colour of a known state; None for any other text."""
    return _COLOURS.get(text)


def document(value: Any, how: str) -> None:
    """Print plain data as `json` or `yaml`."""
    if how == "json":
        import json

        sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")
    else:
        import yaml

        dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
        yaml.dump(value, sys.stdout, Dumper=dumper, sort_keys=False, allow_unicode=True)


def line(text: str) -> None:
    """Print one line of result at once, for what is read as it comes."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def clean(text: str) -> str:
    """Return foreign text without the control characters that could move a terminal's cursor."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\t" else "\N{REPLACEMENT CHARACTER}" for c in text)


def size(number: int) -> str:
    """Return bytes in the unit that fits: `0 B`, `1.2 kB`, `45 MB`."""
    value = float(number)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 999.5:
            return f"{value:.1f} {unit}" if unit != "B" and value < 9.95 else f"{value:.0f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def ago(moment: float) -> str:
    """Return the time since `moment` (epoch seconds) in its largest unit: `5s`, `3m`, `2h`, `4d`."""
    seconds = max(0, int(time.time() - moment))
    for length, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= length:
            return f"{seconds // length}{unit}"
    return f"{seconds}s"


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True))

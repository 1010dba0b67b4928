"""One row a measure, printed as a table and, where asked, written as JSON."""

from __future__ import annotations

import statistics
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Row:
    """What was measured. `ratio` is ours / peer; a budget on a plain figure has no peer."""

    measure: str
    ours: float
    unit: str
    budget: str
    met: bool
    peer: float | None = None
    peer_name: str | None = None
    ratio: float | None = None
    spread: float = 0.0
    """(largest - smallest) / median of our runs."""

    def as_json(self) -> dict[str, object]:
        """Return the row as plain values."""
        return asdict(self)


def spread(values: list[float]) -> float:
    """Return (largest - smallest) / median."""
    return (max(values) - min(values)) / statistics.median(values)


def show(rows: list[Row]) -> str:
    """Lay the rows out as a table."""
    head = ("measure", "ours", "peer", "ratio", "spread", "budget", "met")
    cells = [head, *(_cells(row) for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(head))]
    return "\n".join(" | ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) for line in cells)


def _cells(row: Row) -> tuple[str, ...]:
    peer = "" if row.peer is None else f"{row.peer:.3g} {row.unit} ({row.peer_name})"
    ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
    met = "yes" if row.met else "NO"
    return (row.measure, f"{row.ours:.3g} {row.unit}", peer, ratio, f"{row.spread:.0%}", row.budget, met)

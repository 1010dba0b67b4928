"""One row a measure, printed as a table and, where asked, written as JSON."""

from __future__ import annotations

import statistics
from dataclasses import asdict, dataclass

JSON = ("measure", "ours", "peer", "peer_name", "unit", "ratio", "spread", "budget", "met")
"""The members of a row in JSON."""


@dataclass(frozen=True)
class Row:
    """What was measured. `ratio` is ours / peer; a budget on a plain figure has no peer.

    A row without a budget says where another's figure comes from.
    """

    measure: str
    ours: float
    unit: str
    budget: str = ""
    met: bool | None = None
    peer: float | None = None
    peer_name: str | None = None
    ratio: float | None = None
    spread: float = 0.0
    """(largest - smallest) / median of our runs."""

    def as_json(self) -> dict[str, object]:
        """Return the row as plain values, in the order of the table."""
        values = asdict(self)
        return {name: values[name] for name in JSON}


def beside(
    measure: str,
    unit: str,
    ours: list[float],
    peers: dict[str, list[float]],
    *,
    at_least: float | None = None,
    at_most: float | None = None,
) -> Row:
    """Return the row of a measure that was taken alternately: figure i of each is of round i.

    The peer is the best of `peers` (name to figures): the one with the highest median where the ratio
    must be `at_least` something, else with the lowest. The ratio is the median of the rounds' ratios.
    """
    best = (max if at_least is not None else min)(peers, key=lambda name: statistics.median(peers[name]))
    ratio = statistics.median(a / b for a, b in zip(ours, peers[best], strict=True))
    budget, met = "", None
    if at_least is not None:
        budget, met = f"at least {at_least}", ratio >= at_least
    elif at_most is not None:
        budget, met = f"at most {at_most}", ratio <= at_most
    middle, other = statistics.median(ours), statistics.median(peers[best])
    return Row(measure, middle, unit, budget, met, other, best, ratio, spread(ours))


def spread(values: list[float]) -> float:
    """Return (largest - smallest) / median."""
    middle = statistics.median(values)
    return (max(values) - min(values)) / middle if middle else 0.0


def show(rows: list[Row]) -> str:
    """Lay the rows out as a table."""
    head = ("measure", "ours", "peer", "ratio", "spread", "budget", "met")
    cells = [head, *(_cells(row) for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(head))]
    return "\n".join(" | ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) for line in cells)


def _cells(row: Row) -> tuple[str, ...]:
    peer = "" if row.peer is None else f"{row.peer:.3g} {row.unit} ({row.peer_name})"
    ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
    met = "" if row.met is None else "yes" if row.met else "NO"
    return (row.measure, f"{row.ours:.3g} {row.unit}", peer, ratio, f"{row.spread:.0%}", row.budget, met)

"""Prometheus' text format, version 0.0.4 ("Exposition formats" of its documentation). Pure.

`kecs.agent.metrics` says what there is; this only writes it down.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Literal

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Kind = Literal["counter", "gauge", "histogram"]
Labels = Mapping[str, str]

_ESCAPES = str.maketrans({"\\": r"\\", "\n": r"\n", '"': r"\""})


class Page:
    """Families of metrics, one after the other."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._name = ""

    def family(self, name: str, kind: Kind, help_text: str) -> None:
        """Begin a family: the samples that follow are of it."""
        self._name = name
        self._lines += [f"# HELP {name} {help_text}", f"# TYPE {name} {kind}"]

    def sample(self, value: float, labels: Labels, suffix: str = "") -> None:
        """Add a sample of the family."""
        said = ",".join(f'{name}="{text.translate(_ESCAPES)}"' for name, text in labels.items())
        self._lines.append(f"{self._name}{suffix}{{{said}}} {_number(value)}")

    def histogram(self, counts: Sequence[int], bounds: Sequence[float], total: float, labels: Labels) -> None:
        """Add a histogram: `counts` by bound, and the last one of what is above all."""
        running = list(itertools.accumulate(counts))
        for bound, count in zip((*map(_number, bounds), "+Inf"), running, strict=True):
            self.sample(count, {**labels, "le": bound}, "_bucket")
        self.sample(total, labels, "_sum")
        self.sample(running[-1], labels, "_count")

    def text(self) -> str:
        """Return the page."""
        return "\n".join(self._lines) + "\n"


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else repr(value)

"""What happened to a forward, from its log: JSON lines that outlive the agent's restarts.

Used by `kecs.client.explain`. `kecs.agent.runner` writes the log; a line that cannot be understood is passed
over.
"""

from __future__ import annotations

import datetime
import json
import os
from collections.abc import Iterator
from pathlib import Path

from kecs.client.admin_types import ExplainEvent

READ = 256 * 1024
"""Bytes read from the end of the log: more than a thousand lines."""


def read(file: Path, source: str, since: float) -> list[ExplainEvent]:
    """Return the events of a log and of the older one beside it from `since` (epoch seconds) on.

    The same text again and again is one event, with how often it came and until when.
    """
    texts = [*_lines(file.with_name(f"{file.name}.1")), *_lines(file)]
    events = (event for text in texts if (event := _event(text, source)) is not None)
    return folded([event for event in events if event.time >= since])


def folded(events: list[ExplainEvent]) -> list[ExplainEvent]:
    """Make one event of those that follow each other and say the same."""
    found: list[ExplainEvent] = []
    run: list[ExplainEvent] = []
    for event in [*events, None]:
        if run and (event is None or (event.source, event.text) != (run[0].source, run[0].text)):
            found.append(_once(run))
            run = []
        if event is not None:
            run.append(event)
    return found


def _once(run: list[ExplainEvent]) -> ExplainEvent:
    first, last = run[0], run[-1]
    if len(run) == 1:
        return first
    until = datetime.datetime.fromtimestamp(last.time).astimezone().strftime("%H:%M:%S")
    return ExplainEvent(
        time=first.time, source=first.source, text=f"{first.text} ({len(run)} times until {until})"
    )


def _event(text: str, source: str) -> ExplainEvent | None:
    try:
        record = json.loads(text)
        moment = datetime.datetime.fromisoformat(record["time"]).timestamp()
        return ExplainEvent(time=moment, source=source, text=str(record["message"]))
    except (ValueError, KeyError, TypeError):
        return None


def _lines(file: Path) -> Iterator[str]:
    try:
        with file.open("rb") as opened:
            opened.seek(max(0, opened.seek(0, os.SEEK_END) - READ))
            yield from opened.read().decode(errors="replace").splitlines()
    except OSError:
        return

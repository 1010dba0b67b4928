"""What happened to one forward: the last events in memory, and all of them in its log file.

`kecs.agent.runner` writes, `forward.history` and `kecs explain` read. The file is JSON lines and outlives
the agent; `kind` tells a reader of either what sort of thing a line is.
"""

from __future__ import annotations

import collections
import logging
import logging.handlers
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from kecs import log
from kecs.agent.resolution import Resolution
from kecs.client.rpc_types import EndpointRow, ForwardEvent

LOG_BYTES = 1024 * 1024
"""Size of a forward's log; one older file is kept beside it."""
KEPT = 200
"""Events in memory: some 40 kB for a forward to which much happens."""

Kind = Literal["state", "endpoint", "refused", "held"]


class History:
    """The events of one forward."""

    def __init__(self, name: str, file: Path) -> None:
        self.events: collections.deque[ForwardEvent] = collections.deque(maxlen=KEPT)
        self._log = _open_log(name, file)

    def note(self, kind: Kind, text: str, *, level: int = logging.INFO, **members: object) -> None:
        """Keep one event; `members` go to the file only."""
        self.events.append(ForwardEvent(time=time.time(), kind=kind, text=text))
        self._log.log(level, "%s", text, extra={"kind": kind, **members})

    def close(self) -> None:
        """Let go of the file."""
        for handler in self._log.handlers[:]:
            self._log.removeHandler(handler)
            handler.close()


def moves(before: Resolution, after: Resolution) -> Iterator[str]:
    """Say what became of the tasks between two resolutions of a forward: came, ready, leaving, gone."""
    old, new = _by_task(before), _by_task(after)
    for task, row in new.items():
        last = old.get(task)
        if (last and _condition(last)) != _condition(row):
            yield f"task {task[:8]} is {_condition(row)}"
    for task in old.keys() - new.keys():
        why = after.ended.get(task)
        end = "gone" if why is None else "STOPPED" + (why and f": {why}")
        yield f"task {task[:8]} is {end}"
    if after.chosen is not None and after.chosen != before.chosen:
        of = f" of {after.matched} that match" if after.matched is not None and after.matched > 1 else ""
        yield f"new connections go to task {after.chosen.task_id[:8]}{of}"


def _by_task(resolution: Resolution) -> dict[str, EndpointRow]:
    """Return one row for each task: that of its best way."""
    rows: dict[str, EndpointRow] = {}
    for row in resolution.rows:
        if row.task_id is not None and (row.task_id not in rows or row.ready):
            rows[row.task_id] = row
    return rows


def _condition(row: EndpointRow) -> str:
    if row.failing is not None:
        return f"out of the balance: {row.failing}"
    return "leaving" if row.draining else "ready" if row.ready else "not ready"


class _BriefHandler(logging.handlers.RotatingFileHandler):
    """Holds no descriptor between two records: there may be 200 forwards, each with little to say."""

    def emit(self, record: logging.LogRecord) -> None:
        """Open, write, close."""
        super().emit(record)
        if self.stream is not None:
            self.stream.close()
            self.stream = None


def _open_log(name: str, file: Path) -> logging.Logger:
    """Return a logger of its own: one in the tree would be a child of another whose name it extends."""
    logger = logging.Logger(f"forward.{name}", logging.INFO)  # noqa: LOG001 - see above
    handler = _BriefHandler(file, maxBytes=LOG_BYTES, backupCount=1, encoding="utf-8", delay=True)
    handler.setFormatter(log.JsonFormatter())
    logger.addHandler(handler)
    return logger

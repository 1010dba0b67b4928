"""What a task's shim left in `tasks/<id>/state.json`, read by the control plane; and what a lost task was."""

from __future__ import annotations

import logging
import time
from pathlib import Path

import msgspec

from kecs.runtimes import process
from kecs.runtimes.base import ContainerObserved, TaskObserved
from kecs.runtimes.process import Process
from kecs.runtimes.shim import STATE_FILE, STATE_VERSION, TASK_VARIABLE

_log = logging.getLogger(__name__)


class Report(msgspec.Struct, frozen=True, rename="camel"):
    """One line that a shim says; `task` is None until it was given an order."""

    task: TaskObserved | None = None
    stop_seconds: float = 0.0
    """Longest that a stop of the task may take until everything is killed."""


class Shim(msgspec.Struct, frozen=True):
    """Which process a shim is."""

    pid: int
    start: str


class Record(msgspec.Struct, frozen=True, rename="camel"):
    """The state file of a task."""

    version: int
    arn: str
    boot_id: str
    shim: Shim
    task: TaskObserved | None = None
    stop_seconds: float = 0.0

    def living_shim(self) -> Process | None:
        """Return the shim if it still lives: same boot, pid, start, and the task's ARN in its environment."""
        if self.boot_id != process.boot_id():
            return None
        found = process.is_alive(self.shim.pid, self.shim.start)
        if found is None or process.variable(found.pid, TASK_VARIABLE) != self.arn:
            return None
        return found


def read(folder: Path) -> Record | None:
    """Read a task's state file; None when there is none, or none that can be understood."""
    path = folder / STATE_FILE
    try:
        record = msgspec.json.decode(path.read_bytes(), type=Record)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        _log.warning("`%s` cannot be read: %s", path, error)
        return None
    if record.version > STATE_VERSION or record.arn.rpartition("/")[2] != folder.name:
        _log.warning("`%s` is of another version or task", path)
        return None
    return record


def lost(task_id: str, last: TaskObserved | None) -> TaskObserved:
    """Return the last observation of a task whose shim died: only what was seen has an exit code."""
    return TaskObserved(
        task_id=task_id,
        containers=[_ended(one) for one in last.containers] if last is not None else [],
        ended=True,
        lost=True,
        failure=last.failure if last is not None else None,
    )


def _ended(one: ContainerObserved) -> ContainerObserved:
    if one.status == "STOPPED":
        return one
    reason = one.reason
    if one.status == "RUNNING" and one.exit_code is None:
        reason = "the process that watched over it died, and it was ended"
    return msgspec.structs.replace(
        one,
        status="STOPPED",
        pid=None,
        reason=reason,
        listening=[],
        finished_at=one.finished_at or time.time(),
    )

"""Ending the daemons of an instance, and the local tasks of one whose control plane died.

Used by `kecs.client.lifetime` at `stop`. Nothing is killed that is not surely a daemon of the instance.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from kecs import files
from kecs.client import k3d
from kecs.client import launch as launching
from kecs.client.agent import NotRunning, WentAway, exit_code, hung
from kecs.client.controlplane import ControlPlaneClient
from kecs.client.instance import require
from kecs.errors import ExitCode, KecsError
from kecs.paths import InstancePaths

STOP_LIMIT = 180.0
"""Seconds for tasks to end without a control plane: the longest stopTimeout of ECS is 120 s."""
Note = Callable[[str], None]


def any_daemon(paths: InstancePaths) -> bool:
    """Tell whether a daemon of the instance lives."""
    return launching.is_locked(paths.agent_lock) or launching.is_locked(paths.controlplane_lock)


def end_agent(paths: InstancePaths, note: Note) -> None:
    """End the agent; one that hangs is killed."""
    try:
        launching.stop_agent(paths)
    except KecsError as error:
        _kill_hung("agent", paths, error, note)


def end_controlplane(paths: InstancePaths, note: Note) -> None:
    """End all local tasks and the control plane, through it when it lives and without it when not."""
    client = ControlPlaneClient(paths)
    ended = False
    try:
        client.status()  # whether it answers at all is known sooner than whether tasks end
        for line in client.shutdown():
            if line.text:
                note(line.text)
        ended = True
    except (NotRunning, WentAway):
        pass
    except KecsError as error:
        _kill_hung("controlplane", paths, error, note)
    if not launching.wait_until_gone("controlplane", paths, launching.LIMIT):
        silent = hung("the control plane", paths.controlplane_pid, paths.controlplane_log)
        _kill_hung("controlplane", paths, silent, note)
        ended = False
    if not ended:
        _end_tasks(paths)


def _end_tasks(paths: InstancePaths) -> None:
    """End what a control plane that died left running: `python -m kecs.controlplane … --stop`."""
    if not paths.database.exists() and not paths.tasks.exists():
        return
    instance = require(paths)
    if instance.kubernetes is not None and (instance.k3d is None or k3d.is_down(paths, instance)):
        return  # pods stay, or there are none
    log = paths.controlplane_log
    try:
        with log.open("ab") as output:
            before = output.tell()
            done = subprocess.run(
                launching.command("controlplane", paths, ("--stop",)),
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                timeout=STOP_LIMIT,
                check=False,
            )
    except OSError as error:
        raise files.unusable(log, error) from error
    except subprocess.TimeoutExpired as error:
        raise KecsError(
            f"the tasks did not end in {STOP_LIMIT:g} s", f"see `{log}`, then run `kecs stop` again"
        ) from error
    if done.returncode != 0:
        words, hint = launching.last_words(launching.tail(log, before))
        raise KecsError(
            f"the tasks could not be ended: {words or f'exit code {done.returncode}'}",
            hint or f"see `{log}`",
            exit_code(done.returncode) if done.returncode > 0 else ExitCode.FAILED,
        )


def _kill_hung(daemon: launching.Daemon, paths: InstancePaths, error: KecsError, note: Note) -> None:
    """Kill a daemon that does not leave, when its pid file names a process that is surely this daemon."""
    pid_file = paths.agent_pid if daemon == "agent" else paths.controlplane_pid
    if not launching.is_locked(launching.lock_of(daemon, paths)):
        return
    try:
        pid = int(pid_file.read_text())
    except (OSError, ValueError):
        raise error from None
    if not _is_daemon(pid, daemon, paths):
        raise error
    note(f"{error.message}: killing it")
    os.kill(pid, 9)
    if not launching.wait_until_gone(daemon, paths, 5.0):
        raise error


def wait_for_beginners(paths: InstancePaths) -> None:
    """Wait for daemons that were being launched by the other one when it was told to leave.

    They have no lock yet. They find that the instance is stopped and leave; until then they would be in the
    way of `--stop`, and survive this command.
    """
    end = time.monotonic() + launching.LIMIT
    while _beginners(paths) and time.monotonic() < end:
        time.sleep(0.02)


def _beginners(paths: InstancePaths) -> bool:
    """Tell whether a daemon of this instance runs that has no lock: it begins, or is about to be gone."""
    found = 0
    for folder in Path("/proc").glob("[0-9]*"):
        pid = int(folder.name)
        found += any(_is_daemon(pid, daemon, paths) for daemon in ("agent", "controlplane"))
    held = sum(launching.is_locked(lock) for lock in (paths.agent_lock, paths.controlplane_lock))
    return found > held


def _is_daemon(pid: int, daemon: str, paths: InstancePaths) -> bool:
    """Tell whether process `pid` is this daemon of this instance, by its command line and its user."""
    try:
        if Path(f"/proc/{pid}").stat().st_uid != os.getuid():
            return False
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return all(word.encode() in words for word in (f"kecs.{daemon}", str(paths.home), paths.name))

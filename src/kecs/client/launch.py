"""Starting a daemon: spawn it, and learn that it is ready, or why it is not.

Used by the command line and, through `client.supervise`, by each daemon for the other. It imports no daemon:
they are started as `python -m kecs.agent` and `python -m kecs.controlplane`. Two that start the same daemon
at once are both right: the lock decides, the loser exits 0, and its starter waits for the winner.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, TypeVar

from kecs import files
from kecs.client import instance as instances
from kecs.client.agent import AgentClient, NotRunning, WentAway, exit_code, hung, is_up
from kecs.client.controlplane import ControlPlaneClient
from kecs.errors import ExitCode, KecsError
from kecs.paths import InstancePaths, instance_flag

T = TypeVar("T")
Daemon = Literal["agent", "controlplane"]
LIMIT = 15.0
"""Seconds until a daemon has to be ready. It takes 1 s; a slow disk or a database to migrate take longer."""
READY = b"ready\n"
"""What a daemon writes to `--ready-fd`."""
_NAMES: dict[Daemon, str] = {"agent": "the agent", "controlplane": "the control plane"}


def quiet(_note: str) -> None:
    """Ignore a note; the command line passes one that writes to standard error."""


def command(daemon: Daemon, paths: InstancePaths, extra: Sequence[str] = ()) -> list[str]:
    """Return the command line of a daemon.

    `-P` keeps the folder of the caller out of the import path: a `kecs/` or `json.py` there is not ours.
    """
    return [
        *(sys.executable, "-P", "-m", f"kecs.{daemon}"),
        *("--home", str(paths.home), "--instance", paths.name),
        *extra,
    ]


def launch(daemon: Daemon, paths: InstancePaths, extra: Sequence[str] = (), limit: float = LIMIT) -> None:
    """Start `daemon` and return when it is ready, or when another one that was started meanwhile is.

    Raises `KecsError` with the daemon's own last words when it ends, and when `limit` seconds pass.
    """
    end = time.monotonic() + limit
    files.make_private_folder(log_of(daemon, paths).parent)
    if _is_being_started(daemon, paths) and _winner_is_ready(daemon, paths, end, limit):
        return
    while not _start(daemon, paths, extra, end, limit):
        if _winner_is_ready(daemon, paths, end, limit):
            return


def log_of(daemon: Daemon, paths: InstancePaths) -> Path:
    """Return the log of `daemon`."""
    return paths.agent_log if daemon == "agent" else paths.controlplane_log


def socket_of(daemon: Daemon, paths: InstancePaths) -> Path:
    """Return the socket of `daemon`. Raises a usage error when its path is too long."""
    return paths.agent_socket if daemon == "agent" else paths.controlplane_socket


def lock_of(daemon: Daemon, paths: InstancePaths) -> Path:
    """Return the lock file of `daemon`."""
    return paths.agent_lock if daemon == "agent" else paths.controlplane_lock


def is_locked(path: Path) -> bool:
    """Tell whether a live process holds the lock file `path`."""
    if not path.exists():
        return False
    descriptor = files.try_lock(path)
    if descriptor is None:
        return True
    os.close(descriptor)
    return False


def ensure_controlplane(paths: InstancePaths, note: Callable[[str], None] = quiet) -> ControlPlaneClient:
    """Return a client of a control plane that runs; one that crashed is brought back.

    Raises `KecsError` (exit 5) when the instance is stopped, (exit 3) when there is no such instance.
    """
    if not is_up(str(paths.controlplane_socket)):
        require_running(paths)
        note("the control plane had ended: it is being started again")
        launch("controlplane", paths)
    return ControlPlaneClient(paths)


def connect_agent(paths: InstancePaths, note: Callable[[str], None] = quiet) -> AgentClient:
    """Return a client of an agent of this version; it is started when none runs.

    One of another version is replaced on the same ports. Raises `KecsError` (exit 5) when the instance is
    stopped, (exit 3) when there is no such instance.
    """
    for _ in range(3):
        client = AgentClient(paths)
        try:
            version = client.ask("agent.hello").get("version")
        except NotRunning:
            _start_agent(paths, note)
        except WentAway:  # killed while it was asked: the next one answers
            continue
        except BaseException:
            client.close()
            raise
        else:
            if not replace_other_version(client, str(version), note):
                return client
    raise KecsError(
        "the agent ends as soon as it has started", f"see `{paths.agent_log}`", ExitCode.UNREACHABLE
    )


def ask_agent(paths: InstancePaths, note: Callable[[str], None], ask: Callable[[AgentClient], T]) -> T:
    """Return what `ask` returns; ask once more when the agent died meanwhile.

    For what may be asked twice: the same forward again is the same forward. Raises as `connect_agent`.
    """
    try:
        with connect_agent(paths, note) as agent:
            return ask(agent)
    except WentAway:
        with connect_agent(paths, note) as agent:
            return ask(agent)


def replace_other_version(client: AgentClient, version: str, note: Callable[[str], None]) -> bool:
    """End the agent when it is of another version of KECS, and start ours; tell whether that was so."""
    from kecs import __version__

    if version == __version__:
        return False
    note(f"the agent is of KECS {version}, this is {__version__}: it is replaced, on the same ports")
    restart_agent(client.paths, client)
    return True


def restart_agent(paths: InstancePaths, client: AgentClient | None = None) -> None:
    """End the agent, if one runs, and start another; its forwards come back on the same ports."""
    stop_agent(paths, client)
    launch("agent", paths)


def stop_agent(paths: InstancePaths, client: AgentClient | None = None, limit: float = LIMIT) -> bool:
    """End the agent and wait until it is gone; tell whether one ran."""
    end = time.monotonic() + limit
    with client or AgentClient(paths) as agent:
        while True:
            try:
                agent.shutdown()
            except NotRunning:
                if not is_locked(paths.agent_lock):
                    return False
                if time.monotonic() < end:
                    time.sleep(0.02)  # it has the lock and does not listen yet, or no more
                    continue
            break
    if not wait_until_gone("agent", paths, max(1.0, end - time.monotonic())):
        raise hung(_NAMES["agent"], paths.agent_pid, paths.agent_log)
    return True


def wait_until_gone(daemon: Daemon, paths: InstancePaths, limit: float) -> bool:
    """Wait until nobody holds the lock of `daemon`; False when `limit` seconds pass."""
    end = time.monotonic() + limit
    while is_locked(lock_of(daemon, paths)):
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def require_running(paths: InstancePaths) -> instances.Instance:
    """Return the instance when it should be running; else raise (exit 3: there is none, 5: stopped)."""
    instance = instances.require(paths)
    if instance.desired != "running":
        raise stopped(paths)
    return instance


def stopped(paths: InstancePaths) -> KecsError:
    """Return the error for a command that needs a running instance."""
    return KecsError(
        f"the instance `{paths.name}` is stopped", f"start it by {start_command(paths)}", ExitCode.UNREACHABLE
    )


def start_command(paths: InstancePaths) -> str:
    """Return the command that starts the instance, in backticks."""
    return f"`kecs start{instance_flag(paths.name)}`"


def _start_agent(paths: InstancePaths, note: Callable[[str], None]) -> None:
    """Start the agent of an instance that should be running, and its control plane when that died too."""
    instance = require_running(paths)
    if instance.agent == "stopped":
        instances.change(paths, _with_agent)
    ensure_controlplane(paths, note)
    launch("agent", paths)


def _with_agent(instance: instances.Instance) -> instances.Instance:
    import msgspec

    return msgspec.structs.replace(instance, agent="running")


def _start(daemon: Daemon, paths: InstancePaths, extra: Sequence[str], end: float, limit: float) -> bool:
    """Spawn the daemon once. True: it is ready. False: it ended with 0, another one holds the lock."""
    log = log_of(daemon, paths)
    socket_of(daemon, paths)
    try:
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise files.unusable(log, error) from error
    ready, theirs = os.pipe()
    try:
        before = os.fstat(output).st_size
        process = subprocess.Popen(
            command(daemon, paths, ("--ready-fd", str(theirs), *extra)),
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=(theirs,),
            start_new_session=True,
        )
    except BaseException:
        os.close(ready)
        raise
    finally:
        os.close(output)
        os.close(theirs)
    try:
        said = _wait_for_ready(process, ready, end)
    except BaseException:
        _end(process)
        raise
    finally:
        os.close(ready)
    if said == READY:
        # Whoever lives on must reap it one day, and must not be told by a warning that it still runs.
        threading.Thread(target=process.wait, name=f"reaper of {daemon}", daemon=True).start()
        return True
    try:
        code = process.wait(max(0.1, end - time.monotonic()))
    except subprocess.TimeoutExpired:
        _end(process)
        raise KecsError(
            f"{_NAMES[daemon]} was not ready after {limit:g} s, so it was ended",
            f"see `{log}`",
            ExitCode.UNREACHABLE,
        ) from None
    if code == 0:
        return False
    raise _failure(daemon, log, before, code)


def _wait_for_ready(process: subprocess.Popen[bytes], ready: int, end: float) -> bytes:
    """Read what the daemon says; stops at its word, its end, or at `end`."""
    said = b""
    # Not select(): a daemon with a thousand connections has descriptors beyond its limit of 1,024.
    poll = select.poll()
    poll.register(ready, select.POLLIN)
    while said != READY and (left := end - time.monotonic()) > 0:
        # The pipe tells of an exit too, unless a child of the daemon still holds it open.
        if poll.poll(min(left, 0.25) * 1000):
            data = os.read(ready, 64)
            if not data:
                break
            said += data
        elif process.poll() is not None:
            break
    return said


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a daemon that was spawned and is of no use."""
    process.terminate()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _is_being_started(daemon: Daemon, paths: InstancePaths) -> bool:
    """Tell whether another one has the lock and does not listen yet: then a process is saved."""
    return is_locked(lock_of(daemon, paths)) and not is_up(str(socket_of(daemon, paths)))


def _winner_is_ready(daemon: Daemon, paths: InstancePaths, end: float, limit: float) -> bool:
    """Wait for the one that holds the lock. False: it is gone again, so another try is worth it."""
    address = str(socket_of(daemon, paths))
    while time.monotonic() < end:
        if is_up(address):
            return True
        if not is_locked(lock_of(daemon, paths)):
            require_running(paths)  # a daemon that reads `desired: stopped` leaves with 0 as well
            time.sleep(0.05)
            return is_up(address)
        time.sleep(0.02)
    error = hung(_NAMES[daemon], paths.agent_pid if daemon == "agent" else paths.controlplane_pid, None)
    raise KecsError(
        f"another process holds `{lock_of(daemon, paths)}` and did not become ready in {limit:g} s",
        f"see `{log_of(daemon, paths)}`",
        error.exit_code,
    )


def _failure(daemon: Daemon, log: Path, before: int, code: int) -> KecsError:
    words, hint = last_words(tail(log, before))
    how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
    return KecsError(
        f"{_NAMES[daemon]} did not start: {words or how}",
        hint or f"see `{log}`",
        exit_code(code) if code > 0 else ExitCode.UNREACHABLE,
    )


def tail(log: Path, start: int) -> str:
    """Return what was written to `log` since `start`; all of it when the log was rotated meanwhile."""
    try:
        with log.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(start if size >= start else 0, size - 65536))
            return file.read().decode(errors="replace")
    except OSError:
        return ""


def last_words(text: str) -> tuple[str | None, str | None]:
    """Return the message, and its hint when it has one, that tells best why a daemon ended.

    Daemons log JSON objects; what Python itself says when it cannot even begin is plain text. The last
    error, or line of plain text, counts; without one the last line of any level.
    """
    last: str | None = None
    for line in reversed(text.splitlines()):
        if not line.strip() or line.startswith((" ", "\t")):
            continue
        try:
            record = json.loads(line)
        except ValueError:
            return line.strip(), None
        if not isinstance(record, dict) or "message" not in record:
            return line.strip(), None
        message = str(record["message"])
        if record.get("level") in ("error", "critical"):
            trace = str(record.get("error") or "").strip().splitlines()
            hint = record.get("hint")
            return (f"{message}: {trace[-1]}" if trace else message), str(hint) if hint else None
        last = last or message
    return last, None

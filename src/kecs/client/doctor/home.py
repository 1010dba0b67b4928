"""Checks of KECS_HOME: whose it is, who else may look into it, what lies around in it."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

from kecs import settings
from kecs.client import launch
from kecs.client.agent import is_up
from kecs.client.doctor.finding import Finding, error, ok, warning
from kecs.client.doctor.machine import Machine
from kecs.errors import KecsError
from kecs.paths import InstancePaths

SPACE = 100 * 1024 * 1024
"""Bytes below which a full disk is near: a database, logs and state are written all the time."""
_ASIDE = re.compile(r"\.unreadable-\d{8}T\d{6}")
_HALF = re.compile(r"\..+\.(\d+)\.\d+")
"""A file that `kecs.files.write_atomic` was writing: `.<name>.<pid>.<nanoseconds>`."""


def check_home(machine: Machine) -> Iterator[Finding]:
    """Look whether the folder can be used, and by nobody else."""
    home = machine.settings.home
    try:
        state = home.stat()
    except FileNotFoundError:
        yield from _to_be_made(machine, home)
        return
    except OSError as why:
        yield error(
            "home", f"`{home}` cannot be looked at: {why.strerror}", "set KECS_HOME to a folder of yours"
        )
        return
    mode = stat.S_IMODE(state.st_mode)
    if not stat.S_ISDIR(state.st_mode):
        yield error("home", f"`{home}` is not a folder", "move it away, or set KECS_HOME to another folder")
    elif state.st_uid != machine.uid:
        yield error(
            "home",
            f"`{home}` belongs to another user (uid {state.st_uid})",
            f"`sudo chown -R $(id -un) {home}`, or set KECS_HOME to a folder of your own",
        )
    elif mode & stat.S_IRWXU != stat.S_IRWXU:
        yield error("home", f"`{home}` cannot be written: its mode is {mode:04o}", f"`chmod 700 {home}`")
    elif mode & 0o022:
        yield error("home", f"others may write to `{home}`: its mode is {mode:04o}", f"`chmod 700 {home}`")
    elif mode & 0o077:
        yield warning("home", f"others may look into `{home}`: its mode is {mode:04o}", f"`chmod 700 {home}`")
    else:
        yield ok("home", f"`{home}` is yours alone")
    yield from _space(machine, home)


def _to_be_made(machine: Machine, home: Path) -> Iterator[Finding]:
    above = next((folder for folder in home.parents if folder.is_dir()), Path("/"))
    if os.access(above, os.W_OK | os.X_OK):
        yield ok("home", f"`{home}` does not exist yet: `kecs start` makes it")
        yield from _space(machine, above)
    else:
        yield error(
            "home", f"`{home}` cannot be made in `{above}`", "set KECS_HOME to a folder that you can write"
        )


def _space(machine: Machine, folder: Path) -> Iterator[Finding]:
    free = machine.free_bytes(folder)
    if free < SPACE:
        yield warning(
            "home",
            f"{free // 1_000_000} MB are left on the disk of `{folder}`",
            "free some space: a full disk keeps KECS from writing what it promises to keep",
        )


def check_files(machine: Machine) -> Iterator[Finding]:
    """Look for files of others, for private ones that others may read, for paths and contents that fail."""
    found = [*_settings(machine)]
    for known in machine.instances:
        if known.trouble is not None:
            found.append(error("files", known.trouble.message, known.trouble.hint or "restore it"))
        found += _paths(known.paths)
        found += _owners(machine, known.paths)
    yield from found or [ok("files", "every file can be read, and by you alone")]


def _settings(machine: Machine) -> Iterator[Finding]:
    try:
        settings.knobs(machine.settings, machine.environ)
    except KecsError as why:
        yield error("files", why.message, why.hint or "restore it")


def _paths(paths: InstancePaths) -> Iterator[Finding]:
    try:
        _ = paths.agent_socket, paths.controlplane_socket
    except KecsError as why:
        yield error("files", why.message, why.hint or "set KECS_HOME to a shorter path")


def _owners(machine: Machine, paths: InstancePaths) -> Iterator[Finding]:
    foreign, open_ = [], []
    for file in _own_files(paths):
        try:
            state = file.lstat()
        except OSError:
            continue  # it was just replaced
        if state.st_uid != machine.uid:
            foreign.append(file)
        elif not stat.S_ISLNK(state.st_mode) and state.st_mode & 0o077 and file.is_file():
            open_.append(file)
    if foreign:
        yield error(
            "files",
            f"{_named(foreign)} of the instance `{paths.name}` belong to another user, as after `sudo kecs`",
            f"`sudo chown -R $(id -un) {paths.root}`, and call `kecs` without sudo",
        )
    if open_:
        yield warning(
            "files",
            f"{_named(open_)} of the instance `{paths.name}` can be read by others",
            f"`chmod -R go= {paths.root}`",
        )


def check_stale(machine: Machine) -> Iterator[Finding]:
    """Look for what dead daemons left behind, and for files that were moved aside."""
    found: list[Finding] = []
    for known in machine.instances:
        found += _left(known.paths)
        for file in _own_files(known.paths):
            if _ASIDE.search(file.name):
                found.append(
                    warning(
                        "stale files",
                        f"`{file}` could not be read and was moved aside",
                        f"look what was in it, then `rm {file}`",
                    )
                )
            elif (match := _HALF.fullmatch(file.name)) and not _lives(int(match[1])):
                found.append(
                    warning("stale files", f"`{file}` was being written when its writer died", f"`rm {file}`")
                )
    yield from found or [ok("stale files", "nothing lies around")]


def _left(paths: InstancePaths) -> Iterator[Finding]:
    try:
        daemons = (
            ("control plane", paths.controlplane_lock, paths.controlplane_socket, paths.controlplane_pid),
            ("agent", paths.agent_lock, paths.agent_socket, paths.agent_pid),
        )
    except KecsError:
        return  # the path of a socket is too long: `check_files` says so
    for name, lock, address, pid in daemons:
        left = [file for file in (address, pid) if os.path.lexists(file)]
        if left and not launch.is_locked(lock) and not is_up(str(address)):
            yield warning(
                "stale files",
                f"the {name} of the instance `{paths.name}` died and left {_named(left)}",
                f"the next start takes care of it: {launch.start_command(paths)}",
            )


def _own_files(paths: InstancePaths) -> Iterator[Path]:
    """Yield the files of an instance's own folders, without those of its tasks."""
    for folder in (paths.root, paths.forwards, paths.forward_logs):
        try:
            yield from sorted(folder.iterdir())
        except OSError:
            continue


def _named(files: list[Path]) -> str:
    named = " and ".join(f"`{file.name}`" for file in files[:2])
    return named if len(files) <= 2 else f"{named} and {len(files) - 2} more files"


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True

"""The life of an instance: created and started, stopped, destroyed; each step can be repeated safely.

`instance.yaml` says what is wanted before anything is started or told to stop, and is put back when a start
fails (docs/design/contracts.md, 5). Used by the command line; it prints nothing, `note` tells of progress.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import string
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from kecs import files
from kecs.client import cluster, ending, metrics_address
from kecs.client import launch as launching
from kecs.client.agent import is_up
from kecs.client.instance import Instance, Kubernetes, change, read, require, write
from kecs.errors import ExitCode, KecsError
from kecs.paths import InstancePaths, instances

RUNTIMES = ("local", "kubernetes")
"""Runtimes that are built."""
DEFAULT_REGION = "us-east-1"
_KEPT_VARIABLES = ("PATH", "HOME", "USER", "LANG", "TMPDIR")
_KEY_LETTERS = string.ascii_uppercase + "234567"
Note = Callable[[str], None]


class Wishes(msgspec.Struct, frozen=True, kw_only=True):
    """What `kecs start` was told; None means: as it was, or choose."""

    port: int | None = None
    """0 chooses one, or keeps the one that was chosen."""
    runtime: str | None = None
    region: str | None = None
    require_key: bool | None = None
    kubeconfig: str | None = None
    context: str | None = None
    node_ports: str | None = None
    """`FIRST-LAST`."""
    metrics_address: str | None = None
    """`ADDR:PORT`, or `off`."""
    knobs: dict[str, float] = {}
    environment: Mapping[str, str]
    """The caller's environment, whole."""
    directory: str


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What `start` did."""

    instance: Instance
    already: bool
    """It ran before."""
    agent: bool
    """The agent was started, because there are forwards."""


def start(paths: InstancePaths, wishes: Wishes, note: Note) -> Outcome:
    """Start the instance and return when its API answers; create it when there is none.

    Raises `KecsError`: exit 4 when it exists with other settings, the daemon's own error when that dies. A
    start that fails leaves things as they were.
    """
    for daemon in ("agent", "controlplane"):
        launching.socket_of(daemon, paths)  # too long a path: before a folder exists
    forwards = has_forwards(paths)
    chosen = _cluster(paths, wishes)
    fresh, before, now = _wish(paths, wishes, chosen)
    already = before is not None and before.desired == "running" and is_up(str(paths.controlplane_socket))
    if not already:
        note(f"starting the instance `{paths.name}`")
        try:
            launching.launch("controlplane", paths)
        except BaseException as error:
            if fresh and isinstance(error, KecsError):
                _keep_the_log(paths, error)
            _put_back(paths, before, fresh=fresh)
            raise
    missing = forwards and not is_up(str(paths.agent_socket))
    if missing:
        note("starting the agent: there are port forwards")
        launching.launch("agent", paths)
    return Outcome(instance=read(paths) or now, already=already, agent=missing)


def stop(paths: InstancePaths, note: Note) -> bool:
    """Stop the instance so that nothing of it runs here; tell whether it was not stopped before.

    Order: desired, agent, tasks, control plane. What runs on a cluster stays there, and the next start takes
    it up again. Safe to repeat after it was interrupted.
    """
    instance = require(paths)
    if instance.desired == "stopped" and instance.ended and not ending.any_daemon(paths):
        return False
    change(paths, lambda was: msgspec.structs.replace(was, desired="stopped", ended=False))
    note(f"stopping the instance `{paths.name}`")
    ending.end_agent(paths, note)
    ending.wait_for_beginners(paths)
    for _ in range(3):
        ending.end_controlplane(paths, note)
        ending.wait_for_beginners(paths)
        if not ending.any_daemon(paths):
            break
        # A daemon that the other one was launching while both were told to leave: it leaves by itself.
        ending.end_agent(paths, note)
    else:
        raise KecsError(
            f"a daemon of the instance `{paths.name}` does not end",
            f"see `{paths.controlplane_log}` and `{paths.agent_log}`, then run `kecs stop` again",
            ExitCode.UNREACHABLE,
        )
    change(paths, lambda was: msgspec.structs.replace(was, ended=True))
    return True


def destroy(paths: InstancePaths, note: Note, *, force: bool = False) -> None:
    """Stop the instance and delete its folder, and first of all what it has on a cluster.

    Raises `KecsError` (exit 3) when there is none, (exit 5) when its cluster cannot be reached and (exit 4)
    when that is another one than it was: then nothing is deleted, unless `force` is given, which leaves
    behind what is on the cluster.
    """
    instance = read(paths)
    reached = instance is not None and cluster.is_reached(instance, note, force=force)
    if paths.instance_file.exists() or not paths.root.is_dir() or ending.any_daemon(paths):
        stop(paths, note)
    if instance is not None and reached:
        cluster.clear(instance, note)
    try:
        shutil.rmtree(paths.root)
    except OSError as error:
        raise files.unusable(Path(error.filename or paths.root), error) from error


def _cluster(paths: InstancePaths, wishes: Wishes) -> Kubernetes | None:
    """Return the cluster of an instance that is about to be created or started, once it has answered.

    Nothing is written before: what is wrong with the cluster leaves everything as it was.
    """
    before = read(paths)
    if before is None and wishes.runtime == "kubernetes":
        return cluster.choose(wishes.kubeconfig, wishes.context)
    if before is not None and before.kubernetes is not None and before.desired != "running":
        _check(paths, before, wishes)
        cluster.confirm(before.kubernetes)
    return None


def has_forwards(paths: InstancePaths) -> bool:
    """Tell whether `config.yaml` has work for an agent, or is broken: the agent moves it aside and says so.

    Work is forwards, those that are to be made of services (`autos`), and answering by name.
    Raises `KecsError` (exit 4) when a newer version wrote it.
    """
    try:
        document = files.read_yaml(paths.forwards_config, version=1)
    except files.Unreadable:
        return True
    kept = document or {}
    names = kept.get("names")  # its port is kept when the last who wanted it is gone
    wants_names = bool(names.get("owners")) if isinstance(names, dict) else bool(names)
    return bool(kept.get("forwards") or kept.get("autos") or wants_names)


def _wish(
    paths: InstancePaths, wishes: Wishes, chosen: Kubernetes | None
) -> tuple[bool, Instance | None, Instance]:
    """Write down that the instance should run; return (the folder is new, before, now)."""
    fresh = False
    for _ in range(3):
        fresh = _make_folders(paths) or fresh
        try:
            with files.locked(paths.instance_lock):
                before = read(paths)
                now = _changed(paths, before, wishes) if before else _created(paths, wishes, chosen)
                if now != before:
                    write(paths, now)
                return fresh, before, now
        except KecsError:
            # Without the folder: another start, which had created it, failed and removed it. Once more.
            if paths.root.is_dir():
                if fresh and not paths.instance_file.exists():
                    shutil.rmtree(paths.root, ignore_errors=True)
                raise
    raise KecsError(f"`{paths.root}` is removed again and again", "run the command again")


def _make_folders(paths: InstancePaths) -> bool:
    """Create the instance's folder, and those above, each of them private; tell whether it is new."""
    for folder in (paths.home, instances(paths.home)):
        files.make_private_folder(folder)
    try:
        paths.root.mkdir(mode=0o700)
    except FileExistsError:
        fresh = False
    except OSError as error:
        raise files.unusable(paths.root, error) from error
    else:
        fresh = True
    files.make_private_folder(paths.root)
    return fresh


def _created(paths: InstancePaths, wishes: Wishes, chosen: Kubernetes | None) -> Instance:
    if wishes.runtime == "kubernetes" and chosen is None:
        what = f"the instance `{paths.name}` was removed while it was being started"
        raise KecsError(what, "run the command again")
    env = wishes.environment
    region = wishes.region or env.get("AWS_REGION") or env.get("AWS_DEFAULT_REGION") or DEFAULT_REGION
    return Instance(
        name=paths.name,
        id=secrets.token_hex(4),
        runtime=wishes.runtime or "local",
        region=region,
        api_port=wishes.port or 0,
        desired="running",
        access_key_id="KECS" + "".join(secrets.choice(_KEY_LETTERS) for _ in range(16)),
        require_key=bool(wishes.require_key),
        environment=kept_environment(env),
        directory=wishes.directory,
        knobs=wishes.knobs,
        kubernetes=chosen,
        node_ports=wishes.node_ports,
        metrics_address=metrics_address.wanted(wishes.metrics_address, None),
        created_at=time.time(),
    )


def _changed(paths: InstancePaths, before: Instance, wishes: Wishes) -> Instance:
    """Apply `wishes` to an instance that exists. Raises `KecsError` (exit 4) where they contradict it."""
    _check(paths, before, wishes)
    if before.desired == "running":
        return msgspec.structs.replace(before, agent="running")
    return msgspec.structs.replace(
        before,
        desired="running",
        agent="running",
        ended=False,
        api_port=wishes.port or before.api_port,
        require_key=before.require_key if wishes.require_key is None else wishes.require_key,
        environment=kept_environment(wishes.environment),
        directory=wishes.directory,
        knobs=wishes.knobs,
        node_ports=wishes.node_ports or before.node_ports,
        metrics_address=metrics_address.wanted(wishes.metrics_address, before.metrics_address),
    )


def _check(paths: InstancePaths, before: Instance, wishes: Wishes) -> None:
    """Raise `KecsError` (exit 4) where wishes contradict what an instance is."""
    running = before.desired == "running"
    chosen = before.kubernetes
    off = metrics_address.OFF
    metrics = metrics_address.wanted(wishes.metrics_address, before.metrics_address)
    for what, wish, is_now in (
        ("runtime", wishes.runtime, before.runtime),
        ("region", wishes.region, before.region),
        ("port", wishes.port or None if running and before.api_port else None, before.api_port),
        ("require-key", wishes.require_key if running else None, before.require_key),
        ("node-ports", wishes.node_ports if running else None, before.node_ports),
        ("metrics-address", (metrics or off) if running else None, before.metrics_address or off),
        ("kubeconfig", _full(wishes.kubeconfig), chosen.kubeconfig if chosen is not None else None),
        ("context", wishes.context, chosen.context if chosen is not None else None),
    ):
        if wish is not None and wish != is_now:
            raise _conflict(paths, what, wish, is_now)


def _full(path: str | None) -> str | None:
    return None if path is None else str(Path(path).expanduser().absolute())


def _conflict(paths: InstancePaths, what: str, wish: object, is_now: object) -> KecsError:
    if what == "metrics-address":
        hint = f"while it runs: `kecs port-forward agent restart --metrics-address {wish}`"
    elif what in ("port", "require-key", "node-ports"):
        hint = "stop it first: `kecs stop`"
    else:
        hint = f"the {what} was chosen at the first start; for another: `kecs start --instance NAME`"
    return KecsError(
        f"the instance `{paths.name}` has {what} {_shown(is_now)}, not {_shown(wish)}",
        hint,
        ExitCode.CONFLICT,
    )


def _shown(value: object) -> str:
    if value is None:
        return "none"
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else f"`{value}`"


def kept_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return what a local process gets of the caller's environment (docs/design/contracts.md, 7)."""
    return {
        name: value
        for name, value in sorted(environment.items())
        if name in _KEPT_VARIABLES or name.startswith("LC_")
    }


def _put_back(paths: InstancePaths, before: Instance | None, *, fresh: bool) -> None:
    """Undo the wish of a start that failed, unless another start succeeds."""
    with contextlib.suppress(KecsError), files.locked(paths.instance_lock):
        if launching.is_locked(paths.controlplane_lock):
            return
        if before is not None:
            write(paths, before)
        elif fresh:
            shutil.rmtree(paths.root, ignore_errors=True)
        else:
            paths.instance_file.unlink(missing_ok=True)


def _keep_the_log(paths: InstancePaths, error: KecsError) -> None:
    """Copy the log that the error's hint names: the folder it is in is about to be removed."""
    log = paths.controlplane_log
    if error.hint and str(log) in error.hint:
        with contextlib.suppress(OSError):
            number, name = tempfile.mkstemp(prefix="kecs-start-", suffix=".log")
            os.close(number)
            shutil.copyfile(log, name)
            error.hint = error.hint.replace(str(log), name)

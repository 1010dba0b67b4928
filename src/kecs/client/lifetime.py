"""The life of an instance: created and started, stopped, destroyed; each step can be repeated safely.

`instance.yaml` says what is wanted before anything is started or told to stop, and is put back when a start
fails (docs/design/contracts.md, 5). Used by the command line; it prints nothing, `note` tells of progress.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from kecs import files
from kecs.client import choice, cluster, ending, k3d
from kecs.client import launch as launching
from kecs.client.agent import is_up
from kecs.client.choice import Chosen
from kecs.client.instance import Instance, Kubernetes, change, make_folders, read, require, write
from kecs.client.wishes import Wishes, changed, check, created
from kecs.errors import ExitCode, KecsError
from kecs.paths import InstancePaths

Note = Callable[[str], None]


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
    has_forwards(paths)  # a newer version's: before anything is written
    chosen = _choose(paths, wishes, note)
    if chosen.runtime != "k3d":
        return _start(paths, wishes, chosen, _cluster(paths, wishes, chosen), note)
    from kecs.client import k3d_start

    k3d_start.check(paths, wishes)
    with k3d.life(paths, note) as fresh:
        provided = k3d_start.provide(paths, wishes, chosen, note, fresh=fresh)
        try:
            return _start(paths, wishes, chosen, None, note, fresh=provided.fresh)
        except BaseException:
            if not launching.is_locked(paths.controlplane_lock):
                provided.undo()
            raise


def stop(paths: InstancePaths, note: Note) -> bool:
    """Stop the instance so that nothing of it runs here; tell whether it was not stopped before.

    Order: desired, agent, tasks, control plane, and on k3d the cluster. What runs on somebody's cluster stays
    there, and the next start takes it up again. Safe to repeat after it was interrupted.
    """
    instance = require(paths)
    if instance.k3d is None:
        return _stop(paths, instance, note)
    with k3d.life(paths, note):
        return _stop(paths, require(paths), note)


def destroy(paths: InstancePaths, note: Note, *, force: bool = False) -> None:
    """Stop the instance and delete its folder, and first of all what it has on a cluster, or its own cluster.

    Raises `KecsError` (exit 3) when there is none, (exit 5) when its cluster cannot be reached and (exit 4)
    when that is another one than it was: then nothing is deleted, unless `force` is given, which leaves
    behind what is on the cluster.
    """
    instance = read(paths)
    if instance is None or instance.k3d is None:
        reached = instance is not None and cluster.is_reached(instance, note, force=force)
        if paths.instance_file.exists() or not paths.root.is_dir() or ending.any_daemon(paths):
            stop(paths, note)
        if instance is not None and reached:
            cluster.clear(instance, note)
        with _deleting(paths):
            shutil.rmtree(paths.root)
        return
    with k3d.life(paths, note):
        instance = require(paths)
        reached = k3d.is_deletable(paths, instance, note, force=force)
        _stop(paths, instance, note, cluster_too=False)
        if reached:
            k3d.delete(paths, instance, note)
        with _deleting(paths):
            k3d.clear_folder(paths)


def _choose(paths: InstancePaths, wishes: Wishes, note: Note) -> Chosen:
    """Return the runtime that the instance has, or will have. Raises `KecsError` (exit 2, 4)."""
    before = read(paths)
    if before is not None and not k3d.never_was(before):
        check(paths, before, wishes)
        choice.check_node_ports(before.runtime, wishes.node_ports)
        return Chosen(before.runtime, before.auto)
    chosen = choice.choose(wishes.runtime or wishes.default_runtime, wishes.environment)
    choice.check(chosen, wishes.given())
    choice.check_node_ports(chosen.runtime, wishes.node_ports)
    if (why := choice.told(chosen)) is not None:
        note(why)
    return chosen


def _start(
    paths: InstancePaths,
    wishes: Wishes,
    chosen: Chosen,
    kubernetes: Kubernetes | None,
    note: Note,
    *,
    fresh: bool = False,
) -> Outcome:
    """Start the daemons of an instance whose cluster, if any, is there. `fresh`: so is its folder."""
    forwards = has_forwards(paths)
    made, before, now = _wish(paths, wishes, chosen, kubernetes)
    already = before is not None and before.desired == "running" and is_up(str(paths.controlplane_socket))
    if not already:
        note(f"starting the instance `{paths.name}`")
        try:
            launching.launch("controlplane", paths)
        except BaseException as error:
            if (made or fresh) and isinstance(error, KecsError):
                _keep_the_log(paths, error)
            _put_back(paths, before, fresh=made)
            raise
    missing = forwards and not is_up(str(paths.agent_socket))
    if missing:
        note("starting the agent: there are port forwards")
        launching.launch("agent", paths)
    return Outcome(instance=read(paths) or now, already=already, agent=missing)


def _stop(paths: InstancePaths, instance: Instance, note: Note, *, cluster_too: bool = True) -> bool:
    """Stop the instance; a cluster of its own goes on without `cluster_too`."""
    on_k3d = instance.k3d is not None and cluster_too and not k3d.never_was(instance)
    ended = instance.desired == "stopped" and instance.ended and not ending.any_daemon(paths)
    if ended and not (on_k3d and not k3d.is_down(paths, instance)):
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
    if on_k3d:
        k3d.stop(paths, instance, note)
    change(paths, lambda was: msgspec.structs.replace(was, ended=True))
    return True


@contextlib.contextmanager
def _deleting(paths: InstancePaths) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise files.unusable(Path(error.filename or paths.root), error) from error


def _cluster(paths: InstancePaths, wishes: Wishes, chosen: Chosen) -> Kubernetes | None:
    """Return somebody's cluster for an instance that is about to be created or started, once it has answered.

    Nothing is written before: what is wrong with the cluster leaves everything as it was.
    """
    before = read(paths)
    if before is None and chosen.runtime == "kubernetes":
        return cluster.choose(wishes.kubeconfig, wishes.context)
    if before is not None and before.kubernetes is not None and before.desired != "running":
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
    paths: InstancePaths, wishes: Wishes, chosen: Chosen, kubernetes: Kubernetes | None
) -> tuple[bool, Instance | None, Instance]:
    """Write down that the instance should run; return (the folder is new, before, now)."""
    fresh = False
    for _ in range(3):
        fresh = make_folders(paths) or fresh
        try:
            with files.locked(paths.instance_lock):
                before = read(paths)
                if before is None:
                    now = _created(paths, wishes, chosen, kubernetes)
                else:
                    now = changed(paths, before, wishes)
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


def _created(paths: InstancePaths, wishes: Wishes, chosen: Chosen, kubernetes: Kubernetes | None) -> Instance:
    if chosen.runtime == "k3d" or (chosen.runtime == "kubernetes" and kubernetes is None):
        what = f"the instance `{paths.name}` was removed while it was being started"
        raise KecsError(what, "run the command again")
    return created(paths, wishes, chosen, kubernetes=kubernetes)


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

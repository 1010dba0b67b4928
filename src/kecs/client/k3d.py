"""The cluster that KECS makes for an instance on k3d: whose it is, how it is, stopped, deleted.

Used by `kecs.client.lifetime` and `k3d_start`, by `kecs status` and `kecs doctor`. `kecs.k3d`, which is
imported late, drives the programs; here is what an instance promises: a cluster with another instance's id,
or without one, is never touched.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

import msgspec

from kecs import files
from kecs.client import instance as instances
from kecs.client.cluster import nothing_deleted
from kecs.client.instance import Instance
from kecs.errors import ExitCode, KecsError
from kecs.paths import InstancePaths

if TYPE_CHECKING:
    from kecs.k3d.cluster import K3dCluster
    from kecs.k3d.tools import Tools

Note = Callable[[str], None]


class State(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """How a cluster is, for `kecs status`."""

    cluster: str
    state: str
    """`absent`, `running`, `stopped`, `broken`, `half-made`, or `unknown`: nobody could be asked."""
    detail: str
    """What is behind the state, for a person."""
    nodes: list[dict[str, str]]
    """`name`, `role` and `state` of each node."""


def cluster_name(paths: InstancePaths) -> str:
    """Return the name of the instance's cluster: 32 characters at most, as k3d wants it."""
    return f"kecs-{paths.name}"


def never_was(instance: Instance) -> bool:
    """Tell whether the instance's first start was interrupted before it had its cluster."""
    return instance.k3d is not None and instance.kubernetes is None


@contextlib.contextmanager
def life(paths: InstancePaths, note: Note) -> Iterator[bool]:
    """Hold the instance's `life_lock`; waits for another command that does. Yields whether the folder is new.

    A folder that holds no instance afterwards, and nothing else, is removed.
    """
    told = fresh = False
    while True:
        fresh = instances.make_folders(paths) or fresh
        try:
            descriptor = files.try_lock(paths.life_lock)
        except KecsError:
            if paths.root.is_dir():
                raise
            continue  # the other command has just removed the folder
        if descriptor is not None:
            if _is_at(paths, descriptor):
                break
            os.close(descriptor)  # the folder was removed meanwhile, with the file that we have locked
            continue
        if not told:
            note(f"another command starts, stops or destroys the instance `{paths.name}`: waiting for it")
            told = True
        time.sleep(0.1)
    try:
        yield fresh
    finally:
        if not paths.instance_file.exists() and _is_at(paths, descriptor):
            # Our lock goes last: who has locked another file of that name then is in a folder of its own.
            with contextlib.suppress(OSError):
                paths.k3d_lock.unlink(missing_ok=True)
                if list(paths.root.iterdir()) == [paths.life_lock]:
                    paths.life_lock.unlink()
                    paths.root.rmdir()
        os.close(descriptor)


def clear_folder(paths: InstancePaths) -> None:
    """Delete all in the instance's folder but the lock of `life`, which then deletes the folder itself."""
    for child in list(paths.root.iterdir()):
        if child == paths.life_lock:
            continue
        if child.is_dir() and not child.is_symlink():
            shutil.rmtree(child)
        else:
            child.unlink(missing_ok=True)


def stop(paths: InstancePaths, instance: Instance, note: Note) -> None:
    """Stop the cluster; k3d drains its nodes. Raises `KecsError` (exit 5) when Docker does not answer."""
    try:
        cluster = cluster_of(paths, tools_of(instance, os.environ), note)
        state = cluster.state()[0]
    except KecsError as error:
        again = "then run `kecs stop` again"
        raise KecsError(
            f"the cluster `{cluster_name(paths)}` could not be stopped: {error.message}",
            error.hint_and(again),
            error.exit_code,
        ) from error
    if state in ("absent", "stopped"):
        return
    refuse_foreign(cluster, instance.id)
    note(f"stopping the cluster `{cluster.name}`")
    cluster.stop()


def is_down(paths: InstancePaths, instance: Instance) -> bool:
    """Tell whether nothing of the cluster runs; so it is as well when nobody can be asked."""
    try:
        return cluster_of(paths, tools_of(instance, os.environ)).state()[0] in ("absent", "stopped")
    except KecsError:
        return True


def is_deletable(paths: InstancePaths, instance: Instance, note: Note, *, force: bool) -> bool:
    """Tell whether the cluster can be deleted; with `force` one that cannot is left behind.

    Raises `KecsError` (exit 5) when k3d or Docker do not answer and (exit 4) when the cluster of this name
    is not the instance's.
    """
    from kecs.k3d import tools as programs

    try:
        tools = tools_of(instance, os.environ)
        programs.check(tools)
        refuse_foreign(cluster_of(paths, tools), instance.id)
    except KecsError as error:
        later = f"`k3d cluster delete {cluster_name(paths)}`"
        if not force:
            raise nothing_deleted(error, "the cluster", later) from error
        note(f"{error.message}: the cluster stays there, until {later}")
        return False
    return True


def delete(paths: InstancePaths, instance: Instance, note: Note) -> None:
    """Delete the cluster; return when its containers, network and volumes are gone. Raises `KecsError`."""
    note(f"deleting the cluster `{cluster_name(paths)}`")
    cluster_of(paths, tools_of(instance, os.environ), note).delete()


def look(paths: InstancePaths, instance: Instance, environment: Mapping[str, str]) -> State:
    """Return how the cluster is, by what its containers are. Raises nothing."""
    try:
        cluster = cluster_of(paths, tools_of(instance, environment))
        nodes = cluster.nodes()
    except KecsError as error:
        return State(cluster=cluster_name(paths), state="unknown", detail=error.message, nodes=[])
    state, detail = cluster.judged(nodes)
    shown = [{"name": each.name, "role": each.role, "state": each.state} for each in nodes]
    return State(cluster=cluster.name, state=state, detail=detail, nodes=shown)


def tools_of(instance: Instance | None, environment: Mapping[str, str]) -> Tools:
    """Find k3d and Docker: that Docker which the cluster was created in, whatever the environment says now.

    Raises `KecsError` (exit 5) when one of the programs is missing.
    """
    from kecs.k3d import tools as programs

    if instance is None or instance.k3d is None:
        return programs.find(environment)
    others = {name: value for name, value in environment.items() if not name.startswith("DOCKER_")}
    return programs.find(others | instance.k3d.docker)


def cluster_of(paths: InstancePaths, tools: Tools, note: Note | None = None) -> K3dCluster:
    """Return the adapter of the instance's cluster, whether it is there or not."""
    from kecs.k3d.cluster import K3dCluster
    from kecs.k3d.run import quiet

    return K3dCluster(tools, cluster_name(paths), paths.root, note or quiet)


def refuse_foreign(cluster: K3dCluster, instance_id: str | None) -> None:
    """Raise `KecsError` (exit 4) when there is a cluster of this name that is not the instance's.

    One without a server is what is left of a creation that was interrupted early: it has no id, and it is
    the instance's own when that was being created.
    """
    owner = cluster.owner()
    if instance_id is not None and owner == instance_id:
        return
    if cluster.state()[0] == "absent":
        return
    if instance_id is not None and owner is None and not _has_server(cluster):
        return
    whose = f"belongs to another instance (id {owner})" if owner is not None else "was not made by KECS"
    raise KecsError(
        f"there is a k3d cluster `{cluster.name}` already, which {whose}",
        f"choose another name: `kecs start --instance NAME`; or, when nobody needs it: "
        f"`k3d cluster delete {cluster.name}`",
        ExitCode.CONFLICT,
    )


def _has_server(cluster: K3dCluster) -> bool:
    return any(node.role == "server" for node in cluster.nodes())


def _is_at(paths: InstancePaths, descriptor: int) -> bool:
    """Tell whether the lock file that was opened is still the one in the instance's folder."""
    try:
        return os.path.samestat(os.fstat(descriptor), paths.life_lock.stat())
    except FileNotFoundError:
        return False

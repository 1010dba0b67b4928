"""The start of an instance on k3d: what must be right before, its cluster created, started, repaired.

Used by `kecs.client.lifetime`. A start that fails or is interrupted leaves nothing behind, or what the next
one clears: `instance.yaml` says first what is about to be created, and last that it was.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import msgspec

from kecs import files
from kecs.client import cluster as clusters
from kecs.client import instance as instances
from kecs.client import k3d, k3d_ports, wishes
from kecs.client.choice import Chosen
from kecs.client.instance import Instance, K3d, Kubernetes
from kecs.client.wishes import Wishes
from kecs.errors import KecsError
from kecs.paths import InstancePaths

if TYPE_CHECKING:
    from kecs.k3d.cluster import K3dCluster

T = TypeVar("T")
Note = Callable[[str], None]
REACH_LIMIT = 60.0
"""Seconds for the API of a cluster that was started to say which cluster it is."""
LOOK_AGAIN = 0.5
"""Seconds until it is asked once more."""
PORT_TRIES = 5
"""So often other ports are tried: Docker may refuse one that can be bound, as another container's."""
MANY_PORTS = 200
"""Published ports from which on creating and deleting take noticeably longer: 1000 cost 33 s and 88 s."""


class Provided(NamedTuple):
    """A cluster that runs."""

    fresh: bool
    """It was created with its instance, which did not exist before."""
    undo: Callable[[], None]
    """Put back what was there before; for a start that fails later on. Raises nothing."""


def check(paths: InstancePaths, given: Wishes) -> None:
    """Raise `KecsError` (exit 5) when k3d or Docker is missing, too old or silent; nothing is made before."""
    from kecs.k3d import tools as programs

    programs.check(k3d.tools_of(instances.read(paths), given.environment))


def provide(paths: InstancePaths, given: Wishes, chosen: Chosen, note: Note, *, fresh: bool) -> Provided:
    """Have the instance's cluster run: created at its first start, else started, repaired or made anew.

    Call it under `life`. What it creates is written to `instance.yaml` first, as `stopped`. `fresh` says that
    the folder was made for this start. Raises `KecsError`; things are then as they were.
    """
    before = instances.read(paths)
    cluster = k3d.cluster_of(paths, k3d.tools_of(before, given.environment), note)
    if before is None or k3d.never_was(before):
        k3d.refuse_foreign(cluster, before.id if before is not None else None)
        if before is not None:
            note(f"clearing what is left of the cluster `{cluster.name}`, whose creation was interrupted")
            cluster.delete()
            paths.instance_file.unlink()
        return _create(paths, cluster, given, chosen, note, fresh=fresh)
    wishes.check(paths, before, given)
    return _start(paths, cluster, before, note)


def _create(
    paths: InstancePaths, cluster: K3dCluster, given: Wishes, chosen: Chosen, note: Note, *, fresh: bool
) -> Provided:
    """Create the instance, `stopped`, and its cluster; a port that was taken meanwhile gives way."""
    from kecs.k3d.failures import PortTaken

    def undo() -> None:
        _remove(paths, cluster, note, fresh=fresh)

    taken: set[int] = set()
    try:
        while True:
            made = _write(paths, cluster.name, given, chosen, taken)
            wished = k3d_ports.is_block(given.node_ports) and k3d_ports.read(made.published)
            try:
                _make(paths, cluster, made, note)
                return Provided(fresh=True, undo=undo)
            except PortTaken as error:
                if error.port in taken or len(taken) == PORT_TRIES or (wished and error.port in wished):
                    raise
                taken.add(error.port)
                note(f"port {error.port} was taken meanwhile: trying others")
    except BaseException as error:
        undo()
        if isinstance(error, KecsError) and chosen.auto is not None:
            error.hint = f"{error.hint or 'look at `docker ps`'}; without k3d: `kecs start --runtime local`"
        raise


def _write(
    paths: InstancePaths, name: str, given: Wishes, chosen: Chosen, taken: AbstractSet[int]
) -> Instance:
    """Choose the ports of a new instance, but none of `taken`, and write it down."""
    balanced = bool(given.load_balancer)
    with k3d_ports.choosing(paths.home):
        block = k3d_ports.choose_block(paths.home, paths.name, given.node_ports, taken)
        ports = k3d_ports.api_ports(paths.home, paths.name, 2 if balanced else 1, taken)
        it = K3d(
            cluster=name,
            api_port=ports[0],
            balancer_api_port=ports[1] if balanced else None,
            load_balancer=balanced,
            agents=given.agents or 0,
            image=given.k3s_image,
            k3s_args=given.k3s_args or (),
            registries=given.registries or (),
            import_images=given.import_images or "auto",
            docker={name: value for name, value in given.environment.items() if name.startswith("DOCKER_")},
        )
        made = wishes.created(
            paths, given, chosen, desired="stopped", k3d=it, published=k3d_ports.shown(block)
        )
        with files.locked(paths.instance_lock):
            instances.write(paths, made)
    return made


def _start(paths: InstancePaths, cluster: K3dCluster, before: Instance, note: Note) -> Provided:
    """Start or repair the cluster of an instance that had one; make it anew when it is gone."""
    assert before.kubernetes is not None
    state, detail = cluster.state()
    if state == "absent" or not _is_created(before):
        k3d.refuse_foreign(cluster, before.id)
        note(
            f"the cluster `{cluster.name}` is {'gone' if state == 'absent' else 'not whole'}: making it anew"
        )
        before = _note_created(paths, created=False)
        if state != "absent":
            cluster.delete()
        _make(paths, cluster, before, note)
        return Provided(fresh=False, undo=_nothing)
    k3d.refuse_foreign(cluster, before.id)
    if state == "running" and before.desired == "running":
        return Provided(fresh=False, undo=_nothing)  # its control plane follows it
    was_down = state == "stopped"

    def undo() -> None:
        with contextlib.suppress(KecsError):
            note(f"stopping the cluster `{cluster.name}` again")
            cluster.stop()

    try:
        if state != "running":
            note(
                f"starting the cluster `{cluster.name}`"
                if was_down
                else f"repairing the cluster `{cluster.name}`: {detail}"
            )
            cluster.start()
        _confirm(paths, cluster, before)
    except BaseException:
        if was_down:
            undo()
        raise
    return Provided(fresh=False, undo=undo if was_down else _nothing)


def _make(paths: InstancePaths, cluster: K3dCluster, instance: Instance, note: Note) -> None:
    """Create the cluster as `instance.yaml` has it, and write down how it is reached and which one it is."""
    from kecs.k3d.cluster import Wanted

    it = instance.k3d
    assert it is not None
    block = k3d_ports.read(instance.published)
    note(f"creating the cluster `{it.cluster}`: half a minute; the first time k3d fetches its images before")
    if len(block) > MANY_PORTS:
        note(f"publishing {len(block)} node ports: about 0.7 MiB each, and creating and deleting take longer")
    cluster.create(
        Wanted(
            name=it.cluster,
            instance_id=instance.id,
            api_port=it.api_port,
            balancer_api_port=it.balancer_api_port,
            node_ports=block,
            load_balancer=it.load_balancer,
            agents=it.agents,
            image=it.image,
            k3s_args=it.k3s_args,
            registries=it.registries,
        )
    )
    _keep_kubeconfig(paths, cluster, it)
    reached = _patiently(lambda: clusters.choose(str(paths.kubeconfig), None))
    _note_created(paths, created=True, kubernetes=reached)


def _note_created(paths: InstancePaths, *, created: bool, kubernetes: Kubernetes | None = None) -> Instance:
    def note_it(was: Instance) -> Instance:
        assert was.k3d is not None
        return msgspec.structs.replace(
            was,
            k3d=msgspec.structs.replace(was.k3d, created=created),
            kubernetes=kubernetes or was.kubernetes,
        )

    return instances.change(paths, note_it)


def _is_created(instance: Instance) -> bool:
    return instance.k3d is not None and instance.k3d.created


def _confirm(paths: InstancePaths, cluster: K3dCluster, instance: Instance) -> None:
    """Return once the API answers and is the known cluster's."""
    assert instance.k3d is not None
    assert instance.kubernetes is not None
    chosen = instance.kubernetes
    if not paths.kubeconfig.exists():
        _keep_kubeconfig(paths, cluster, instance.k3d)
    _patiently(lambda: clusters.confirm(chosen))


def _keep_kubeconfig(paths: InstancePaths, cluster: K3dCluster, it: K3d) -> None:
    """Write the cluster's kubeconfig below the instance (0600); the person's own is never touched."""
    files.write_atomic(paths.kubeconfig, cluster.kubeconfig(it.api_port).encode())


def _patiently(ask: Callable[[], T]) -> T:
    """Ask until there is an answer: an API that has just started refuses, or has no `kube-system` yet."""
    from kecs.kube.errors import ApiError, Unreachable

    end = time.monotonic() + REACH_LIMIT
    while True:
        try:
            return ask()
        except KecsError as error:
            passing = isinstance(error.__cause__, (ApiError, Unreachable, TimeoutError))
            if not passing or time.monotonic() > end:
                raise
        time.sleep(LOOK_AGAIN)


def _remove(paths: InstancePaths, cluster: K3dCluster, note: Note, *, fresh: bool) -> None:
    """Remove an instance whose first start failed, and its cluster, or leave it to the next start."""
    try:
        if cluster.state()[0] != "absent":
            note(f"removing the cluster `{cluster.name}`")
            cluster.delete()
    except KecsError as error:
        note(f"{error.message}: the next `kecs start` or `kecs destroy` clears it")
        return
    if fresh:
        with contextlib.suppress(OSError):
            k3d.clear_folder(paths)
        return
    for file in (paths.instance_file, paths.kubeconfig):
        file.unlink(missing_ok=True)


def _nothing() -> None:
    """Put nothing back."""

"""`kecs image import`: images of this machine's Docker into the k3d cluster of an instance.

The control plane does the same by itself before a task starts (`kecs.controlplane.k3d_images`). All that is
wrong with a request is found before the first import begins.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from kecs.client import instance as instances
from kecs.client import k3d
from kecs.client.instance import Instance
from kecs.errors import ExitCode, KecsError
from kecs.paths import InstancePaths

if TYPE_CHECKING:
    from kecs.k3d.cluster import K3dCluster

Note = Callable[[str], None]


def import_images(paths: InstancePaths, names: Sequence[str], note: Note, *, limit: float) -> None:
    """Import images one after the other, each within `limit` seconds, and see that every node has them.

    Raises `KecsError`: exit 2 for an instance that is not on k3d or a name that is a digest, 3 for images
    that Docker does not have, 5 when the cluster does not run or Docker does not answer; exit 1 names those
    that failed, the others are imported.
    """
    from kecs.k3d import images

    cluster = _cluster_of(paths, instances.require(paths), note)
    ids = _ids_of(cluster, list(dict.fromkeys(names)))
    failures: list[KecsError] = []
    for name, image_id in ids.items():
        begun = time.monotonic()
        try:
            images.import_image(cluster, name, limit=limit, note=note)
        except KecsError as error:
            if error.exit_code == ExitCode.UNREACHABLE:
                raise
            failures.append(error)
            continue
        seconds = time.monotonic() - begun
        note(f"imported `{name}` ({image_id}) into the cluster `{cluster.name}` in {seconds:.1f} s")
    if failures:
        message = "; ".join(error.message for error in failures)
        raise KecsError(message, failures[0].hint, failures[0].exit_code)


def _cluster_of(paths: InstancePaths, instance: Instance, note: Note) -> K3dCluster:
    """Return the running cluster of an instance."""
    if instance.k3d is None:
        hint = "create one by `kecs start --instance NAME --runtime k3d`"
        if instance.kubernetes is not None:
            hint = (
                "its cluster is not KECS's own, so load the image with that cluster's tool: `kind load "
                f"docker-image IMAGE`, `minikube image load IMAGE`, `k3d image import IMAGE`; or {hint}"
            )
        raise KecsError(
            f"the instance `{paths.name}` has no k3d cluster of its own: its runtime is {instance.runtime}",
            hint,
            ExitCode.USAGE,
        )
    cluster = k3d.cluster_of(paths, k3d.tools_of(instance, os.environ), note)
    state, detail = cluster.state()
    if state not in ("running", "broken"):  # one whose load balancer alone is broken takes images
        raise KecsError(
            f"the cluster `{cluster.name}` does not run ({state}): {detail}",
            f"start it by `kecs start --instance {paths.name}`",
            ExitCode.UNREACHABLE,
        )
    k3d.refuse_foreign(cluster, instance.id)
    return cluster


def _ids_of(cluster: K3dCluster, names: list[str]) -> dict[str, str]:
    """Return the id of each image in short. Raises when one is not there."""
    from kecs.k3d import images

    digests = [name for name in names if "@" in name]
    if digests:
        raise KecsError(
            f"an image that is named by its digest cannot be imported: `{digests[0]}`",
            "give it a tag (`docker tag IMAGE@sha256:… IMAGE:TAG`), and name that in the task definition",
            ExitCode.USAGE,
        )
    ids = {name: images.local_id(cluster.tools, name) for name in names}
    missing = [name for name, image_id in ids.items() if image_id is None]
    if missing:
        listed = ", ".join(f"`{name}`" for name in missing)
        raise KecsError(
            f"Docker on this machine has no image {listed}; nothing was imported",
            f"build or pull it first (`docker build -t {missing[0]} .`); `docker images` lists what there is",
            ExitCode.NOT_FOUND,
        )
    return {name: short_id(image_id) for name, image_id in ids.items() if image_id}


def short_id(image_id: str) -> str:
    """Return an id as `docker images` shows it: twelve digits."""
    return image_id.removeprefix("sha256:")[:12]

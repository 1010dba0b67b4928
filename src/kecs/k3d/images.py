"""Bring an image of the local Docker into the nodes of a cluster, and see that it is there.

Used by `kecs image import` and by the control plane before a pod starts. k3d says `Successfully imported` and
ends with 0 when a node refused the image, so each node is asked afterwards.
"""

from __future__ import annotations

import contextlib
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO, TYPE_CHECKING

from kecs.errors import ExitCode, KecsError
from kecs.k3d.failures import docker_down
from kecs.k3d.lock import Lock
from kecs.k3d.node_images import missing_in, workers
from kecs.k3d.run import Note, Said, TookTooLong, quiet, run
from kecs.k3d.tools import Tools

if TYPE_CHECKING:
    from kecs.k3d.cluster import K3dCluster

ASK = 20.0
"""Seconds in which Docker answers a question; it takes 0.03 s."""
TIDY = 10.0
"""Seconds for removing a container."""


def local_id(tools: Tools, image: str) -> str | None:
    """Return the id (`sha256:…`) that `image` has in the local Docker, or None when it is not there."""
    said = run(tools, ("image", "inspect", "--format", "{{.Id}}", image), program="docker", limit=ASK)
    if down := docker_down(said):
        raise down
    return said.stdout.strip() or None if said.code == 0 else None


def import_image(cluster: K3dCluster, image: str, *, limit: float = 300.0, note: Note = quiet) -> None:
    """Copy `image` from the local Docker into every node of the cluster.

    k3d's default way first, then, when a node refused it, its direct one, then without k3d; `limit` seconds
    for all of it. One import at a time. Raises `KecsError` (exit 3) when Docker does not have the image, else
    naming what was tried.
    """
    if local_id(cluster.tools, image) is None:
        raise KecsError(
            f"the local Docker has no image `{image}`",
            f"build or pull it first: `docker build -t {image} .` or `docker pull {image}`",
            ExitCode.NOT_FOUND,
        )
    end = time.monotonic() + limit
    tried: list[str] = []
    lock = Lock(cluster.folder / "k3d-import.lock")
    with lock.hold(note, limit, cluster.tools.ended):
        for mode in ("tools-node", "direct"):
            left = end - time.monotonic()
            if left <= 0:
                break
            words = ("image", "import", image, "-c", cluster.name, "--mode", mode)
            command = f"`k3d {' '.join(words)}`"
            note(f"importing {image} into {cluster.name} ({mode})")
            try:
                said = run(cluster.tools, words, limit=left, note=note, keep=lock.held)
            except TookTooLong:
                _tidy(cluster)
                tried.append(f"{command} did not end within {left:.0f} s and was ended")
                break
            except BaseException:
                _tidy(cluster)
                raise
            if down := docker_down(said):
                raise down
            missing = missing_in(cluster, image)
            if said.code == 0 and not said.complaints and not missing:
                return
            tried.append(f"{command}: {_why(said, missing)}")
        else:
            if (why := _by_hand(cluster, image, end, note)) is None:
                return
            tried.append(why)
    raise KecsError(
        f"the image `{image}` could not be imported into the k3d cluster `{cluster.name}`;"
        f" tried {'; '.join(tried)}",
        f"see that `docker save {image}` works and that the nodes run (`kecs status`), then try"
        f" `kecs image import {image}`",
    )


def _by_hand(cluster: K3dCluster, image: str, end: float, note: Note) -> str | None:
    """Give the image to each node's containerd, for its own platform only; return what failed, if anything.

    k3d asks for all platforms, of which a Docker that keeps its images in containerd has only those that were
    pulled: then the node says `content digest …: not found` (k3d issue 1538).
    """
    note(f"importing {image} into {cluster.name} by `docker save` and `ctr`")
    with tempfile.TemporaryDirectory(prefix="kecs-image-") as folder:
        file = Path(folder) / "image.tar"
        try:
            said = _docker(cluster, ("version", "--format", "{{.Server.Os}}/{{.Server.Arch}}"), end)
            # Not left to `ctr`: its newer versions look for all platforms when they are not told one.
            platform = ("--platform", said.stdout.strip()) if said.code == 0 else ()
            said = _docker(cluster, ("save", "-o", str(file), image), end)
            if said.code != 0:
                return f"`docker save {image}`: {said.words[:400]}"
            for name in workers(cluster):
                words = ("exec", "-i", name, "ctr", "-n", "k8s.io", "images", "import", *platform, "-")
                with file.open("rb") as stdin:
                    said = _docker(cluster, words, end, stdin)
                if said.code != 0:
                    return f"`docker save {image} | docker {' '.join(words)}`: {said.words[:400]}"
        except TookTooLong as error:
            return error.message
    missing = missing_in(cluster, image)
    return f"`docker save` and `ctr`: {', '.join(missing)} does not have it" if missing else None


def _docker(cluster: K3dCluster, words: Sequence[str], end: float, stdin: IO[bytes] | None = None) -> Said:
    left = max(0.1, end - time.monotonic())
    return run(cluster.tools, words, program="docker", limit=left, stdin=stdin)


def _why(said: Said, missing: list[str]) -> str:
    reasons = said.complaints
    if reasons:
        return reasons[0][:400]
    if said.code != 0:
        return said.words[:400]
    return f"it said that all went well, but {', '.join(missing)} does not have it"


def _tidy(cluster: K3dCluster) -> None:
    """Remove the container that an import which was ended leaves running; also when all is to end."""
    tools = replace(cluster.tools, ended=threading.Event())
    with contextlib.suppress(KecsError):
        run(tools, ("rm", "-f", "-v", f"k3d-{cluster.name}-tools"), program="docker", limit=TIDY)

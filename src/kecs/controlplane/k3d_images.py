"""From this machine's Docker into the nodes of the instance's k3d cluster: the `Source` of `images.Images`.

Made by `cluster.choose` for an instance on k3d only, which imports `kecs.k3d` here and nowhere else in this
package. All methods block; `images` calls them on threads.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import replace

from kecs.client import k3d
from kecs.client.instance import Instance
from kecs.k3d import images, node_images
from kecs.k3d.tools import Tools
from kecs.paths import InstancePaths


class K3dImages:
    """Imports images by k3d."""

    def __init__(self, paths: InstancePaths, instance: Instance) -> None:
        self._paths, self._instance = paths, instance
        self._tools: Tools | None = None
        self._ended = threading.Event()
        self._brought: dict[tuple[str, str], tuple[str | None, ...]] = {}
        """What the nodes had under a name once an id of Docker's was imported: not every Docker's ids can be
        compared with what containerd says."""

    def local_id(self, image: str) -> str | None:
        """See `Source.local_id`."""
        return images.local_id(self._programs(), image)

    def has(self, image: str, image_id: str) -> bool:
        """See `Source.has`."""
        cluster = k3d.cluster_of(self._paths, self._programs())
        found = node_images.holding(cluster, image, image_id)
        return found.same or found.digests == self._brought.get((image, image_id))

    def bring(self, image: str, image_id: str, note: Callable[[str], None]) -> None:
        """See `Source.bring`."""
        cluster = k3d.cluster_of(self._paths, self._programs(), note)
        images.import_image(cluster, image, note=note)
        self._brought[image, image_id] = node_images.holding(cluster, image, image_id).digests

    def stop(self) -> None:
        """See `Source.stop`."""
        self._ended.set()

    def _programs(self) -> Tools:
        """Return the programs, looked for when they are first needed: an instance starts without them."""
        if self._tools is None:
            self._tools = replace(k3d.tools_of(self._instance, os.environ), ended=self._ended)
        return self._tools

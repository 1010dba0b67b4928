"""Botocore's model of ECS: found on disk and read without importing botocore (0.02 s instead of 0.4 s)."""

from __future__ import annotations

import asyncio
import gzip
import importlib.util
import json
from pathlib import Path
from typing import Any

from kecs import aio
from kecs.ecs.validation import ServiceModel
from kecs.errors import KecsError


class EcsModel:
    """The model, read on a thread of its own from `start` on; whoever needs it waits for it."""

    def __init__(self) -> None:
        self._task: asyncio.Task[ServiceModel] | None = None

    def start(self) -> None:
        """Begin to read; needs a running event loop. Without it the first `get` begins."""
        if self._task is None:
            self._task = aio.create_task(asyncio.to_thread(load), name="read the ECS model")

    async def get(self) -> ServiceModel:
        """Return the model once it is read; raises KecsError when there is none."""
        self.start()
        assert self._task is not None
        # Shielded: a client that leaves must not end the reading for the others.
        return await asyncio.shield(self._task)


def load() -> ServiceModel:
    """Read the newest model of ECS that the installed botocore has. Raises KecsError without one."""
    return ServiceModel(read_document(find()))


def find() -> Path:
    """Return the path of the newest `service-2` document of ECS (one folder for each API version)."""
    spec = importlib.util.find_spec("botocore")
    folders = [Path(place) / "data" / "ecs" for place in (spec and spec.submodule_search_locations) or ()]
    found = [file for folder in folders for file in folder.glob("*/service-2.json*")]
    if not found:
        raise KecsError(
            "botocore's model of ECS is not installed",
            "install KECS again: botocore is one of its libraries",
        )
    return max(found, key=lambda file: (file.parent.name, file.name))


def read_document(path: Path) -> dict[str, Any]:
    """Read a model, plain or gzipped, without its documentation, which is most of it (12 MB of memory)."""
    data = path.read_bytes()
    document = json.loads(
        gzip.decompress(data) if path.suffix == ".gz" else data, object_hook=_without_documentation
    )
    assert isinstance(document, dict)
    return document


def _without_documentation(value: dict[str, Any]) -> dict[str, Any]:
    # A member that is *named* documentation would be an object, not a text.
    if isinstance(value.get("documentation"), str):
        del value["documentation"]
    return value

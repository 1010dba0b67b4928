"""Ports that other instances of this KECS_HOME count on, running or not (docs/design/contracts.md, 3)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kecs import files
from kecs.paths import InstancePaths, instances

_MEMBERS = frozenset({"apiPort", "balancerApiPort", "localPort", "publish"})
"""The members of `instance.yaml` and of the agent's `config.yaml` that name a port."""
_ADDRESS = "metricsAddress"
"""The one that names an address and a port."""


def named_ports(home: Path, except_instance: str | None) -> set[int]:
    """Return the ports that the files of all instances but one name.

    A file that cannot be read names none: a broken neighbour must not keep this instance from working.
    """
    found: set[int] = set()
    folder = instances(home)
    if not folder.is_dir():
        return found
    for child in folder.iterdir():
        if child.name != except_instance:
            paths = InstancePaths(home, child.name)
            for file in (paths.instance_file, paths.forwards_config):
                found.update(_ports_in(_read(file)))
    return found


def _read(file: Path) -> Any:
    try:
        return files.parse_yaml(file.read_bytes())
    except (OSError, ValueError):
        return None


def _ports_in(document: Any) -> Iterator[int]:
    if isinstance(document, dict):
        for key, value in document.items():
            if key in _MEMBERS and isinstance(value, int) and 0 < value < 65536:
                yield value
            elif key == _ADDRESS and isinstance(value, str):
                port = value.rpartition(":")[2]
                if port.isascii() and port.isdigit():
                    yield int(port)
            else:
                yield from _ports_in(value)
    elif isinstance(document, list):
        for value in document:
            yield from _ports_in(value)

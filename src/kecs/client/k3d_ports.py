"""The ports of a cluster that KECS makes by k3d: the block of node ports on 127.0.0.1, and those of its API.

Used by `kecs.client.k3d` before a cluster is created. Docker binds them, after us, so what is found free here
may be taken then: k3d rolls back, and the next start chooses anew.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from pathlib import Path

from kecs import files
from kecs.client.ports import named_ports
from kecs.ecs import node_ports
from kecs.errors import ExitCode, KecsError
from kecs.net import listener
from kecs.net.holder import holder_of
from kecs.paths import instances

NODE_PORTS = node_ports.parse(node_ports.DEFAULT_RANGE)
DEFAULT_COUNT = 100
"""Node ports that are published unless a person says otherwise: about 0.7 MiB and 15 ms each."""
API_PORTS = range(6443, 7443)
"""Where the API of a cluster is published: Kubernetes' own port, or the next that is free."""
LOOPBACK = ("127.0.0.1",)


def parse(text: str) -> int | range:
    """Return what `--node-ports` asks for on k3d: how many, or which. Raises a usage error."""
    if text.isdecimal() and int(text) <= len(NODE_PORTS):
        return int(text)
    with contextlib.suppress(ValueError):
        block = node_ports.parse(text)
        if block.start in NODE_PORTS and block[-1] in NODE_PORTS:
            return block
    raise KecsError(
        f"`{text}` is neither a number of node ports nor a block of them",
        f"on k3d say how many are published (0 to {len(NODE_PORTS)}), or which: "
        f"first and last of {NODE_PORTS.start} to {NODE_PORTS[-1]}, such as `30000-30099`",
        ExitCode.USAGE,
    )


@contextlib.contextmanager
def choosing(home: Path) -> Iterator[None]:
    """Let no other instance choose ports while the block runs; what was chosen is written down in it."""
    descriptor = os.open(instances(home), os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def choose_block(home: Path, instance: str, wish: str | None, avoid: AbstractSet[int] = frozenset()) -> range:
    """Return the node ports to publish: free here, and published by no other instance, running or not.

    Where a number is wished, none of `avoid`.

    Raises `KecsError` (exit 2) for a wish that is none, (exit 4) when there is no such block.
    """
    wanted = DEFAULT_COUNT if wish is None else parse(wish)
    named = _published(home, instance)
    if isinstance(wanted, range):
        for port in wanted:
            if (whose := named.get(port)) is not None:
                raise _taken(port, f"is published by the instance `{whose}`")
            if not is_free(port):
                holder = holder_of(port)
                raise _taken(port, "is taken" + (f" by {holder}" if holder else ""))
        return wanted
    first = NODE_PORTS.start
    for port in NODE_PORTS:
        if port - first == wanted:
            break
        if port in named or port in avoid or not is_free(port):
            first = port + 1
    if NODE_PORTS.stop - first < wanted:
        raise KecsError(
            f"there is no block of {wanted} node ports that is free on 127.0.0.1",
            "ask for fewer: `--node-ports N`; services beyond them are reached all the same, by a tunnel",
            ExitCode.CONFLICT,
        )
    return range(first, first + wanted)


def api_ports(home: Path, instance: str, count: int, avoid: AbstractSet[int] = frozenset()) -> list[int]:
    """Return so many ports of 127.0.0.1 for the API: free, named by no other instance, none of `avoid`."""
    avoid = avoid | named_ports(home, instance)
    found: list[int] = []
    for port in API_PORTS:
        if len(found) == count:
            break
        if port not in avoid and is_free(port):
            found.append(port)
    if len(found) < count:
        raise KecsError(
            f"no port from {API_PORTS.start} to {API_PORTS[-1]} is free for the cluster's API",
            "`kecs doctor` tells of ports; end what holds them",
            ExitCode.CONFLICT,
        )
    return found


def is_block(wish: str | None) -> bool:
    """Tell whether a wish of `--node-ports` names the ports, not how many."""
    return wish is not None and isinstance(parse(wish), range)


def is_free(port: int) -> bool:
    """Tell whether a port of 127.0.0.1 can be bound now."""
    try:
        sockets = listener.bind(LOOPBACK, port)
    except KecsError:
        return False
    for each in sockets:
        each.close()
    return True


def shown(ports: range) -> str | None:
    """Return a block as `instance.yaml` has it; None: it is empty."""
    return f"{ports.start}-{ports[-1]}" if ports else None


def read(text: str | None) -> range:
    """Return the block that `instance.yaml` names."""
    return range(0) if text is None else node_ports.parse(text)


def _published(home: Path, instance: str) -> dict[int, str]:
    """Return each port that another instance publishes, with its name; a broken neighbour names none."""
    found: dict[int, str] = {}
    folder = instances(home)
    for child in folder.iterdir() if folder.is_dir() else ():
        if child.name == instance:
            continue
        try:
            document = files.parse_yaml((child / "instance.yaml").read_bytes())
        except (OSError, ValueError):
            continue
        text = document.get("published") if isinstance(document, dict) else None
        if isinstance(text, str):
            with contextlib.suppress(ValueError):
                found.update(dict.fromkeys(node_ports.parse(text), child.name))
    return found


def _taken(port: int, why: str) -> KecsError:
    return KecsError(
        f"node port {port} of 127.0.0.1 {why}",
        "name another block, or say how many: `--node-ports 100` takes the next that are free",
        ExitCode.CONFLICT,
    )

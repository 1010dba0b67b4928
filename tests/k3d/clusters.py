"""What the tests of the adapter have in common: a cluster's name, ports that are free, and what was noted."""

from __future__ import annotations

import os
import random
import socket
from pathlib import Path

from tests.sockets import free_port

from kecs.k3d.cluster import K3dCluster, Wanted
from kecs.k3d.tools import find

INSTANCE = "1a2b3c4d"


def free_block(size: int) -> range:
    """A block of node ports that nobody listens on; tests run beside each other."""
    for _ in range(200):
        first = random.randrange(30100, 32700 - size)
        block = range(first, first + size)
        if all(_is_free(port) for port in block):
            return block
    raise AssertionError("no block of ports is free")


def _is_free(port: int) -> bool:
    with socket.socket() as one:
        try:
            one.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


class Stage:
    """One cluster of a scripted or real k3d, with all that was noted about it."""

    def __init__(self, k3d, folder: Path, *, load_balancer: bool = False, **more) -> None:
        self.k3d = k3d
        self.notes: list[str] = []
        self.tools = find(k3d.environment)
        self.name = f"kecs-t-{os.getpid():x}"
        self.folder = folder
        self.cluster = self.another()
        self.wanted = Wanted(
            name=self.name,
            instance_id=INSTANCE,
            api_port=free_port(),
            balancer_api_port=free_port() if load_balancer else None,
            node_ports=free_block(3),
            load_balancer=load_balancer,
            **more,
        )

    @property
    def balancer(self) -> str:
        return f"k3d-{self.name}-serverlb"

    @property
    def server(self) -> str:
        return f"k3d-{self.name}-server-0"

    def another(self) -> K3dCluster:
        """Another object for the same cluster, as another process has it."""
        return K3dCluster(self.tools, self.name, self.folder, self.notes.append)

    def create(self) -> None:
        self.cluster.create(self.wanted)

    def edit(self, *ports: str) -> list[str]:
        """The words of an edit that adds ports."""
        return ["node", "edit", self.balancer, *(word for port in ports for word in ("--port-add", port))]

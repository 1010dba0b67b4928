"""The wire between the machines: one bridge on this computer and an address plan.

Used by `cluster`. Cluster number N has the network 10.77.N.0/24: this computer is .1, the control plane
.2, node i (from 1) .1i, its pods are 10.244.i.0/24. Pods are reachable from the machines only, not from
this computer, as in most clusters; node addresses and the API server are reachable from here. A node's
address must not be a loopback one (the kubelet refuses).
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from tests.cluster.harness import procs
from tests.cluster.harness.machine import Machine

PODS = "10.244.0.0/16"
SERVICES = "10.96.0.0/16"
FIRST_SERVICE = "10.96.0.1"
DNS = "10.96.0.10"
CONTROL_PLANE = 2
FIRST_NODE = 10
HOST_PREFIX = "kecst"


@dataclass(frozen=True, slots=True)
class Network:
    """The bridge of one cluster."""

    number: int

    @property
    def bridge(self) -> str:
        """The bridge's name; an interface's name has at most 15 characters."""
        return f"{HOST_PREFIX}{self.number}"

    def address(self, host: int) -> str:
        """Return an address of this network."""
        return f"10.77.{self.number}.{host}"

    def node_address(self, node: int) -> str:
        """Return the address of node 1, 2, …."""
        return self.address(FIRST_NODE + node)

    def link(self, host: int) -> str:
        """Return the name of this computer's end of a machine's link."""
        return f"{self.bridge}-{host}"

    def attach(self, machine: Machine, host: int) -> None:
        """Give the machine a link and an address, with everything else by way of this computer."""
        near, address = self.link(host), self.address(host)
        procs.run("ip", "link", "add", near, "type", "veth", "peer", "eth0", "netns", str(machine.pid))
        procs.run("ip", "link", "set", near, "master", self.bridge, "up")
        machine.run("ip", "address", "add", f"{address}/24", "dev", "eth0")
        machine.run("ip", "link", "set", "eth0", "up")
        machine.run("ip", "route", "add", "default", "via", self.address(1))

    def switch(self, host: int, *, on: bool) -> None:
        """Cut a machine's link, as by its plug, or put it back: packets vanish, nobody is told."""
        procs.run("ip", "link", "set", self.link(host), "up" if on else "down")

    def remove(self) -> None:
        """Remove the bridge and the links, where they are there still.

        Links go with their machines, but some time after these; the name must be free at once.
        """
        for link in self.links():
            try:
                procs.run("ip", "link", "delete", link)
            except RuntimeError as error:
                if "Cannot find device" not in str(error):
                    raise

    def links(self) -> list[str]:
        """Return what is there of the bridge and the links."""
        return [link for link in _links() if link.partition("-")[0] == self.bridge]


def pod_network(node: int) -> str:
    """Return the network of a node's pods."""
    return f"10.244.{node}.0/24"


def free_numbers(taken: set[int]) -> list[int]:
    """Return the cluster numbers whose links and network are not in use on this computer."""
    links = {link.partition("-")[0] for link in _links()}
    routes = {route["dst"] for route in json.loads(procs.run("ip", "-json", "route"))}
    return [
        number
        for number in range(1, 255)
        if number not in taken
        and Network(number).bridge not in links
        and f"10.77.{number}.0/24" not in routes
    ]


def claim(network: Network) -> bool:
    """Make the bridge; False when another run was faster."""
    try:
        procs.run("ip", "link", "add", network.bridge, "type", "bridge")
    except RuntimeError as error:
        if "File exists" in str(error):
            return False
        raise
    procs.run("ip", "address", "add", f"{network.address(1)}/24", "dev", network.bridge)
    procs.run("ip", "link", "set", network.bridge, "up")
    return True


def _links() -> set[str]:
    return {link["ifname"] for link in json.loads(procs.run("ip", "-json", "link"))}

"""A computer beside the cluster's machines on which every port is free: for files whose ports are fixed.

Used by tests that apply such a file on the cluster of this computer.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator

from tests.cluster.harness import procs
from tests.cluster.harness.network import Network
from tests.process.network import own_network

HOST = 3
"""Its address's last part; `tests.cluster.harness.network` names those of the others."""


@contextlib.contextmanager
def beside(network: Network) -> Iterator[None]:
    """Move this thread, and the processes that it starts, into a network namespace linked to the cluster.

    From there the API server and the nodes are reached as from this computer.
    """
    link = network.link(HOST)
    outside = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    leave = ("nsenter", f"--net=/proc/{os.getpid()}/fd/{outside}")
    try:
        with own_network():
            procs.run(
                *leave,
                *("ip", "link", "add", link, "type", "veth"),
                *("peer", "eth0", "netns", str(threading.get_native_id())),
            )
            procs.run(*leave, "ip", "link", "set", link, "master", network.bridge, "up")
            procs.run("ip", "address", "add", f"{network.address(HOST)}/24", "dev", "eth0")
            procs.run("ip", "link", "set", "eth0", "up")
            yield
        procs.run("ip", "link", "delete", link)
    finally:
        os.close(outside)

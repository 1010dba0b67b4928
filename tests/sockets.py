"""Ports and connections for the tests' own servers."""

from __future__ import annotations

import asyncio
import random

from kecs.controlplane.task_ports import can_bind


def free_port() -> int:
    """A port that nothing takes by itself before it is used: neither ephemeral nor KECS's."""
    return free_ports(1)[0]


def free_ports(count: int) -> list[int]:
    """So many such ports, each another one."""
    ports: set[int] = set()
    while len(ports) < count:
        port = random.randrange(6500, 19000)
        if can_bind(port):
            ports.add(port)
    return sorted(ports)


async def connections(listener):
    """Yield each connection that comes to a listener that does not block, until the task is cancelled.

    Neither asyncio's server nor its `sock_accept` do: both leak one that comes just when they are ended.
    """
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    loop.add_reader(listener, readable.set)
    try:
        while True:
            await readable.wait()
            readable.clear()
            try:
                sock, _ = listener.accept()
            except BlockingIOError:
                continue
            sock.setblocking(False)
            yield sock
    finally:
        loop.remove_reader(listener)

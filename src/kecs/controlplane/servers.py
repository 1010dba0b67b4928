"""Serves the control plane's two applications with uvicorn: the ECS API and `/_kecs/*`.

The sockets are bound before, by the daemon. uvicorn is imported when serving starts (0.2 s).
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kecs.controlplane.connections import Server

GRACE = 2
"""Seconds that requests in hand get at `stop`, streams among them."""


class Servers:
    """Both servers of the control plane. They touch no signal handler and write no access log."""

    def __init__(
        self, api: Any, api_sockets: Sequence[socket.socket], admin: Any, admin_socket: socket.socket
    ) -> None:
        """Take two ASGI applications and their sockets, which are bound and which `stop` closes."""
        self._apps = ((api, list(api_sockets)), (admin, [admin_socket]))
        self._running: list[Server] = []

    async def start(self) -> None:
        """Accept connections; they are served as soon as this returns."""
        from kecs.controlplane.connections import Server

        for app, sockets in self._apps:
            server = Server(app, sockets, grace=GRACE)
            await server.start()
            self._running.append(server)

    async def stop(self) -> None:
        """Close the sockets, let requests in hand end (2 s at most), close all connections."""
        running, self._running = self._running, []
        await asyncio.gather(*(server.stop() for server in running))

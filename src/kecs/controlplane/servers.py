"""Serves the control plane's two applications with uvicorn: the ECS API and `/_kecs/*`.

The sockets are bound before, by the daemon. uvicorn is imported when serving starts.
"""

from __future__ import annotations

import asyncio
import importlib
import socket
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kecs.controlplane.connections import Server

_CONNECTIONS = "kecs.controlplane.connections"
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
        connections = _import_connections()
        for app, sockets in self._apps:
            server = connections.Server(app, sockets, grace=GRACE)
            await server.start()
            self._running.append(server)

    async def stop(self) -> None:
        """Close the sockets, let requests in hand end (2 s at most), close all connections."""
        running, self._running = self._running, []
        await asyncio.gather(*(server.stop() for server in running))


def _import_connections() -> ModuleType:
    """Import uvicorn's parts without its command line, which its package imports too, and click with it.

    That is 0.1 s of 0.2 s, in a start that may take 1.5 s. Should uvicorn's package one day want more
    of its command line than these three names, it is imported as it is.
    """
    name = "uvicorn.main"
    if name in sys.modules:
        return importlib.import_module(_CONNECTIONS)
    placeholder = ModuleType(name)
    vars(placeholder).update(Server=None, main=None, run=None)
    sys.modules[name] = placeholder
    try:
        return importlib.import_module(_CONNECTIONS)
    except ImportError:
        del sys.modules[name]
        return importlib.import_module(_CONNECTIONS)
    finally:
        if sys.modules.get(name) is placeholder:
            del sys.modules[name]

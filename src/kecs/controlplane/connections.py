"""uvicorn as a library: one server on sockets that are bound already, and its connections.

Only `kecs.controlplane.servers` imports this, late, for what comes with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import Any

from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import Server as UvicornServer

from kecs.controlplane.doors import Peer, is_own_process

KEEP_ALIVE = 75
"""Seconds that an idle connection is kept (nginx's default): with uvicorn's 5 s a client's pool would
often send on a connection that is just being closed."""


class Server:
    """One application on some sockets, TCP or Unix."""

    def __init__(self, app: Any, sockets: list[socket.socket], *, grace: int) -> None:
        config = Config(
            app,
            http=_Connection,
            ws="none",
            loop="none",
            interface="asgi3",
            lifespan="off",
            log_config=None,
            log_level="warning",
            access_log=False,
            # A peer could name any address in X-Forwarded-For.
            proxy_headers=False,
            server_header=False,
            # The application sets it; uvicorn's own needs a loop that wakes ten times a second.
            date_header=False,
            timeout_keep_alive=KEEP_ALIVE,
            timeout_graceful_shutdown=grace,
        )
        config.load()
        self._server = UvicornServer(config)
        self._server.lifespan = config.lifespan_class(config)
        self._sockets = sockets

    async def start(self) -> None:
        """Accept connections. `serve` is not used: it installs signal handlers and polls."""
        await self._server.startup(sockets=self._sockets)

    async def stop(self) -> None:
        """Accept no more, end idle connections now and the others when they are done or time is up."""
        await self._server.shutdown(sockets=self._sockets)
        for connection in list(self._server.server_state.connections):
            connection.transport.abort()
        for task in list(self._server.server_state.tasks):
            with contextlib.suppress(asyncio.CancelledError):
                await task


class _Connection(H11Protocol):
    """A connection that knows its peer: applications find it as `scope["state"]["peer"]`."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        info = transport.get_extra_info
        end = info("socket")
        is_unix = end.family == socket.AF_UNIX
        # First of all: should it fail, the connection has no transport and serves nobody.
        refused = is_unix and not is_own_process(end)
        super().connection_made(transport)
        self.app_state = {"peer": Peer(info("peername"), info("sockname"))}
        if refused:
            transport.abort()
        elif not is_unix:
            # asyncio does it only for sockets made with IPPROTO_TCP written out. Without it the body, a
            # second write, waits 40 ms for the client's delayed acknowledgement of the head (Nagle).
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

"""Where Prometheus reads the metrics: `GET /metrics` on the address that the person has given, and no more.

The daemon makes it when `instance.yaml` has `metricsAddress`. Forwards never wait for it: an address that is
taken is a warning, and is tried again. One request a connection, and few connections: this shares the
interpreter with the relay loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Awaitable, Callable
from email.utils import formatdate
from typing import Any

import h11

from kecs import aio
from kecs.agent.exposition import CONTENT_TYPE
from kecs.client import web_pages
from kecs.client.metrics_address import MetricsAddress
from kecs.errors import KecsError
from kecs.forward.backoff import Backoff
from kecs.net import listener

PATH = b"/metrics"
PATIENCE = 10.0
"""Seconds for a client to ask, and to take the answer (Prometheus gives up after 10 s itself)."""
MANNERS = 1.0
"""Seconds to wait for the client's end: a close with unread bytes would reset what it still reads."""
CLIENTS = 16
"""Connections at a time; further ones are closed."""
AGAIN = Backoff(first=0.5, cap=15.0)
"""Between two tries to have an address that is taken."""
_READ = 8192

_log = logging.getLogger(__name__)


class MetricsDoor:
    """The one listener and its connections."""

    def __init__(self, address: MetricsAddress, page: Callable[[], Awaitable[str]]) -> None:
        """`page` is asked for each answer; a `KecsError` of it is answered as 503."""
        self._address = address
        self._page = page
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self._opening: asyncio.Task[None] | None = None
        self._error: str | None = None
        self._closed = False

    @property
    def url(self) -> str | None:
        """Where the metrics are read while they are served."""
        return self._address.url if self._server is not None else None

    @property
    def warnings(self) -> list[str]:
        """What the person should know."""
        return [f"metrics are not served: {self._error}; it is tried again"] if self._error else []

    async def open(self) -> None:
        """Serve; where the address is taken, go on trying and return."""
        await self._try_to_open()
        if self._server is None:
            self._opening = aio.create_task(self._go_on_trying(), name="open the metrics' address")

    async def close(self) -> None:
        """End everything."""
        self._closed = True
        if self._opening is not None:
            await aio.cancel(self._opening)
        if self._server is not None:
            self._server.close()
            self._server = None
        await aio.cancel(*self._connections)

    async def _go_on_trying(self) -> None:
        failures = 0
        while self._server is None:
            await asyncio.sleep(AGAIN.delay(failures, random.random))
            failures += 1
            await self._try_to_open()

    async def _try_to_open(self) -> None:
        try:
            (sock,) = listener.bind([self._address.host], self._address.port)
        except KecsError as error:
            if error.message != self._error:
                _log.warning("metrics are not served: %s", error.message)
            self._error = error.message
            return
        self._server = await asyncio.start_server(self._accept, sock=sock)
        self._error = None
        _log.info("serving metrics on %s", self._address.url)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._closed or len(self._connections) >= CLIENTS:
            writer.transport.abort()
            return
        # A task of our own: the one that asyncio would make complains in the log when it is cancelled.
        task = aio.create_task(self._serve(reader, writer), name="serve metrics")
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)
        task.add_done_callback(lambda _: writer.transport.abort())

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(TimeoutError, ConnectionError):  # it left, or is too slow
            async with asyncio.timeout(PATIENCE):
                http = h11.Connection(h11.SERVER)
                try:
                    request = await _request(http, reader)
                    if request is None:
                        return
                    status, kind, body = await self._answer(request)
                except h11.RemoteProtocolError as error:
                    status, kind, body = error.error_status_hint, "text/plain", f"{error}\n"
                writer.transport.set_write_buffer_limits(0)  # so `drain` waits until the kernel has all of it
                for event in _response(status, kind, body.encode()):
                    if (data := http.send(event)) is not None:
                        writer.write(data)
                await writer.drain()
            async with asyncio.timeout(MANNERS):
                writer.write_eof()
                await reader.read(_READ)

    async def _answer(self, request: h11.Request) -> tuple[int, str, str]:
        headers = {name: value.decode("latin-1") for name, value in request.headers}
        refused = self._refused(headers)
        if refused is not None:
            return 403, "text/plain", f"{refused}\n"
        if request.target.partition(b"?")[0] != PATH:
            return 404, "text/plain", "Only /metrics is here.\n"
        if request.method != b"GET":
            return 405, "text/plain", "Only GET is possible.\n"
        try:
            return 200, CONTENT_TYPE, await self._page()
        except KecsError as error:
            return 503, "text/plain", f"{error.message}\n"

    def _refused(self, headers: dict[bytes, str]) -> str | None:
        """Say why this client gets nothing: a web page. Elsewhere than on loopback any name may be ours."""
        if b"origin" in headers:
            return web_pages.ORIGIN_REFUSED
        return web_pages.host_refused(headers.get(b"host", "")) if self._address.is_loopback else None


async def _request(http: h11.Connection, reader: asyncio.StreamReader) -> h11.Request | None:
    """Read a request's head; None when the client left instead."""
    while (event := http.next_event()) is h11.NEED_DATA:
        http.receive_data(await reader.read(_READ))
    return event if isinstance(event, h11.Request) else None


def _response(status: int, kind: str, body: bytes) -> list[Any]:
    headers = [
        ("Date", formatdate(usegmt=True)),
        ("Content-Type", kind),
        ("Content-Length", str(len(body))),
        ("Connection", "close"),
    ]
    if status == 405:
        headers.append(("Allow", "GET"))
    return [h11.Response(status_code=status, headers=headers), h11.Data(data=body), h11.EndOfMessage()]

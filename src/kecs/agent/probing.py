"""One probe of one task: connect, or get a path, and say what was wrong.

`kecs.agent.prober` calls it. Nothing is sent on a `tcp` probe; an `http` one is a plain GET, and any answer
below 400 is a success, as for Kubernetes' `httpGet` ("Configure Liveness, Readiness and Startup Probes").
"""

from __future__ import annotations

import asyncio
import contextlib
import os

import h11

from kecs import __version__
from kecs.forward.spec import Probe

SETTLE = 0.5
"""Seconds in which a tunnel's far end says that nobody listens: it opens each stream before it knows
(`kecs.kube.courtesy`, `WARY`)."""
MANNERS = 0.2
"""Seconds to read an answer to its end, so that the task's own log does not speak of a reset."""
MOST = 16 * 1024
"""Bytes of an answer that are read for that."""
_READ = 8192


async def ask(probe: Probe, host: str, port: int, *, carried: bool = False) -> str | None:
    """Return what was wrong, None for a success; within `probe.timeout` seconds.

    `carried`: behind that address there is a tunnel, so that being connected is no answer yet.
    """
    what = f"GET {probe.path}" if probe.type == "http" else "a connect"
    try:
        async with asyncio.timeout(probe.timeout):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                _check_peer(writer)
                if probe.type == "http":
                    return await _get(probe.path, reader, writer)
                if carried:
                    await _settle(reader)
                return None
            finally:
                writer.transport.abort()
    except TimeoutError:
        return f"{what} had no answer within {probe.timeout:g} s"
    except (OSError, h11.RemoteProtocolError) as error:
        return f"{what}: {_words(error)}"


def _check_peer(writer: asyncio.StreamWriter) -> None:
    """Refuse a connection to ourselves.

    TCP's simultaneous open (RFC 9293, 3.5): nobody listens, and the kernel happened to choose the port
    itself as the source port.
    """
    if writer.get_extra_info("peername") == writer.get_extra_info("sockname"):
        raise ConnectionRefusedError


async def _settle(reader: asyncio.StreamReader) -> None:
    """Wait until a refusal would have come, as a reset; an orderly end is the task's own way."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(SETTLE):
            await reader.read(1)


async def _get(path: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str | None:
    http = h11.Connection(h11.CLIENT)
    request = h11.Request(
        method="GET",
        target=path,
        headers=[
            ("Host", "localhost"),
            ("User-Agent", f"kecs-probe/{__version__}"),
            ("Accept", "*/*"),
            ("Connection", "close"),
        ],
    )
    writer.write(http.send(request) or b"")
    writer.write(http.send(h11.EndOfMessage()) or b"")
    answer = await _next_event(http, reader)
    while isinstance(answer, h11.InformationalResponse):
        answer = await _next_event(http, reader)
    if not isinstance(answer, h11.Response):
        raise ConnectionError("it closed the connection")
    with contextlib.suppress(TimeoutError, OSError, h11.RemoteProtocolError):
        async with asyncio.timeout(MANNERS):
            await _read_out(http, reader)
    return f"GET {path} answered {answer.status_code}" if answer.status_code >= 400 else None


async def _read_out(http: h11.Connection, reader: asyncio.StreamReader) -> None:
    left = MOST
    while left > 0 and isinstance(event := await _next_event(http, reader), h11.Data):
        left -= len(event.data)


async def _next_event(http: h11.Connection, reader: asyncio.StreamReader) -> object:
    while (event := http.next_event()) is h11.NEED_DATA:
        http.receive_data(await reader.read(_READ))
    return event


def _words(error: Exception) -> str:
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    if isinstance(error, h11.RemoteProtocolError):
        return f"no answer of HTTP/1.1 ({error})"
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno).lower()  # asyncio's own text names the address
    return str(error) or type(error).__name__

"""The agent's line to the control plane: the endpoints as a stream, and what the agent says back.

asyncio, h11 over a Unix stream, one connection for each call (docs/design/contracts.md, 2). Whatever goes
wrong on the way is a `ControlPlaneLost`; what the control plane refuses is its own `KecsError`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import h11
import msgspec

from kecs import __version__
from kecs.client.admin_types import Refusal
from kecs.client.endpoints import EndpointsLine
from kecs.errors import ExitCode, KecsError
from kecs.paths import InstancePaths

SILENCE = 12.0
"""Seconds without a line after which the stream is dead: a ping comes every 5 s, and two may be late."""
ANSWER = 5.0
"""Seconds for the answer to anything else."""
MAX_LINE = 64 * 1024 * 1024
"""Bytes of one line; a snapshot of 10,000 tasks has about 5 MB."""
_AGAIN = 0.05
_READ = 65536


class ControlPlaneLost(KecsError):  # noqa: N818 - it names the control plane's state
    """Nobody answers on `controlplane.sock`, or no longer."""

    def __init__(self, why: str) -> None:
        super().__init__(
            f"the control plane cannot be reached: {why}",
            "see `kecs status`; `kecs start` starts it",
            ExitCode.UNREACHABLE,
        )
        self.why = why


async def fetch_endpoints(paths: InstancePaths) -> EndpointsLine:
    """Ask once for all endpoints as they are now."""
    async with _translated(), asyncio.timeout(ANSWER), _exchange(paths, "GET", "/_kecs/endpoints") as parts:
        body = b"".join([part async for part in parts])
        return _decode(body)


async def await_endpoints(paths: InstancePaths, within: float = ANSWER) -> EndpointsLine:
    """Ask as `fetch_endpoints`, and go on asking for `within` seconds while nobody answers.

    A control plane that was killed is back in a second or two; whoever asks just then need not know.
    """
    failure: ControlPlaneLost | None = None
    try:
        async with asyncio.timeout(within):
            while True:
                try:
                    return await fetch_endpoints(paths)
                except ControlPlaneLost as error:
                    failure = error
                await asyncio.sleep(_AGAIN)
    except TimeoutError as error:
        raise failure or ControlPlaneLost("it does not answer") from error


async def follow_endpoints(
    paths: InstancePaths, silence: float = SILENCE
) -> AsyncGenerator[EndpointsLine, None]:
    """Yield the stream's lines, a snapshot first, until it ends: then raise `ControlPlaneLost`.

    Close it (`contextlib.aclosing`) when you leave before that.
    """
    async with _translated(), _exchange(paths, "GET", "/_kecs/endpoints?watch=1&agent=1", silence) as parts:
        unread = bytearray()
        async for part in parts:
            searched = len(unread)
            unread += part
            while (end := unread.find(b"\n", searched)) >= 0:
                line = bytes(unread[:end])
                del unread[: end + 1]
                searched = 0
                if line.strip():
                    yield _decode(line)
            if len(unread) > MAX_LINE:
                raise ControlPlaneLost(f"it sent a line of over {MAX_LINE} bytes")
    raise ControlPlaneLost("it ended the stream")


async def post_seen(paths: InstancePaths, version: int) -> None:
    """Say that the relay loop uses the endpoints of `version`."""
    await _post(paths, "/_kecs/seen", {"version": version})


async def post_drained(paths: InstancePaths, task_id: str) -> None:
    """Say that no forward has a connection to the task any more."""
    await _post(paths, "/_kecs/drained", {"taskId": task_id})


async def _post(paths: InstancePaths, target: str, content: dict[str, Any]) -> None:
    body = msgspec.json.encode(content)
    async with (
        _translated(),
        asyncio.timeout(ANSWER),
        _exchange(paths, "POST", target, ANSWER, body) as parts,
    ):
        async for _ in parts:
            pass


@asynccontextmanager
async def _translated() -> AsyncIterator[None]:
    """Turn what sockets, time-outs and protocols raise into `ControlPlaneLost`."""
    try:
        yield
    except TimeoutError as error:
        raise ControlPlaneLost("it does not answer") from error
    except OSError as error:
        raise ControlPlaneLost(error.strerror or str(error)) from error
    except (h11.RemoteProtocolError, msgspec.MsgspecError) as error:
        raise ControlPlaneLost(f"its answer is not understood ({error})") from error


@asynccontextmanager
async def _exchange(
    paths: InstancePaths, method: str, target: str, silence: float = ANSWER, body: bytes = b""
) -> AsyncIterator[AsyncIterator[bytes]]:
    """Send one request; give the parts of the answer's body as they come.

    Raises `TimeoutError` after `silence` seconds without a byte, `KecsError` for what is refused.
    """
    reader, writer = await asyncio.open_unix_connection(str(paths.controlplane_socket))
    try:
        http = h11.Connection(h11.CLIENT)
        headers = [
            ("Host", "localhost"),
            ("User-Agent", f"kecs-agent/{__version__}"),
            ("Connection", "close"),
        ]
        if method == "POST":
            headers += [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
        for event in (
            h11.Request(method=method, target=target, headers=headers),
            *([h11.Data(data=body)] if body else []),
            h11.EndOfMessage(),
        ):
            writer.write(http.send(event) or b"")
        await writer.drain()
        response = await _next_event(http, reader, silence)
        while isinstance(response, h11.InformationalResponse):
            response = await _next_event(http, reader, silence)
        if not isinstance(response, h11.Response):
            raise ConnectionResetError("it closed the connection")
        async with aclosing(_body(http, reader, silence)) as parts:
            if response.status_code >= 400:
                raise _refused(response.status_code, b"".join([part async for part in parts]))
            yield parts
    finally:
        writer.close()


async def _body(
    http: h11.Connection, reader: asyncio.StreamReader, silence: float
) -> AsyncGenerator[bytes, None]:
    while isinstance(event := await _next_event(http, reader, silence), h11.Data):
        yield bytes(event.data)


async def _next_event(http: h11.Connection, reader: asyncio.StreamReader, silence: float) -> object:
    while (event := http.next_event()) is h11.NEED_DATA:
        async with asyncio.timeout(silence):
            data = await reader.read(_READ)
        http.receive_data(data)
        if not data:
            try:
                return http.next_event()
            except h11.RemoteProtocolError as error:
                raise ConnectionResetError("it went away in the middle of its answer") from error
    return event


def _decode(line: bytes) -> EndpointsLine:
    return msgspec.json.decode(line, type=EndpointsLine)


def _refused(status: int, body: bytes) -> KecsError:
    """Return the error that a status of 400 and above stands for."""
    try:
        refusal = msgspec.json.decode(body, type=Refusal)
        return KecsError(refusal.message, refusal.hint, ExitCode(refusal.exit_code))
    except (msgspec.MsgspecError, ValueError):
        return ControlPlaneLost(f"it answered HTTP {status}")

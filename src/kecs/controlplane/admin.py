"""`/_kecs/*` on `controlplane.sock`: what the command line and the agent ask the control plane.

One ASGI application with one table of routes; the shapes are `kecs.client.admin_types` and
`kecs.client.endpoints`. The socket's folder and mode are the door: whoever reaches it is this user.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import parse_qs

import msgspec

from kecs import aio
from kecs.client.admin_types import Refusal, Status, StopProgress
from kecs.controlplane.explain import explain_service, explain_task
from kecs.controlplane.explain_tags import explain_tags
from kecs.controlplane.hub import Hub
from kecs.controlplane.ps import ps
from kecs.controlplane.task_logs import TaskLogs
from kecs.ecs.model import Service, Task
from kecs.ecs.state import State
from kecs.errors import ExitCode, KecsError

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

MAX_BODY = 65536
"""Most bytes of a request's body; the agent's are about 50."""
JSON = "application/json"
LINES = "application/x-ndjson"
HTTP_STATUS = {
    ExitCode.USAGE: 400,
    ExitCode.NOT_FOUND: 404,
    ExitCode.CONFLICT: 409,
    ExitCode.UNREACHABLE: 503,
}


class ControlPlane(Protocol):
    """What the routes need of the daemon."""

    region: str
    hub: Hub
    logs: TaskLogs

    @property
    def state(self) -> State:
        """The committed state."""

    def status(self) -> Status:
        """Say how it is."""

    def held(self, task: Task) -> str | None:
        """Return what a task waits for before it is started and no row tells, and how far that is."""

    def troubles(self, row: Service | Task) -> list[str]:
        """Return what keeps a service or a task from being as wanted and no row tells."""

    def shutdown(self) -> AsyncIterator[StopProgress]:
        """End every task, then this process; the last line comes when the socket is gone."""


@dataclass(frozen=True)
class Request:
    """One request, as the routes see it."""

    query: dict[str, str]
    body: bytes

    def required(self, name: str) -> str:
        """Return a query parameter that must be there."""
        if not self.query.get(name):
            raise KecsError(f"the request lacks `{name}`", None, ExitCode.USAGE)
        return self.query[name]

    def json(self, shape: type[Any]) -> Any:
        """Return the body as `shape`."""
        try:
            return msgspec.json.decode(self.body, type=shape)
        except msgspec.DecodeError as error:
            raise KecsError(f"the request's body is not understood: {error}", None, ExitCode.USAGE) from error


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """Body of `POST /_kecs/seen`."""

    version: int


class Drained(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Body of `POST /_kecs/drained`."""

    task_id: str


Answer = msgspec.Struct | bytes | None | AsyncIterator[bytes]


def build_admin(controlplane: ControlPlane) -> App:
    """Return the ASGI application."""
    admin = _Admin(controlplane)
    return admin.serve


class _Admin:
    def __init__(self, controlplane: ControlPlane) -> None:
        self._it = controlplane
        self._routes: dict[tuple[str, str], Callable[[Request], Awaitable[Answer]]] = {
            ("GET", "/_kecs/status"): self._status,
            ("GET", "/_kecs/ps"): self._ps,
            ("GET", "/_kecs/explain"): self._explain,
            ("GET", "/_kecs/logs"): self._logs,
            ("GET", "/_kecs/endpoints"): self._endpoints,
            ("POST", "/_kecs/seen"): self._seen,
            ("POST", "/_kecs/drained"): self._drained,
            ("POST", "/_kecs/shutdown"): self._shutdown,
        }

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request. Anything that fails before the answer began is a `Refusal`."""
        if scope["type"] != "http":
            return
        try:
            answer = await self._answer(scope, receive)
        except KecsError as error:
            refusal = Refusal(message=error.message, hint=error.hint, exit_code=int(error.exit_code))
            await _send_whole(send, HTTP_STATUS.get(error.exit_code, 500), msgspec.json.encode(refusal))
            return
        if isinstance(answer, AsyncIterator):
            await _send_stream(receive, send, answer)
        elif isinstance(answer, bytes):
            await _send_whole(send, 200, answer)
        else:
            await _send_whole(send, 200, msgspec.json.encode(answer if answer is not None else {}))

    async def _answer(self, scope: Scope, receive: Receive) -> Answer:
        route = self._routes.get((scope["method"], scope["path"]))
        if route is None:
            raise KecsError(f"there is no {scope['method']} {scope['path']}", None, ExitCode.NOT_FOUND)
        query = {name: values[-1] for name, values in parse_qs(scope["query_string"].decode()).items()}
        return await route(Request(query, await _body(receive)))

    async def _status(self, _request: Request) -> Answer:
        return self._it.status()

    async def _ps(self, request: Request) -> Answer:
        return ps(self._it.state, self._it.held, stopped=request.query.get("stopped") == "1")

    async def _explain(self, request: Request) -> Answer:
        kinds = {"service": explain_service, "task": explain_task}
        kind = request.required("type")
        if kind == "tags":
            return self._explain_tags(request)
        if kind not in kinds:
            raise KecsError(f"`{kind}` cannot be explained", "name a `service` or a `task`", ExitCode.USAGE)
        region = request.query.get("region") or self._it.region
        cluster, name = request.required("cluster"), request.required("name")
        state, traits = self._it.state, self._it.hub.traits
        return kinds[kind](state, region, cluster, name, self._it.troubles, traits=traits)

    def _explain_tags(self, request: Request) -> Answer:
        try:
            tags = msgspec.json.decode(request.required("name"), type=dict[str, str])
        except msgspec.DecodeError as error:
            raise KecsError(f"`name` is no object of tags: {error}", None, ExitCode.USAGE) from error
        region = request.query.get("region") or self._it.region
        return explain_tags(self._it.state, region, request.required("cluster"), tags)

    async def _logs(self, request: Request) -> Answer:
        return self._it.logs.lines(
            request.query.get("region") or self._it.region,
            request.required("cluster"),
            request.required("name"),
            container=request.query.get("container"),
            follow=request.query.get("follow") == "1",
        )

    async def _endpoints(self, request: Request) -> Answer:
        await self._it.hub.opened()
        if request.query.get("watch") != "1":
            return self._it.hub.snapshot()
        return _follow(self._it.hub, agent=request.query.get("agent") == "1")

    async def _seen(self, request: Request) -> Answer:
        self._it.hub.seen(request.json(Seen).version)
        return None

    async def _drained(self, request: Request) -> Answer:
        self._it.hub.drained(request.json(Drained).task_id)
        return None

    async def _shutdown(self, _request: Request) -> Answer:
        return _encoded(self._it.shutdown())


async def _follow(hub: Hub, *, agent: bool) -> AsyncIterator[bytes]:
    follower = hub.follow(agent=agent)
    try:
        while lines := await follower.next():
            yield lines
    finally:
        hub.leave(follower)


async def _encoded(lines: AsyncIterator[StopProgress]) -> AsyncIterator[bytes]:
    async for line in lines:
        yield msgspec.json.encode(line) + b"\n"


async def _body(receive: Receive) -> bytes:
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise KecsError("the client left before its request was whole")
        body += message.get("body", b"")
        if len(body) > MAX_BODY:
            raise KecsError(f"a request has at most {MAX_BODY} bytes", None, ExitCode.USAGE)
        if not message.get("more_body", False):
            return bytes(body)


async def _send_whole(send: Send, status: int, body: bytes) -> None:
    headers = [(b"content-type", JSON.encode()), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _send_stream(receive: Receive, send: Send, parts: AsyncIterator[bytes]) -> None:
    """Send parts as they come, until they end or the client leaves."""
    headers = [(b"content-type", LINES.encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    sending = aio.create_task(_send_parts(send, parts), name="stream of an answer")
    leaving = aio.create_task(_until_gone(receive), name="end of a stream's client")
    try:
        await asyncio.wait({sending, leaving}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await aio.cancel(sending, leaving)


async def _send_parts(send: Send, parts: AsyncIterator[bytes]) -> None:
    async for part in parts:
        await send({"type": "http.response.body", "body": part, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass

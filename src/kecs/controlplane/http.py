"""The ECS API over HTTP: from a request to an operation and back, in one function (`_Api.answer`).

An ASGI application for the API's TCP sockets; `kecs.controlplane.servers` serves it. It knows no
socket and no rule of ECS.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Awaitable, Callable, MutableMapping
from email.utils import formatdate
from typing import Any

import kecs
from kecs.client.instance import Instance
from kecs.controlplane.doors import Doors, peer_of
from kecs.controlplane.ecs_model import EcsModel
from kecs.controlplane.operations import OPERATIONS, Read, Result
from kecs.controlplane.servers import Servers
from kecs.ecs.context import Context
from kecs.ecs.errors import EcsError, UnknownOperationException
from kecs.ecs.not_built import not_built
from kecs.ecs.state import Tx
from kecs.errors import KecsError
from kecs.store.ecs import Store
from kecs.wire import awsjson
from kecs.wire.awsjson import MAX_BODY, AwsJsonError, Call, Response

__all__ = ["App", "ContextFactory", "Servers", "build_api"]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
ContextFactory = Callable[[str], Context]
"""Makes the `Context` of one call in the region that it is given: the time is now, ids are fresh."""

_log = logging.getLogger(__name__)


def build_api(store: Store, model: EcsModel, instance: Instance, context: ContextFactory) -> App:
    """Return the application that answers the ECS API of `instance` from `store`."""
    return _Api(store, model, instance, context)


class _ClientGone(Exception):  # noqa: N818 - an event, nobody's error
    """The client closed the connection before its request was whole."""


class _Api:
    def __init__(self, store: Store, model: EcsModel, instance: Instance, context: ContextFactory) -> None:
        self._store = store
        self._model = model
        self._instance = instance
        self._context = context
        self._doors = Doors(instance)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request_id = str(uuid.uuid4())
        try:
            response = await self.answer(scope, receive, request_id)
        except (EcsError, AwsJsonError) as error:
            _log.info("request %s: %s: %s", request_id, error.code, error.message)
            members = error.members if isinstance(error, EcsError) else {}
            response = awsjson.error(request_id, error.code, error.message, error.status, members)
        except KecsError as error:
            response = _failed(request_id, f"{error.message} ({error.hint})" if error.hint else error.message)
        except _ClientGone:
            return
        except Exception:  # noqa: BLE001 - the top of a request: the log has it, the client a number
            response = _failed(request_id, f"KECS failed; its log says why at request {request_id}.")
        headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in response.headers]
        headers.append((b"date", formatdate(time.time(), usegmt=True).encode()))
        await send({"type": "http.response.start", "status": response.status, "headers": headers})
        await send({"type": "http.response.body", "body": response.body})

    async def answer(self, scope: Scope, receive: Receive, request_id: str) -> Response:
        """Answer one request; what is wrong with it is raised."""
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        peer = peer_of(scope)
        self._doors.refuse_web_pages(headers)
        self._doors.refuse_other_users(peer)
        if scope["path"] == "/" and scope["method"] in ("GET", "HEAD"):
            return self._greeting()
        if scope["path"] != "/" or scope["method"] != "POST":
            raise AwsJsonError("UnknownOperationException", "The ECS API is a POST to `/`.", 404)
        model = await self._model.get()
        call = awsjson.read_call(
            headers,
            scope["query_string"].decode("latin-1"),
            await _read_body(headers, receive),
            target_prefix=model.target_prefix,
            default_region=self._instance.region,
            request_id=request_id,
        )
        self._doors.refuse_other_keys(peer, call.access_key_id)
        if not model.is_known(call.operation):
            raise UnknownOperationException(f"ECS has no operation {call.operation}.")
        if call.operation not in OPERATIONS:
            raise not_built(call.operation)
        params = model.validate(call.operation, call.params)
        return awsjson.result(request_id, await self._perform(call, params))

    async def _perform(self, call: Call, params: dict[str, Any]) -> Result:
        operation = OPERATIONS[call.operation]
        context = self._context(call.region)
        if isinstance(operation, Read):
            return operation.function(self._store.state, params, context)
        _log.info("request %s: %s", call.request_id, call.operation, extra={"region": call.region})
        function = operation.function

        def transaction(tx: Tx) -> Result:
            return function(tx, params, context)

        return await self._store.transact(transaction)

    def _greeting(self) -> Response:
        text = (
            f"KECS {kecs.__version__}: the Amazon ECS API of the instance `{self._instance.name}`.\n"
            'For boto3 and the aws CLI: eval "$(kecs env)"\n'
        ).encode()
        return Response(
            200, (("content-type", "text/plain; charset=utf-8"), ("content-length", str(len(text)))), text
        )


async def _read_body(headers: dict[str, str], receive: Receive) -> bytes:
    """Read a request's body; one that is too large is refused by what it announces, else once it is."""
    length = headers.get("content-length", "")
    body = bytearray(MAX_BODY + 1 if length.isdigit() and int(length) > MAX_BODY else 0)
    more = len(body) <= MAX_BODY
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _ClientGone
        body += message.get("body", b"")
        more = message.get("more_body", False) and len(body) <= MAX_BODY
    return bytes(body)


def _failed(request_id: str, message: str) -> Response:
    _log.exception("request %s failed", request_id)
    return awsjson.error(request_id, "ServerException", message, 500)

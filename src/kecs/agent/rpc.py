"""The agent's JSON-RPC server on `agent.sock`: who may speak, what is asked, what goes back.

One table of methods, given by the daemon; requests and replies are the types of
`kecs.client.rpc_types.METHODS`. The requests of one connection are answered in order.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec

from kecs import aio
from kecs.client import rpc_types as rpc
from kecs.errors import ExitCode, KecsError
from kecs.net import unix
from kecs.wire import jsonrpc

UNSENT = 4 * 1024 * 1024
"""Bytes of notifications that a slow watcher may leave unread before it is dropped."""
_READ = 65536
_log = logging.getLogger(__name__)


class Caller:
    """The other end of one connection, for methods that go on telling."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self.on_leave = contextlib.ExitStack()
        """Closed when the connection ends."""
        self.on_answered = contextlib.ExitStack()
        """Closed when the answer to the request in hand is sent."""

    def notify(self, method: str, params: rpc.Message) -> None:
        """Send a notification; a caller that does not read is dropped."""
        transport = self._writer.transport
        if transport.is_closing():
            return
        if transport.get_write_buffer_size() > UNSENT:
            _log.warning("dropped a client that does not read what it asked for")
            transport.abort()
            return
        self._writer.write(jsonrpc.encode(jsonrpc.Notification(method, rpc.to_json(params))))


Method = Callable[[Any, Caller], Awaitable[rpc.Message]]
"""Takes the parameters, already of their type; raises `KecsError`."""


class RpcServer:
    """Serves `methods` on a bound socket."""

    def __init__(self, listener: socket.socket, methods: Mapping[str, Method]) -> None:
        if set(methods) != set(rpc.METHODS):
            raise ValueError("the methods are not those of rpc_types.METHODS")
        self._listener = listener
        self._methods = methods
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[Any]] = set()
        self._closed = False

    async def start(self) -> None:
        """Begin to answer."""
        self._server = await asyncio.start_unix_server(self._accept, sock=self._listener)

    def refuse_more(self) -> None:
        """Accept no more connections; those that are open stay."""
        if self._server is not None:
            self._server.close()

    async def close(self) -> None:
        """End all connections, but the one that this is called from."""
        self.refuse_more()
        self._closed = True
        others = self._connections - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    def _accept(self, stream: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._closed:  # accepted just before the end
            writer.close()
            return
        # A task of our own: the one that asyncio would make complains in the log when it is cancelled.
        task = aio.create_task(self._serve(stream, writer), name="serve a client")
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)
        task.add_done_callback(lambda _: writer.close())  # even of one that was cancelled before it began

    async def _serve(self, stream: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        caller = Caller(writer)
        try:
            if is_allowed(writer.get_extra_info("socket")):
                await self._converse(stream, writer, caller)
        except ConnectionError:
            pass  # it left
        except Exception:  # noqa: BLE001 - the top of a connection
            _log.exception("a connection failed")
        finally:
            caller.on_answered.close()
            caller.on_leave.close()

    async def _converse(
        self, stream: asyncio.StreamReader, writer: asyncio.StreamWriter, caller: Caller
    ) -> None:
        reader = jsonrpc.Reader()
        while data := await stream.read(_READ):
            for message in reader.feed(data):
                answer = await self._answer(message, caller)
                if answer is not None:
                    writer.write(jsonrpc.encode(answer))
                    await writer.drain()
                caller.on_answered.close()
                if isinstance(message, jsonrpc.Invalid) and message.fatal:
                    return

    async def _answer(
        self, message: jsonrpc.Message, caller: Caller
    ) -> jsonrpc.Result | jsonrpc.Error | None:
        match message:
            case jsonrpc.Request(identity, method, params):
                return await self._call(identity, method, params, caller)
            case jsonrpc.Invalid(identity, code, text):
                return jsonrpc.Error(identity, code, text, _data("update KECS", ExitCode.USAGE))
            case _:  # a notification asks nothing of an agent, an answer answers nothing
                return None

    async def _call(
        self, identity: jsonrpc.Id, name: str, params: dict[str, Any], caller: Caller
    ) -> jsonrpc.Result | jsonrpc.Error:
        method = self._methods.get(name)
        if method is None:
            hint = "the agent is of another version of KECS: `kecs port-forward agent restart`"
            return jsonrpc.Error(
                identity, jsonrpc.METHOD_NOT_FOUND, f"there is no method `{name}`", _data(hint)
            )
        try:
            request = msgspec.convert(params, rpc.METHODS[name][0])
        except msgspec.ValidationError as error:
            hint = "the command and the agent may differ: `kecs port-forward agent restart`"
            return jsonrpc.Error(
                identity, jsonrpc.INVALID_PARAMS, f"`{name}`: {error}", _data(hint, ExitCode.USAGE)
            )
        try:
            return jsonrpc.Result(identity, rpc.to_json(await method(request, caller)))
        except KecsError as error:
            return jsonrpc.Error(identity, rpc.ERROR_CODE, error.message, _data(error.hint, error.exit_code))
        except Exception as error:  # noqa: BLE001 - a request must be answered whatever happens
            _log.exception("`%s` failed", name)
            return jsonrpc.Error(
                identity,
                jsonrpc.INTERNAL_ERROR,
                f"the agent failed: {error!r}",
                _data("see `kecs logs --daemon agent`"),
            )


def is_allowed(connection: socket.socket) -> bool:
    """Tell whether the peer is this user or root (docs/design/contracts.md, 8)."""
    uid = unix.peer_uid(connection)
    if uid in (0, os.getuid()):
        return True
    _log.warning("refused a connection of user %d", uid)
    return False


def _data(hint: str | None, exit_code: ExitCode = ExitCode.FAILED) -> Any:
    return rpc.to_json(rpc.Failure(hint=hint, exit_code=int(exit_code)))

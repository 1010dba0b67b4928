"""The RPC server on a real socket: what is asked, what goes back, who is let in."""

from __future__ import annotations

import asyncio
import json
import shutil
import socket

import pytest
from tests.agent.shapes import short_home

from kecs.agent import rpc as server
from kecs.agent.rpc import RpcServer
from kecs.client import rpc_types as rpc
from kecs.errors import ExitCode, KecsError
from kecs.net import unix


class Methods:
    """Methods that answer simply; `calls` keeps what they were asked."""

    def __init__(self):
        self.calls = []
        self.left = asyncio.Event()
        self.held = asyncio.Event()

    def table(self):
        table = dict.fromkeys(rpc.METHODS, self.answer)
        return table | {
            "agent.hello": self.hello,
            "agent.status": self.fail,
            "forward.get": self.refuse,
            "forward.list": self.hang,
            "forward.watch": self.watch,
        }

    async def answer(self, request, caller):
        self.calls.append(request)
        return rpc.Empty()

    async def hello(self, request, caller):
        return rpc.Hello(version="1", pid=1, instance="default", instance_id="x")

    async def fail(self, request, caller):
        raise ZeroDivisionError("a mistake")

    async def refuse(self, request, caller):
        raise KecsError(f"there is no forward `{request.forward}`", "look again", ExitCode.NOT_FOUND)

    async def hang(self, request, caller):
        await self.held.wait()
        return rpc.ForwardRows(forwards=[])

    async def watch(self, request, caller):
        self.caller = caller
        caller.on_leave.callback(self.left.set)
        return rpc.Empty()


HELLO = {"version": "1", "pid": 1, "instance": "default", "instanceId": "x"}


def play(scene):
    """Run `scene(ask, methods, server, connect)` against a server."""

    async def run():
        home = short_home()
        methods = Methods()
        served = RpcServer(unix.bind_private(home / "a.sock"), methods.table())
        await served.start()
        writers = []

        async def connect():
            reader, writer = await asyncio.open_unix_connection(str(home / "a.sock"))
            writers.append(writer)

            async def ask(*lines):
                writer.write(b"".join(line if isinstance(line, bytes) else line.encode() for line in lines))
                return await receive()

            async def receive():
                line = await asyncio.wait_for(reader.readline(), 5)
                return json.loads(line) if line else None

            ask.receive, ask.writer = receive, writer
            return ask

        try:
            await scene(await connect(), methods, served, connect)
        finally:
            for writer in writers:
                writer.close()
            await served.close()
            shutil.rmtree(home)

    asyncio.run(run())


def request(method, params=None, identity=1):
    return json.dumps({"jsonrpc": "2.0", "id": identity, "method": method, "params": params or {}}) + "\n"


def test_a_request_is_answered_with_its_id():
    async def scene(ask, methods, served, connect):
        assert await ask(request("agent.hello", identity="a")) == {
            "jsonrpc": "2.0",
            "id": "a",
            "result": HELLO,
        }

    play(scene)


def test_several_requests_of_a_connection_are_answered_in_order():
    async def scene(ask, methods, served, connect):
        first = await ask(request("agent.hello", identity=1), request("agent.hello", identity=2))
        assert (first["id"], (await ask.receive())["id"]) == (1, 2)

    play(scene)


def test_a_request_in_pieces():
    async def scene(ask, methods, served, connect):
        data = request("agent.hello").encode()
        for byte in data[:-1]:
            ask.writer.write(bytes([byte]))
            await ask.writer.drain()
        assert (await ask(data[-1:]))["result"] == HELLO

    play(scene)


@pytest.mark.parametrize(
    ("line", "code", "message", "exit_code"),
    [
        ("{torn\n", -32700, "not JSON", 2),
        ("[]\n", -32600, "batches are not supported", 2),
        (request("no.such"), -32601, "there is no method `no.such`", 1),
        (request("forward.start", {"forwards": 7}), -32602, "Expected `array`", 2),
        (request("forward.get", {}), -32602, "missing required field `forward`", 2),
        (request("agent.status"), -32603, "ZeroDivisionError('a mistake')", 1),
        (request("forward.get", {"forward": "x"}), -32000, "there is no forward `x`", 3),
    ],
)
def test_errors_carry_a_hint_and_an_exit_code_and_the_connection_goes_on(line, code, message, exit_code):
    async def scene(ask, methods, served, connect):
        error = (await ask(line))["error"]
        assert (error["code"], message in error["message"]) == (code, True), error
        assert error["data"]["exitCode"] == exit_code
        assert error["data"]["hint"]
        assert (await ask(request("agent.hello")))["result"] == HELLO

    play(scene)


def test_a_line_over_the_limit_ends_the_connection_and_no_other(monkeypatch):
    monkeypatch.setattr(server.jsonrpc.Reader.__init__, "__defaults__", (1000,))

    async def scene(ask, methods, served, connect):
        error = (await ask(b"x" * 1001))["error"]
        assert "over 1000 bytes" in error["message"]
        assert await ask.receive() is None
        assert (await (await connect())(request("agent.hello")))["result"] == HELLO

    play(scene)


def test_notifications_are_not_answered():
    async def scene(ask, methods, served, connect):
        note = json.dumps({"jsonrpc": "2.0", "method": "agent.hello"}) + "\n"
        answer = json.dumps({"jsonrpc": "2.0", "id": 1, "result": 1}) + "\n"
        assert (await ask(note, answer, request("agent.hello", identity=7)))["id"] == 7

    play(scene)


def test_one_that_waits_does_not_hold_up_another():
    async def scene(ask, methods, served, connect):
        ask.writer.write(request("forward.list").encode())
        assert (await (await connect())(request("agent.hello")))["result"] == HELLO
        methods.held.set()
        assert (await ask.receive())["result"] == {"forwards": [], "warnings": []}

    play(scene)


def test_a_watcher_hears_until_it_leaves():
    async def scene(ask, methods, served, connect):
        await ask(request("forward.watch", {"forward": "x"}))
        methods.caller.notify("forward.event", rpc.GetRequest(forward="y"))
        assert await ask.receive() == {
            "jsonrpc": "2.0",
            "method": "forward.event",
            "params": {"forward": "y"},
        }
        ask.writer.close()
        await asyncio.wait_for(methods.left.wait(), 5)

    play(scene)


def test_a_watcher_that_does_not_read_is_dropped(monkeypatch):
    monkeypatch.setattr(server, "UNSENT", 100_000)

    async def scene(ask, methods, served, connect):
        await ask(request("forward.watch", {"forward": "x"}))
        ask.writer.transport.pause_reading()
        for _ in range(2000):
            methods.caller.notify("forward.event", rpc.GetRequest(forward="y" * 1000))
        await asyncio.wait_for(methods.left.wait(), 5)

    play(scene)


def test_close_ends_every_connection():
    async def scene(ask, methods, served, connect):
        await ask(request("agent.hello"))
        busy = await connect()
        await busy(request("agent.hello"), request("forward.list"))
        await served.close()
        assert await ask.receive() is None
        assert await busy.receive() is None

    play(scene)


def test_another_user_is_refused(monkeypatch):
    monkeypatch.setattr(unix, "peer_uid", lambda connection: 54321)

    async def scene(ask, methods, served, connect):
        with pytest.raises((ConnectionError, AssertionError)):
            assert await ask(request("agent.hello")) is not None

    play(scene)


@pytest.mark.parametrize(("uid", "allowed"), [(0, True), (1000, True), (1001, False), (65534, False)])
def test_who_is_allowed(monkeypatch, uid, allowed):
    monkeypatch.setattr(unix, "peer_uid", lambda connection: uid)
    monkeypatch.setattr(server.os, "getuid", lambda: 1000)

    assert server.is_allowed(socket.socket) is allowed


def test_the_table_must_be_whole():
    async def scene():
        with pytest.raises(ValueError, match="not those of"):
            RpcServer(None, {})

    asyncio.run(scene())

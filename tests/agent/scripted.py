"""A scripted control plane, task and agent: what the agent's shell tests play with.

The control plane speaks the endpoints protocol on a Unix socket, on a thread with an asyncio loop of its
own, so that tests are plain sequential code.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import socketserver
import subprocess
import sys
import threading
import time
from pathlib import Path

import h11
import msgspec
from tests.agent.shapes import make_instance, short_home
from tests.sockets import connections

from kecs.client.agent import AgentClient
from kecs.client.endpoints import EndpointsLine
from kecs.client.rpc_types import StartRequest


def until(condition, what, seconds=10.0):
    """Poll `condition` until it is true and return what it returned."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.005)
    return value


class ScriptedControlPlane:
    """Publishes the lines it is given and keeps what the agent posts."""

    def __init__(self, path: Path):
        self.path = path
        self.posts = []
        """("seen", version) and ("drained", task id) in the order of their coming."""
        self.requests = []
        self.answers = {}
        """Path -> (status, body): answered instead of what is usual."""
        self.silent = False
        """Accept and answer nothing."""
        self._targets = {}
        self._version = 0
        self._followers = []
        self._connections = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.start()

    def start(self):
        """Listen (again)."""
        self.path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.path))
        self._listener.listen()
        self._listener.setblocking(False)

        async def start():
            self._accepting = self._loop.create_task(self._accept())

        self._call(start())

    def kill(self):
        """Go as a killed process goes: every connection ends, nobody listens, the file stays."""

        async def kill():
            ending = [self._accepting, *self._connections]
            for one in ending:
                one.cancel()
            await asyncio.gather(*ending, return_exceptions=True)
            self._listener.close()
            self._followers.clear()

        self._call(kill())

    def restart(self):
        """Come back as another process: versions begin anew."""
        self._version = 0
        self.posts.clear()
        self.start()

    def close(self):
        self.kill()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()

    def publish(self, *targets, removed=()):
        """Change these targets; return the version."""

        async def publish():
            self._version += 1
            for target in targets:
                self._targets[_key(target)] = target
            for key in removed:
                del self._targets[key]
            line = EndpointsLine(
                type="change", version=self._version, targets=list(targets), removed=list(removed)
            )
            for follower in self._followers:
                await _send_line(follower, line)
            return self._version

        return self._call(publish())

    def ping(self):
        async def ping():
            for follower in self._followers:
                await _send_line(follower, EndpointsLine(type="ping", version=self._version))

        self._call(ping())

    @property
    def followers(self):
        return len(self._followers)

    def seen(self, version):
        return until(lambda: ("seen", version) in self.posts, f"version {version} is seen")

    def _snapshot(self):
        return EndpointsLine(type="snapshot", version=self._version, targets=list(self._targets.values()))

    async def _accept(self):
        async for connection in connections(self._listener):
            task = self._loop.create_task(self._serve(connection))
            self._connections.add(task)
            task.add_done_callback(self._connections.discard)

    async def _serve(self, connection):
        with connection:
            reader, writer = await asyncio.open_unix_connection(sock=connection)
            try:
                await self._converse(reader, writer)
            except (ConnectionError, h11.ProtocolError):
                pass
            finally:
                writer.transport.abort() if self._accepting.cancelling() else writer.close()
                with contextlib.suppress(ConnectionError):
                    await writer.wait_closed()

    async def _converse(self, reader, writer):
        http = h11.Connection(h11.SERVER)
        request = await _event(http, reader)
        body = b""
        while isinstance(event := await _event(http, reader), h11.Data):
            body += event.data
        target = request.target.decode()
        self.requests.append((request.method.decode(), target))
        if self.silent:
            await reader.read()
        else:
            await self._answer(http, reader, writer, target, body)

    async def _answer(self, http, reader, writer, target, body):
        path = target.partition("?")[0]
        if path in self.answers:
            status, content = self.answers[path]
            await _reply(http, writer, status, content)
        elif path == "/_kecs/seen":
            self.posts.append(("seen", json.loads(body)["version"]))
            await _reply(http, writer, 204, b"")
        elif path == "/_kecs/drained":
            self.posts.append(("drained", json.loads(body)["taskId"]))
            await _reply(http, writer, 204, b"")
        elif "watch=1" in target:
            writer.write(http.send(h11.Response(status_code=200, headers=[("Transfer-Encoding", "chunked")])))
            follower = (http, writer)
            self._followers.append(follower)
            try:
                await _send_line(follower, self._snapshot())
                await reader.read()
            finally:
                if follower in self._followers:
                    self._followers.remove(follower)
        else:
            await _reply(http, writer, 200, msgspec.json.encode(self._snapshot()) + b"\n")

    def _call(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(10)


async def _event(http, reader):
    while (event := http.next_event()) is h11.NEED_DATA:
        data = await reader.read(65536)
        http.receive_data(data)
    return event


async def _reply(http, writer, status, content):
    headers = [("Content-Length", str(len(content))), ("Connection", "close")]
    for event in (
        h11.Response(status_code=status, headers=headers),
        h11.Data(data=content),
        h11.EndOfMessage(),
    ):
        writer.write(http.send(event))
    await writer.drain()


async def _send_line(follower, line):
    http, writer = follower
    writer.write(http.send(h11.Data(data=msgspec.json.encode(line) + b"\n")))
    await writer.drain()


def _key(target):
    return (target.region, target.cluster, target.service, target.task_id)


class EchoTask:
    """What a task is to a forward: a server that answers each line with its name."""

    def __init__(self, name):
        class Handler(socketserver.StreamRequestHandler):
            def handle(self):
                with contextlib.suppress(ConnectionError):
                    for line in self.rfile:
                        self.wfile.write(f"{name} {line.decode()}".encode())

        class Server(socketserver.ThreadingTCPServer):
            daemon_threads = True
            block_on_close = False
            allow_reuse_address = True

        self._server = Server(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def close(self):
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class Client:
    """A client of a forward: lines out, lines in."""

    def __init__(self, port, host="127.0.0.1"):
        self._socket = socket.create_connection((host, port), timeout=10)
        self._file = self._socket.makefile("rwb")

    def ask(self, text="hi"):
        """Send a line; return the name of the task that answered."""
        self.send(text)
        return self.read()

    def send(self, text):
        self._file.write(f"{text}\n".encode())
        self._file.flush()

    def read(self):
        return self._file.readline().decode().partition(" ")[0]

    def close(self):
        with contextlib.suppress(OSError):
            self._file.close()
        self._socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def who(port, host="127.0.0.1"):
    """Return the name of the task that answers on a new connection."""
    with Client(port, host) as client:
        return client.ask()


def refuses(port):
    """Tell whether nobody listens on the port."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except ConnectionRefusedError:
        return True
    return False


class Home:
    """A home with a scripted control plane and, when started, a real agent process."""

    def __init__(self):
        self.path = short_home()
        self.paths = make_instance(self.path)
        self.controlplane = ScriptedControlPlane(self.paths.controlplane_socket)
        self.tasks = {}
        self.agent = None
        self._clients = []

    def launch(self, *, ready=True, **options):
        """Start `python -m kecs.agent`; wait for `ready`."""
        theirs_read, theirs = os.pipe()
        try:
            self.agent = subprocess.Popen(
                [
                    *(sys.executable, "-m", "kecs.agent", "--home", str(self.path), "--instance", "default"),
                    *("--ready-fd", str(theirs)),
                ],
                pass_fds=(theirs,),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                **options,
            )
        finally:
            os.close(theirs)
        with os.fdopen(theirs_read, "rb") as pipe:
            said = pipe.read(6)
        if ready:
            assert said == b"ready\n", self.log()
        return self.agent

    def wait_for_exit(self):
        code = self.agent.wait(10)
        self.agent = None
        return code

    def kill(self):
        self.agent.kill()
        return self.wait_for_exit()

    def log(self):
        with contextlib.suppress(FileNotFoundError):
            return self.paths.agent_log.read_text()
        return ""

    @property
    def client(self):
        client = AgentClient(self.paths)
        self._clients.append(client)
        return client

    def task(self, name):
        """Start a server that answers with `name`; return its port."""
        self.tasks[name] = EchoTask(name)
        return self.tasks[name].port

    def start(self, *specs, wait=None):
        """Start forwards; return their rows."""
        return [
            one.forward for one in self.client.start(StartRequest(forwards=list(specs), wait=wait)).forwards
        ]

    def rows(self):
        return self.client.call("forward.list").forwards

    def row(self, name="prod-web"):
        return self.client.get(name)

    def state(self, name="prod-web"):
        return self.row(name).state

    def desire(self, desired):
        """Write `desired`: with `stopped` the agent launches no control plane of its own."""
        make_instance(self.path, desired=desired)

    def close(self):
        for client in self._clients:
            client.close()
        try:
            if self.agent is not None:
                self.agent.send_signal(signal.SIGTERM)
                assert self.wait_for_exit() == 0, self.log()
                assert '"level": "error"' not in self.log(), self.log()
        finally:
            if self.agent is not None:
                self.agent.kill()
                self.agent.wait()
            for task in self.tasks.values():
                task.close()
            self.controlplane.close()
            shutil.rmtree(self.path)

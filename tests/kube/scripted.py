"""A scripted Kubernetes API server, for the faults that a healthy cluster will not show.

It runs on a thread of its own and listens on 127.0.0.1, plain or in TLS. Tests are plain sequential code, or
asyncio: every method is short and may be called from both.

    with ScriptedApi() as api:                      # ScriptedApi(tls=pair) with a certificate
        api.put(pod)                                # store an object; watches see it
        access = Access.load(api.kubeconfig(tmp_path))

What it serves: `/version`; get, list (in pages), watch (with bookmarks when told), apply, create, delete of
the six kinds, with uids, resource versions, missing namespaces (404) and taken node ports (422); `pods/log`;
`pods/portforward` over SPDY and WebSocket, whose ports are in `backends`: `"echo"`, `"refuse"`, or the
`(host, port)` of a real server of the test.

How it misbehaves:

- `answer_next(Answer(429, headers={"Retry-After": "1"}), path="/api/v1/pods")`: the next request that fits
  gets that; `Answer(drop="reset")`, `"close"` or `"swallow"` instead of an answer, `Answer(…, cut=10)`
  breaks off after 10 bytes of the body.
- `tokens = {"good"}`: other bearer tokens (and none) get 401. `deny("list", "pods")`: 403 as RBAC words it.
- `end_watches()` in good order, `cut_watches(torn=b'{"type"')` with a reset in the middle of a line,
  `freeze_watches()` half-open: they stay connected and never hear anything again; `send_to_watches(line)`;
  `bookmark()`; `forget()`: history is compacted, so resuming gets 410 (an ERROR event with `gone_as_event`).
- `hold_handshakes()`, `release_handshakes()`: accept and do not begin TLS. `pause()`, `resume()`: accept
  requests and answer none. `stop()`, `start()`: nobody listens and every connection is gone, as when an API
  server restarts; the port stays the same.
- `refused_upgrades = {"spdy"}`: such port-forward requests get 400. `tunnels` are the live `FarEnd`s, with
  `answers_pings`, `pings`, `opened`; `break_tunnels()` resets them all.

What it saw: `requests` (method, path, query, headers, body), `watches`, `connections`; `wait_for(…)`.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import json
import re
import socket
import ssl
import struct
import threading
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import h11
from tests.cluster.harness.certificates import write_kubeconfig
from tests.kube.far_end import LINGER, FarEnd
from tests.kube.objects import PLURALS, Objects, Refused, matches, status
from tests.sockets import connections

TUNNEL = "SPDY/3.1+portforward.k8s.io"
_ITEM = re.compile(
    r"^/api/v1(?:/namespaces/(?P<ns>[^/]+))?/(?P<plural>pods|services|nodes|secrets|events)"
    r"(?:/(?P<name>[^/]+)(?:/(?P<sub>log|portforward))?)?$"
)
_NAMESPACE = re.compile(r"^/api/v1/namespaces(?:/(?P<name>[^/]+))?$")


@dataclass
class Seen:
    """A request as it came."""

    method: str
    path: str
    query: dict
    headers: dict
    body: bytes = b""

    @property
    def watches(self):
        return self.query.get("watch") == "true"


@dataclass
class Answer:
    """What a scripted request gets."""

    code: int = 200
    body: object = None
    """JSON, or bytes as they are; None: a Status of that code."""
    headers: dict = field(default_factory=dict)
    drop: str | None = None
    """`close` or `reset` the connection instead of answering; `swallow`: never say anything."""
    cut: int | None = None
    """Break the connection off after this many bytes of the body."""
    done: bool = False
    """What was asked for is done, though the answer says otherwise or does not come."""


@dataclass
class _Script:
    answer: Answer
    left: int
    method: str | None
    path: str | None
    plural: str | None
    watch: bool | None

    def fits(self, seen):
        return (
            (self.method is None or seen.method == self.method)
            and (self.path is None or seen.path == self.path)
            and (self.plural is None or f"/{self.plural}/" in seen.path)
            and (self.watch is None or seen.watches == self.watch)
        )


class _Watching:
    """An open watch: lines to be sent, or an order."""

    def __init__(self, kind, namespace, selector):
        self.kind = kind
        self.namespace = namespace
        self.selector = selector
        self.queue = asyncio.Queue()
        self.frozen = False

    def wants(self, found):
        return (
            found["kind"] == self.kind
            and self.namespace in (None, found["metadata"].get("namespace"))
            and matches(found, self.selector)
        )

    def say(self, kind, found):
        self.queue.put_nowait(json.dumps({"type": kind, "object": found}).encode() + b"\n")


class ScriptedApi:
    """See the module's docstring."""

    def __init__(self, *, tls=None, version=("1", "35")):
        self.version = version
        self.page = 500
        """Objects in one answer to a list, at most."""
        self.tokens = None
        self.gone_as_event = False
        self.refused_upgrades = set()
        self.backends = {}
        self.linger = LINGER
        self.requests = []
        self.tunnels = []
        self.failures = []
        """What went wrong in here; `close` raises the first."""
        self.objects = Objects()
        self.objects.changed.append(self._publish)
        self._scripts = []
        self._denied = set()
        self._logs = {}
        self._watching = []
        self._tls = None
        if tls is not None:
            self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._tls.load_cert_chain(tls.certificate, tls.key)
        self._news = threading.Condition()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="scripted API server")
        self._thread.start()
        self._handshakes = asyncio.Event()
        self._handshakes.set()
        self._going = asyncio.Event()
        self._going.set()
        self._writers = set()
        self._tasks = set()
        self.port = 0
        self.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    @property
    def url(self):
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    @property
    def watches(self):
        """How many watches are open."""
        return len(self._watching)

    @property
    def connections(self):
        return len(self._tasks)

    def kubeconfig(self, folder, user=None, authority=None):
        """Write a kubeconfig for this server; its path."""
        return write_kubeconfig(Path(folder) / "kubeconfig", self.url, authority, user or {})

    # Objects

    def put(self, manifest):
        """Create or replace an object; watches see it."""
        return self._call(lambda: self.objects.put(manifest))

    def remove(self, kind, namespace, name):
        self._call(lambda: self.objects.remove(kind, namespace, name))

    def forget(self):
        self._call(self.objects.forget)

    def write_log(self, namespace, pod, container, data, *, end=False):
        """Have a container write; followers see it. With `end` it has ended."""

        def write():
            log = self._log(namespace, pod, container)
            log.data += data
            log.ended |= end
            log.news.set()
            log.news = asyncio.Event()

        self._call(write)

    # Faults

    def answer_next(self, answer, *, times=1, method=None, path=None, plural=None, watch=None):
        """Give this to the next `times` requests that fit; `plural`: about one object of this kind."""
        self._call(lambda: self._scripts.append(_Script(answer, times, method, path, plural, watch)))

    def deny(self, verb, plural):
        """From now on refuse this as RBAC does."""
        self._denied.add((verb, plural))

    def allow(self, verb, plural):
        self._denied.discard((verb, plural))

    def send_to_watches(self, line):
        """A dict is sent as JSON with a line end, bytes as they are."""
        data = line if isinstance(line, bytes) else json.dumps(line).encode() + b"\n"
        self._each_watch(lambda watching: watching.queue.put_nowait(data))

    def bookmark(self):
        def say(watching):
            metadata = {"resourceVersion": str(self.objects.version), "creationTimestamp": None}
            watching.say("BOOKMARK", {"kind": watching.kind, "apiVersion": "v1", "metadata": metadata})

        self._each_watch(say)

    def end_watches(self):
        self._each_watch(lambda watching: watching.queue.put_nowait("end"))

    def cut_watches(self, torn=b""):
        def cut(watching):
            if torn:
                watching.queue.put_nowait(torn)
            watching.queue.put_nowait("reset")

        self._each_watch(cut)

    def freeze_watches(self):
        self._each_watch(lambda watching: setattr(watching, "frozen", True))

    def hold_handshakes(self):
        self._call(self._handshakes.clear)

    def release_handshakes(self):
        self._call(self._handshakes.set)

    def pause(self):
        self._call(self._going.clear)

    def resume(self):
        self._call(self._going.set)

    def break_tunnels(self):
        """Reset every port-forward connection."""

        def reset():
            for tunnel in self.tunnels:
                _reset(tunnel._writer)

        self._call(reset)

    # Life

    def start(self):
        """Listen, on the same port as before."""
        self._listener = socket.create_server(("127.0.0.1", self.port), backlog=128)
        self._listener.setblocking(False)
        self.port = self._listener.getsockname()[1]

        async def accept():
            self._accepting = self._loop.create_task(self._accept(self._listener))

        self._run(accept())

    def stop(self):
        """Go away with every connection, as a process that was killed; the objects stay."""

        async def stop():
            self._accepting.cancel()
            await asyncio.gather(self._accepting, return_exceptions=True)
            self._listener.close()
            for writer in list(self._writers):
                _reset(writer)
            for task in list(self._tasks):
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

        self._run(stop())

    def close(self):
        self.stop()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        if self.failures:
            raise self.failures[0]

    def wait_for(self, condition, what, seconds=5.0):
        """Wait until `condition()` is true; the server's state changes wake it."""
        with self._news:
            assert self._news.wait_for(condition, seconds), f"not within {seconds} s: {what}"

    def _call(self, action):
        """Do `action` on the loop; return what it returns."""

        async def act():
            return action()

        return self._run(act())

    def _run(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(5)

    def _notify(self):
        with self._news:
            self._news.notify_all()

    def _each_watch(self, action):
        def act():
            for watching in list(self._watching):
                action(watching)

        self._call(act)

    def _publish(self, kind, found):
        for watching in self._watching:
            if watching.wants(found):
                watching.say(kind, found)

    # Connections

    async def _accept(self, listener):
        async for sock in connections(listener):
            task = self._loop.create_task(self._connection(sock))
            self._tasks.add(task)
            task.add_done_callback(self._done)

    def _done(self, task):
        self._tasks.discard(task)
        self._notify()
        if not task.cancelled() and task.exception() is not None:
            self.failures.append(task.exception())

    async def _connection(self, sock):
        try:
            if self._tls is not None:
                await self._handshakes.wait()
            reader = asyncio.StreamReader(loop=self._loop)
            protocol = asyncio.StreamReaderProtocol(reader, loop=self._loop)
            transport, _ = await self._loop.connect_accepted_socket(lambda: protocol, sock, ssl=self._tls)
        except (OSError, ssl.SSLError):
            sock.close()  # the client left, or does not like us
            return
        except asyncio.CancelledError:
            sock.close()
            raise
        writer = asyncio.StreamWriter(transport, protocol, reader, self._loop)
        self._writers.add(writer)
        self._notify()
        try:
            await self._serve(reader, writer)
        except h11.RemoteProtocolError:  # TLS to a plain server, mostly; Go's server answers this too
            writer.write(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n400 Bad Request")
        except (OSError, ssl.SSLError):
            pass
        finally:
            self._writers.discard(writer)
            writer.close()
            with contextlib.suppress(OSError, ssl.SSLError, asyncio.CancelledError):
                await writer.wait_closed()

    async def _serve(self, reader, writer):
        http = h11.Connection(h11.SERVER)
        while True:
            seen = await _next_request(http, reader)
            if seen is None:
                return
            self.requests.append(seen)
            self._notify()
            await self._going.wait()
            if not await _Exchange(self, http, reader, writer, seen).answer():
                return
            if http.our_state is not h11.DONE or http.their_state is not h11.DONE:
                return
            http.start_next_cycle()

    def _log(self, namespace, pod, container):
        return self._logs.setdefault((namespace, pod, container), _Log())


class _Log:
    def __init__(self):
        self.data = b""
        self.ended = False
        self.news = asyncio.Event()


class _Exchange:
    """One request and its answer."""

    def __init__(self, api, http, reader, writer, seen):
        self.api = api
        self.http = http
        self.reader = reader
        self.writer = writer
        self.seen = seen
        self.mute = False

    async def answer(self):
        """Answer; False when the connection is of no more use."""
        if (script := self._script()) is not None:
            return await self._scripted(script)
        try:
            self._check_identity()
            return await self._route()
        except Refused as refused:
            await self._send(refused.code, refused.body)
            return True

    def _script(self):
        for script in self.api._scripts:
            if script.left and script.fits(self.seen):
                script.left -= 1
                return script.answer
        return None

    async def _scripted(self, answer):
        if answer.done:
            self.mute = True
            await self._route()
            self.mute = False
        if answer.drop == "swallow":
            await self.reader.read(1)
            return False
        if answer.drop is not None:
            if answer.drop == "reset":
                _reset(self.writer)
            return False
        body = status(answer.code) if answer.body is None else answer.body
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        await self._send(answer.code, data, answer.headers, cut=answer.cut)
        return answer.cut is None

    def _check_identity(self):
        if self.api.tokens is None:
            return
        scheme, _, token = self.seen.headers.get("authorization", "").partition(" ")
        if scheme != "Bearer" or token not in self.api.tokens:
            raise Refused(401, "Unauthorized", "Unauthorized")

    async def _route(self):
        seen = self.seen
        if seen.path == "/version":
            major, minor = self.api.version
            await self._send(200, {"major": major, "minor": minor, "gitVersion": f"v{major}.{minor}.0"})
            return True
        if (found := _NAMESPACE.match(seen.path)) is not None:
            return await self._kind("namespaces", None, found["name"], None)
        if (found := _ITEM.match(seen.path)) is None:
            raise Refused(404, "NotFound", "the server could not find the requested resource")
        return await self._kind(found["plural"], found["ns"], found["name"], found["sub"])

    async def _kind(self, plural, namespace, name, sub):
        kind, objects, seen = PLURALS[plural], self.api.objects, self.seen
        name = unquote(name) if name else None
        resource = plural if sub is None else f"{plural}/{sub}"
        self._check_rights(resource, namespace, name)
        if sub == "log":
            return await self._logs(namespace, name)
        if sub == "portforward":
            return await self._port_forward(namespace, name)
        if name is None and seen.method == "GET":
            selector = seen.query.get("labelSelector", "")
            if seen.watches:
                return await self._watch(kind, namespace, selector)
            await self._list(kind, namespace, selector)
        elif seen.method == "GET":
            await self._send(200, objects.get(kind, namespace, name))
        elif seen.method == "POST":
            await self._send(201, objects.create(json.loads(seen.body)))
        elif seen.method == "PATCH":
            assert seen.headers["content-type"] == "application/apply-patch+yaml"
            await self._send(200, objects.apply(json.loads(seen.body), seen.query["fieldManager"]))
        elif seen.method == "DELETE":
            options = json.loads(seen.body) if seen.body else {}
            await self._send(200, objects.delete(kind, namespace, name, options))
        return True

    def _check_rights(self, resource, namespace, name):
        verbs = {"POST": "create", "PATCH": "patch", "DELETE": "delete"}
        verb = verbs.get(self.seen.method) or (
            "watch" if self.seen.watches else "get" if name else "list"
        )  # fmt: skip
        if (verb, resource) in self.api._denied:
            where = f'in the namespace "{namespace}"' if namespace else "at the cluster scope"
            raise Refused(
                403,
                "Forbidden",
                f'{resource} is forbidden: User "alice" cannot {verb} resource "{resource}"'
                f' in API group "" {where}',
            )

    async def _list(self, kind, namespace, selector):
        objects = self.api.objects
        found = objects.select(kind, namespace, selector)
        version, start = objects.version, 0
        if token := self.seen.query.get("continue"):
            version, start = map(int, token.split(":"))
            if version < objects.oldest:
                raise Refused(410, "Expired", "The provided continue parameter is too old")
        size = min(int(self.seen.query.get("limit", 10**9)), self.api.page)
        if "limit" not in self.seen.query:
            size = 10**9
        metadata = {"resourceVersion": str(version)}
        if start + size < len(found):
            metadata["continue"] = f"{version}:{start + size}"
        items = [
            {key: value for key, value in each.items() if key not in ("kind", "apiVersion")}
            for each in found[start : start + size]
        ]
        await self._send(
            200, {"kind": f"{kind}List", "apiVersion": "v1", "metadata": metadata, "items": items}
        )

    async def _watch(self, kind, namespace, selector):
        api = self.api
        past = api.objects.since(int(self.seen.query["resourceVersion"]))
        gone = status(410, "Expired", "too old resource version")
        if past is None and not api.gone_as_event:
            raise Refused(410, "Expired", "too old resource version")
        watching = _Watching(kind, namespace, selector)
        if past is None:
            watching.say("ERROR", gone)
            watching.queue.put_nowait("end")
        for change, found in past or []:
            if watching.wants(found):
                watching.say(change, found)
        await self._begin()
        api._watching.append(watching)
        api._notify()
        try:
            while (line := await self._unless_left(watching.queue.get())) is not None:
                if watching.frozen:
                    continue
                if line == "reset":
                    _reset(self.writer)
                    return False
                if line == "end":
                    await self._write(self.http.send(h11.EndOfMessage()))
                    return False
                await self._write(self.http.send(h11.Data(data=line)))
            return False
        finally:
            api._watching.remove(watching)
            api._notify()

    async def _logs(self, namespace, pod):
        self.api.objects.get("Pod", namespace, pod)
        log = self.api._log(namespace, pod, self.seen.query["container"])
        await self._begin("text/plain")
        sent = 0
        while True:
            if len(log.data) > sent:
                await self._write(self.http.send(h11.Data(data=log.data[sent:])))
                sent = len(log.data)
            if log.ended or self.seen.query.get("follow") != "true":
                break
            if await self._unless_left(log.news.wait()) is None:
                return False
        await self._write(self.http.send(h11.EndOfMessage()))
        return False

    async def _unless_left(self, awaited):
        """Return what `awaited` gives; None when the client leaves before that."""
        coming = self.api._loop.create_task(awaited)
        left = self.api._loop.create_task(self.reader.read(1))
        try:
            await asyncio.wait({coming, left}, return_when=asyncio.FIRST_COMPLETED)
            return coming.result() if coming.done() else None
        finally:
            for task in (coming, left):
                task.cancel()
            await asyncio.gather(coming, left, return_exceptions=True)

    async def _port_forward(self, namespace, pod):
        upgrade = self.seen.headers.get("upgrade", "").lower()
        framing = {"spdy/3.1": "spdy", "websocket": "websocket"}.get(upgrade)
        self.api.objects.get("Pod", namespace, pod)
        if framing is None or framing in self.api.refused_upgrades:
            raise Refused(400, "BadRequest", "Upgrade request required")
        if framing == "spdy":
            assert self.seen.method == "POST"
            version = self.seen.headers["x-stream-protocol-version"]
            headers = {"Upgrade": "SPDY/3.1", "X-Stream-Protocol-Version": version}
        else:
            key = self.seen.headers["sec-websocket-key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
            accept = base64.b64encode(hashlib.sha1(key.encode()).digest()).decode()
            headers = {
                "Upgrade": "websocket",
                "Sec-WebSocket-Accept": accept,
                "Sec-WebSocket-Protocol": self.seen.headers["sec-websocket-protocol"],
            }
        response = h11.InformationalResponse(
            status_code=101, headers=[("Connection", "Upgrade"), *headers.items()]
        )
        await self._write(self.http.send(response))
        tunnel = FarEnd(self.reader, self.writer, self.api, namespace, pod, framing)
        assert self.http.trailing_data == (b"", False), "nothing may be sent before the upgrade"
        self.api.tunnels.append(tunnel)
        self.api._notify()
        try:
            await tunnel.serve()
        finally:
            self.api.tunnels.remove(tunnel)
            self.api._notify()
        return False

    async def _begin(self, kind="application/json"):
        """Send the head of an answer whose body comes bit by bit."""
        headers = [("Content-Type", kind), ("Transfer-Encoding", "chunked")]
        await self._write(self.http.send(h11.Response(status_code=200, headers=headers)))

    async def _send(self, code, body, headers=None, cut=None):
        if self.mute:
            return
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        head = {"Content-Type": "application/json", "Content-Length": str(len(data)), **(headers or {})}
        await self._write(self.http.send(h11.Response(status_code=code, headers=list(head.items()))))
        if cut is not None:
            await self._write(data[:cut])
            return
        await self._write(self.http.send(h11.Data(data=data)))
        await self._write(self.http.send(h11.EndOfMessage()))

    async def _write(self, data):
        self.writer.write(data)
        await self.writer.drain()


async def _next_request(http, reader):
    """Read a request with its body; None when the client has left."""
    event = await _next_event(http, reader)
    if not isinstance(event, h11.Request):
        return None
    parts = urlsplit(event.target.decode())
    query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    headers = {name.decode(): value.decode() for name, value in event.headers}
    seen = Seen(event.method.decode(), parts.path, query, headers)
    while isinstance(event := await _next_event(http, reader), h11.Data):
        seen.body += event.data
    return seen if isinstance(event, h11.EndOfMessage) else None


async def _next_event(http, reader):
    while (event := http.next_event()) is h11.NEED_DATA:
        data = await reader.read(65536)
        http.receive_data(data)
        if not data:
            return http.next_event()
    return event


def _reset(writer):
    """End a connection as the kernel ends a killed process's with unread data: RST."""
    sock = writer.get_extra_info("socket")
    with contextlib.suppress(OSError, AttributeError):  # None: it has ended already
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()

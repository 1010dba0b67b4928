"""The agent as it is, with a stand-in for the control plane that only says where its forwards lead.

So that each run can have a target address of its own, as its peers have. The agent is started as a command
would start it, and its forwards are asked for by its RPC.
"""

from __future__ import annotations

import contextlib
import shutil
import socketserver
import tempfile
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import msgspec

from benchmarks.origin import Origin
from benchmarks.peers import Standing, targets
from kecs import files
from kecs.client import instance as instances
from kecs.client import launch
from kecs.client.agent import AgentClient
from kecs.client.endpoints import EndpointPort, EndpointsLine, EndpointTask, Route, Target
from kecs.client.instance import Instance
from kecs.client.rpc_types import ForwardRow, StartRequest
from kecs.forward import spec
from kecs.paths import InstancePaths

REGION = "us-east-1"
PING = 5.0
"""Seconds between two signs of life, as the control plane gives them."""


class OurAgent(Standing):
    """A running agent with a forward for each run."""

    def __init__(self, paths: InstancePaths, ports: dict[str, list[int]]) -> None:
        super().__init__("ours", int(paths.agent_pid.read_text()), ports)
        self._paths = paths

    def open_connections(self) -> int:
        """Return how many connections all forwards have."""
        with AgentClient(self._paths) as agent:
            return sum(row["connections"]["open"] for row in agent.ask("forward.list")["forwards"])

    def memory(self) -> int:
        """Return its resident bytes."""
        with AgentClient(self._paths) as agent:
            return int(agent.ask("agent.status")["memory"])


@contextlib.contextmanager
def our_agent(origin: Origin, network: int) -> Iterator[OurAgent]:
    """Run an agent whose targets are in 127.`network`."""
    leads = targets(network, origin)
    there = {f"{kind}-{run}": address for kind, those in leads.items() for run, address in enumerate(those)}
    home = Path(tempfile.mkdtemp(prefix="kecs-bench-", dir="/tmp"))
    paths = InstancePaths(home, "default")
    files.make_private_folder(paths.forward_logs)
    instances.write(paths, _instance())
    line = EndpointsLine(
        type="snapshot", version=1, targets=[_service(name, *address) for name, address in there.items()]
    )
    try:
        with _standing_in(paths.controlplane_socket, line):
            launch.launch("agent", paths)
            try:
                started = _start(paths, list(there))
                ports = {
                    kind: [row.local_port for name, row in started.items() if name.startswith(kind)]
                    for kind in leads
                }
                yield OurAgent(paths, ports)
            finally:
                launch.stop_agent(paths)
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _start(paths: InstancePaths, names: list[str]) -> dict[str, ForwardRow]:
    asked = [
        spec.ForwardSpec(target=spec.Target(type="service", service=name), address=["127.0.0.1"])
        for name in names
    ]
    with AgentClient(paths) as agent:
        reply = agent.start(StartRequest(forwards=asked, wait=10))
    return dict(zip(names, (one.forward for one in reply.forwards), strict=True))


def _instance() -> Instance:
    return Instance(
        name="default",
        id="0a1b2c3d",
        region=REGION,
        api_port=5373,
        desired="running",
        access_key_id="AKIA",
        directory="/",
        created_at=time.time(),
    )


def _service(name: str, host: str, port: int) -> Target:
    def mapping(routes: list[Route]) -> EndpointPort:
        return EndpointPort(
            name="http",
            container="web",
            container_port=80,
            protocol="tcp",
            ready=bool(routes),
            draining=False,
            routes=routes,
        )

    task = EndpointTask(
        task_id=f"{abs(hash(name)):032x}"[-32:],
        created_at=1.0,
        tags={},
        last_status="RUNNING",
        stopped_reason=None,
        ports=[mapping([Route(kind="direct", host=host, port=port)])],
    )
    return Target(
        region=REGION,
        cluster="default",
        service=name,
        task_id=None,
        public=True,
        tasks=[task],
        ports=[mapping([])],
    )


@contextlib.contextmanager
def _standing_in(path: Path, line: EndpointsLine) -> Iterator[None]:
    """Answer what the agent asks of a control plane: the endpoints, once or as a stream without news."""
    said = msgspec.json.encode(line) + b"\n"
    ping = msgspec.json.encode(EndpointsLine(type="ping", version=line.version)) + b"\n"
    over = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.send_response(200)
            if "watch=1" not in self.path:
                self.send_header("Content-Length", str(len(said)))
                self.end_headers()
                self.wfile.write(said)
                return
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            with contextlib.suppress(OSError):
                self._chunk(said)
                while not over.wait(PING):
                    self._chunk(ping)

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(204)
            self.end_headers()

        def _chunk(self, data: bytes) -> None:
            self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's name
            """Say nothing."""

    class Server(socketserver.ThreadingUnixStreamServer):
        daemon_threads = True
        block_on_close = False

    with Server(str(path), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            server.shutdown()
            thread.join()

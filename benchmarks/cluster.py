"""A real Kubernetes on this machine with one instance of KECS on it, and `kubectl port-forward` as its peer.

Used by the benchmarks that are named in `__main__` as needing a cluster. The cluster is the tests' own
(`tests/cluster/harness`): Linux, root and some Debian packages, no registry.
"""

from __future__ import annotations

import contextlib
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from tests.cluster.harness import images
from tests.cluster.harness.cluster import Cluster

from benchmarks.instance import NETWORK, Bench
from kecs.client.agent import AgentClient
from kecs.client.rpc_types import StartRequest
from kecs.forward.spec import ForwardSpec, RouteChoice, Target

T = TypeVar("T")
PORT = 8080
WAIT_SECONDS = 240
LISTENING = re.compile(r"127\.0\.0\.1:(\d+) ->")
PROTOCOLS = {"kubectl, WebSocket": "true", "kubectl, SPDY": "false"}
"""Name of a peer to the value of the variable that chooses its protocol (kubectl, port-forward)."""


class Setting:
    """A cluster and an instance on it."""

    def __init__(self) -> None:
        self.cluster = Cluster.up()
        self.bench = Bench()

    def start(self) -> None:
        """Start the instance and register the task definition `web`, which serves HTTP on 8080."""
        self.bench.kecs(
            *("start", "--port", "0", "--runtime", "kubernetes"),
            *("--kubeconfig", str(self.cluster.kubeconfig)),
        )
        self.ecs = self.bench.ecs()
        self.ecs.register_task_definition(
            family="web",
            networkMode="awsvpc",
            containerDefinitions=[
                {
                    "name": "web",
                    "image": images.SERVER,
                    "memory": 64,
                    "portMappings": [{"containerPort": PORT}],
                    "stopTimeout": 2,
                }
            ],
        )

    def run(self, service: str, count: int) -> float:
        """Create a public service; return the seconds from the call to all of its tasks RUNNING."""
        began = time.perf_counter()
        self.ecs.create_service(
            serviceName=service, taskDefinition="web", desiredCount=count, networkConfiguration=NETWORK
        )
        wait_for(lambda: self._running(service) == count, f"{count} tasks of {service} are RUNNING")
        return time.perf_counter() - began

    def delete(self, service: str) -> None:
        """Delete a service and wait until its pods are gone."""
        self.ecs.delete_service(service=service, force=True)
        wait_for(lambda: not self.pods(service), f"the pods of {service} are gone")

    def forward(self, service: str, route: RouteChoice) -> int:
        """Start a forward by one route; return its port once it is ACTIVE."""
        name = f"{service}-{route}"
        self.bench.kecs(
            *("port-forward", "start", "service", service, f":{PORT}"),
            *("--name", name, "--route", route, "--wait", "60"),
        )
        with AgentClient(self.bench.paths) as agent:
            rows = agent.ask("forward.list")["forwards"]
        return next(int(row["localPort"]) for row in rows if row["name"] == name)

    def forward_tasks(self, service: str, route: RouteChoice) -> list[int]:
        """Start a forward to each task of a service; return their ports."""
        arns = self.ecs.get_paginator("list_tasks").paginate(serviceName=service).build_full_result()
        targets = [Target(type="task", task=arn.rpartition("/")[2]) for arn in arns["taskArns"]]
        asked = [ForwardSpec(target=target, target_port=PORT, route=route) for target in targets]
        with AgentClient(self.bench.paths) as agent:
            reply = agent.start(StartRequest(forwards=asked))
        return [each.forward.local_port for each in reply.forwards]

    def pods(self, service: str) -> list[Any]:
        """Return the pods of a service, as Kubernetes has them."""
        items: list[Any] = self.cluster.kubectl.json(
            "get", "pods", "--all-namespaces", "--selector", f"kecs.dev/service={service}"
        )["items"]
        return items

    @contextlib.contextmanager
    def kubectl_forward(self, pod: Any, websockets: str) -> Iterator[tuple[int, int]]:
        """Run `kubectl port-forward` to a pod; yield its local port and its process id."""
        metadata = pod["metadata"]
        command = self.cluster.kubectl.command(
            *("port-forward", "--address", "127.0.0.1", "--namespace", metadata["namespace"]),
            *(f"pod/{metadata['name']}", f":{PORT}"),
        )
        # A file, since it prints a line for each connection, and a pipe would have to be read.
        log = self.bench.home / "kubectl.log"
        with log.open("w") as output:
            process = subprocess.Popen(
                command,
                env=self.cluster.kubectl.environment | {"KUBECTL_PORT_FORWARD_WEBSOCKETS": websockets},
                stdout=output,
                stderr=output,
            )
        try:
            found = wait_for(lambda: LISTENING.search(log.read_text()), "kubectl listens", seconds=20)
            yield int(found[1]), process.pid
        finally:
            process.kill()
            process.wait()

    def close(self) -> None:
        """End the instance and the cluster."""
        try:
            self.bench.close()
        finally:
            self.cluster.down()

    def _running(self, service: str) -> int:
        (found,) = self.ecs.describe_services(services=[service])["services"]
        return int(found["runningCount"])


def wait_for(condition: Callable[[], T | None], what: str, *, seconds: float = WAIT_SECONDS) -> T:
    """Ask ten times a second until the answer is true; return it. Raises RuntimeError after `seconds`."""
    deadline = time.monotonic() + seconds
    while not (answer := condition()):
        if time.monotonic() > deadline:
            raise RuntimeError(f"not within {seconds:g} s: {what}")
        time.sleep(0.1)
    return answer


@contextlib.contextmanager
def setting() -> Iterator[Setting]:
    """Bring a cluster with a started instance up, and take both down."""
    it = Setting()
    try:
        it.start()
        yield it
    finally:
        it.close()

"""Start-up, memory and the first answer: what a person waits for and what the daemons cost at rest."""

from __future__ import annotations

import statistics
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.instance import NETWORK, Bench
from benchmarks.table import Row, spread
from kecs.client.agent import AgentClient
from kecs.client.rpc_types import StartRequest
from kecs.forward.spec import ForwardSpec, Target

RUNS = 7
SERVER = Path(__file__).resolve().parent.parent / "examples/hello/server.py"


def measure() -> list[Row]:
    """Run all measures of this module."""
    bench = Bench()
    try:
        rows = [_start(bench)]
        ecs = bench.ecs()
        ecs.list_clusters()
        time.sleep(2)
        idle = bench.memory(bench.paths.controlplane_pid)
        rows.append(Row("control plane, idle", idle, "MB", "at most 130 MB", idle <= 130))
        ecs.register_task_definition(
            family="web",
            networkMode="awsvpc",
            cpu="256",
            memory="512",
            containerDefinitions=[
                {
                    "name": "web",
                    "image": "web",
                    "command": [sys.executable, str(SERVER)],
                    "portMappings": [{"containerPort": 80}],
                }
            ],
        )
        ecs.create_service(
            serviceName="web", taskDefinition="web", desiredCount=0, networkConfiguration=NETWORK
        )
        port = _forwards(bench, 1)
        one = bench.memory(bench.paths.agent_pid)
        rows.append(Row("agent, one forward", one, "MB", "at most 45 MB", one <= 45))
        rows.append(_list_beside_click(bench))
        rows.append(_first_answer(ecs, port))
        _forwards(bench, 200)
        many = bench.memory(bench.paths.agent_pid)
        rows.append(Row("agent, 200 forwards", many, "MB", "at most 60 MB", many <= 60))
        return rows
    finally:
        bench.close()


def _start(bench: Bench) -> Row:
    times = []
    bench.kecs("start", "--port", "0")
    for _ in range(RUNS):
        bench.kecs("stop")
        times.append(_seconds(lambda: bench.kecs("start")))
    middle = statistics.median(times)
    return Row("kecs start to API ready", middle, "s", "at most 1.5 s", middle <= 1.5, spread=spread(times))


def _list_beside_click(bench: Bench) -> Row:
    ours, peer = [], []
    for _ in range(RUNS):
        ours.append(_seconds(lambda: bench.kecs("port-forward", "list")))
        peer.append(
            _seconds(lambda: subprocess.run([sys.executable, "-c", "import click"], check=True, timeout=30))
        )
    ratio = statistics.median(a / b for a, b in zip(ours, peer, strict=True))
    return Row(
        "kecs port-forward list",
        statistics.median(ours),
        "s",
        "at most 2.0",
        ratio <= 2.0,
        statistics.median(peer),
        "python -c 'import click'",
        ratio,
        spread(ours),
    )


def _first_answer(ecs: Any, port: int) -> Row:
    """From a task's RUNNING to the answer of a request that was held until then."""
    times = []
    for _ in range(RUNS):
        answered: list[float] = []
        thread = threading.Thread(target=lambda got=answered: got.append(_answered_at(port)))
        thread.start()
        ecs.update_service(service="web", desiredCount=1)
        thread.join()
        arns = ecs.list_tasks(serviceName="web")["taskArns"]
        (task,) = ecs.describe_tasks(tasks=arns)["tasks"]
        times.append(max(0.0, answered[0] - task["startedAt"].timestamp()) * 1000)
        ecs.update_service(service="web", desiredCount=0)
        while ecs.list_tasks(serviceName="web")["taskArns"]:
            time.sleep(0.05)
    middle = statistics.median(times)
    return Row(
        "RUNNING to first answer of a held request",
        middle,
        "ms",
        "under 50 ms",
        middle < 50,
        spread=spread(times),
    )


def _answered_at(port: int) -> float:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=30) as answer:
        answer.read(1)
        return time.time()


def _forwards(bench: Bench, count: int) -> int:
    """Have `count` forwards to the one service; return the first one's port."""
    if not bench.paths.agent_pid.exists():
        bench.kecs("port-forward", "start", "service", "default/web", "--name", "many-0")
    with AgentClient(bench.paths) as agent:
        reply = agent.start(
            StartRequest(
                forwards=[
                    ForwardSpec(target=Target(type="service", service="web"), name=f"many-{index}")
                    for index in range(count)
                ]
            )
        )
    return reply.forwards[0].forward.local_port


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began

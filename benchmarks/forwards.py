"""A team's file of 200 forwards: how long it takes to apply, and what its forwards cost at rest.

Half lead to services and half to tasks by tags; a few of the services run, everything else is waited for, as
for somebody who has just checked the file out. Ports are the agent's to choose, so that none is taken.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from benchmarks import spent
from benchmarks.daemons import SERVER
from benchmarks.instance import NETWORK, Bench
from benchmarks.table import Row, spread
from kecs.client.agent import AgentClient
from kecs.client.rpc_types import ApplyReply, ApplyRequest
from kecs.forward import file

RUNS = 5
COUNT = 200
THERE = 4
"""So many of the services run, with one task each."""
IDLE_SECONDS = 20
APPLY_SECONDS, AGAIN_SECONDS = 2.0, 0.3
"""The budgets; a person waits for the whole command, which is held to the same ones as its call."""
CPU_PERCENT, MEGABYTES = 0.5, 60


def measure() -> list[Row]:
    """Run all measures of this module."""
    bench = Bench()
    try:
        bench.kecs("start", "--port", "0")
        _run_services(bench)
        path = bench.home / "port-forward.yaml"
        path.write_text(yaml.safe_dump(_document(), sort_keys=False))
        bench.kecs("port-forward", "run", "--config", str(path))  # also starts the agent
        times = _times(bench, path)
        rows = [
            _row(f"{COUNT} forwards of a file applied, the call", times["call"], APPLY_SECONDS),
            _row(f"{COUNT} forwards of a file applied, `run`", times["command"], APPLY_SECONDS),
            _row("the same file again, the call", times["call again"], AGAIN_SECONDS),
            _row("the same file again, `run`", times["command again"], AGAIN_SECONDS),
        ]
        return [*rows, *_idle(bench)]
    finally:
        bench.close()


def _document() -> dict[str, Any]:
    services = [
        {"name": f"service-{n}", "type": "service", "service": f"web-{n}", "targetPort": 80}
        for n in range(COUNT // 2)
    ]
    tasks = [
        {"name": f"task-{n}", "type": "task", "tags": {"Team": "web", "Part": f"{n}"}, "targetPort": 9229}
        for n in range(COUNT - len(services))
    ]
    return {"version": "1", "forwards": services + tasks}


def _run_services(bench: Bench) -> None:
    ecs = bench.ecs()
    container = {
        "name": "web",
        "image": "web",
        "command": [sys.executable, str(SERVER)],
        "portMappings": [{"containerPort": 80}],
    }
    ecs.register_task_definition(
        family="web", networkMode="awsvpc", cpu="256", memory="512", containerDefinitions=[container]
    )
    names = [f"web-{n}" for n in range(THERE)]
    for name in names:
        ecs.create_service(
            serviceName=name, taskDefinition="web", desiredCount=1, networkConfiguration=NETWORK
        )
    ecs.get_waiter("services_stable").wait(services=names, WaiterConfig={"Delay": 1, "MaxAttempts": 60})


def _times(bench: Bench, path: Path) -> dict[str, list[float]]:
    """Apply and apply again, alternately by the agent's method and by the command; return the seconds.

    The file's forwards are there before the first time and after the last.
    """
    found: dict[str, list[float]] = {"call": [], "call again": [], "command": [], "command again": []}
    spec = file.parse(path.read_bytes(), str(path))
    request = ApplyRequest(owner=str(path.resolve()), forwards=list(spec.forwards))

    def call() -> str:
        with AgentClient(bench.paths) as agent:
            return _signs(agent.apply(request))

    def command() -> str:
        said = bench.kecs("port-forward", "run", "--config", str(path)).splitlines()
        return "".join(line[0] for line in said)

    for _ in range(RUNS):
        for name, apply in (("call", call), ("command", command)):
            with AgentClient(bench.paths) as agent:
                agent.down(request.owner)
            found[name].append(_seconds(apply, "+"))
            found[f"{name} again"].append(_seconds(apply, "="))
    return found


def _signs(reply: ApplyReply) -> str:
    return "".join(step.sign for step in reply.steps)


def _seconds(apply: Callable[[], str], sign: str) -> float:
    """Return how long it took to have this sign on every forward. Raises RuntimeError on another plan."""
    began = time.perf_counter()
    signs = apply()
    seconds = time.perf_counter() - began
    if signs != sign * COUNT:
        raise RuntimeError(f"not the plan of {COUNT} times {sign!r}: {signs!r}")
    return seconds


def _row(measure: str, times: list[float], budget: float) -> Row:
    middle = statistics.median(times)
    return Row(measure, middle, "s", f"under {budget:g} s", middle < budget, spread=spread(times))


def _idle(bench: Bench) -> list[Row]:
    """Measure the agent with the forwards as they are: none is used, and nothing comes or goes."""
    with AgentClient(bench.paths) as agent:
        states = [row["state"] for row in agent.ask("forward.list")["forwards"]]
    if (states.count("ACTIVE"), states.count("WAITING")) != (THERE, COUNT - THERE):
        raise RuntimeError(f"not {THERE} that serve and {COUNT - THERE} that wait: {sorted(states)}")
    pid = bench.pid(bench.paths.agent_pid)
    time.sleep(2)  # what follows an apply is over
    meter = spent.Meter({"agent": [pid]})
    time.sleep(IDLE_SECONDS)
    percent = 100 * meter.spent()["agent"] / IDLE_SECONDS
    memory = bench.memory(bench.paths.agent_pid)
    return [
        Row(
            f"agent's CPU, {COUNT} idle forwards",
            percent,
            "% of a core",
            f"under {CPU_PERCENT} %",
            percent < CPU_PERCENT,
        ),
        Row(
            f"agent, {COUNT} forwards of a file",
            memory,
            "MB",
            f"at most {MEGABYTES} MB",
            memory <= MEGABYTES,
        ),
    ]

"""The interpreter's lock: what other work of the agent costs a direct forward (contracts.md, section 1).

The relay loop is one thread of the agent. Beside it a tunnel downloads at full speed and a client asks for
`list` ten times a second; the direct forward must keep a share of its requests and a short tail.

A download costs the forward twice: by the agent's lock, and by the cores that the API server, the kubelet and
the container runtime need for it. To tell one from the other the same body also comes by `kubectl
port-forward`, a process of its own: what the forward loses then, no design of the agent could give back.
"""

from __future__ import annotations

import statistics
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from benchmarks import load
from benchmarks.cluster import PROTOCOLS, Setting
from benchmarks.table import Row, beside, spread
from kecs.client.agent import AgentClient

ROUNDS = 5
SECONDS = 4
BODY = 20_000_000
LIST_EVERY = 0.1
KEPT = 0.4
P99_MS = 5.0


@dataclass
class Runs:
    """The same load in three surroundings, a figure a round."""

    alone: list[load.Load] = field(default_factory=list)
    by_tunnel: list[load.Load] = field(default_factory=list)
    by_kubectl: list[load.Load] = field(default_factory=list)
    body_by_tunnel: list[float] = field(default_factory=list)
    """MB/s of what comes meanwhile."""
    body_by_kubectl: list[float] = field(default_factory=list)
    body_alone: list[float] = field(default_factory=list)
    """The same by the tunnel while nobody asks for anything."""


def measure(setting: Setting) -> list[Row]:
    """Run all measures of this module."""
    setting.run("web", 1)
    (pod,) = setting.pods("web")
    direct, tunnel = setting.forward("web", "direct"), setting.forward("web", "tunnel")
    runs = Runs()
    with setting.kubectl_forward(pod, PROTOCOLS["kubectl, SPDY"]) as (kubectl, _):
        for _ in range(ROUNDS):
            load.requests(direct, seconds=1)
            runs.alone.append(load.requests(direct, seconds=SECONDS))
            runs.by_tunnel.append(_beside(setting, direct, tunnel, runs.body_by_tunnel))
            runs.by_kubectl.append(_beside(setting, direct, kubectl, runs.body_by_kubectl))
            runs.body_alone.append(BODY / 1e6 / load.body(tunnel, BODY))
    setting.delete("web")
    if failed := sum(run.failed for run in runs.alone + runs.by_tunnel + runs.by_kubectl):
        raise RuntimeError(f"{failed} requests failed")
    return _rows(runs)


def _beside(setting: Setting, direct: int, busy: int, speeds: list[float]) -> load.Load:
    """Load the direct forward while bodies come by the port `busy`; add how fast those came."""
    taken: list[float] = []
    with (
        AgentClient(setting.bench.paths) as agent,
        Repeat(lambda: agent.ask("forward.list"), LIST_EVERY),
        Repeat(lambda: taken.append(load.body(busy, BODY)), 0),
    ):
        done = load.requests(direct, seconds=SECONDS)
        full = len(taken)
    speeds.append(BODY / 1e6 / statistics.median(taken[:full] or taken))
    return done


def _rows(runs: Runs) -> list[Row]:
    ours, alone, kubectl = (
        [run.rate for run in each] for each in (runs.by_tunnel, runs.alone, runs.by_kubectl)
    )
    tail = [run.p99_ms for run in runs.by_tunnel]
    middle = statistics.median(tail)
    floor = [run.p99_ms for run in runs.by_kubectl]
    least = [run.p99_ms for run in runs.alone]
    peer = {"kubectl meanwhile": runs.body_by_kubectl}
    return [
        beside("direct forward beside a busy tunnel", "/s", ours, {"alone": alone}, at_least=KEPT),
        beside("  beside a busy kubectl", "/s", kubectl, {"alone": alone}),
        Row(
            "  p99 beside the tunnel",
            middle,
            "ms",
            f"under {P99_MS:g} ms",
            middle < P99_MS,
            spread=spread(tail),
        ),
        Row("  p99 beside kubectl", statistics.median(floor), "ms", spread=spread(floor)),
        Row("  p99 alone", statistics.median(least), "ms", spread=spread(least)),
        beside("  the body meanwhile", "MB/s", runs.body_by_tunnel, peer),
        beside("  the body, nobody asks", "MB/s", runs.body_alone, peer),
    ]


class Repeat:
    """A thread that does the same again and again while the `with` lasts, and must have done it once."""

    def __init__(self, work: Callable[[], object], every: float) -> None:
        self._work, self._every = work, every
        self._ended = threading.Event()
        self._done = 0
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        if not self._done:
            raise RuntimeError("what was to run beside the load did not")

    def _run(self) -> None:
        while not self._ended.wait(self._every):
            self._work()
            self._done += 1

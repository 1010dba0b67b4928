"""A forward by tunnel beside `kubectl port-forward` in both its protocols: one pod, one run, alternating.

Each measure has a kubectl of its own, because one whose client resets a connection may end. What the far
end spends (API server, kubelet, containerd, the pod) is in the table too: on two cores it is the limit, and
a client that asks less of it goes beyond what its own saving allows.

Latency is measured in two ways. Eight connections that each ask again at once tell how long an answer takes
of one who asks as fast as he can: the faster the way, the more it is asked. At a rate that kubectl can hold,
too, both are asked the same, and a request that is late makes no other look short (`benchmarks.paced`).
"""

from __future__ import annotations

import contextlib
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from benchmarks import load, spent
from benchmarks.cluster import PROTOCOLS, Setting
from benchmarks.paced import Paced, paced
from benchmarks.table import Row, beside

ROUNDS = 5
SECONDS = 4
BODY = 400_000_000
OURS = "tunnel"
HELD = 0.75
"""Of the requests a second that kubectl was seen to answer at most: what all are asked at a fixed rate."""
MEMORY_ONE = 55
MEMORY_MANY = 75
MANY = 50

Lane = Callable[[], AbstractContextManager[tuple[int, int]]]
"""Opens a way to the pod: its local port, and the process that works for it."""


@dataclass
class Figures:
    """What one way gave, a figure a round."""

    rate: list[float] = field(default_factory=list)
    p99: list[float] = field(default_factory=list)
    new: list[float] = field(default_factory=list)
    body: list[float] = field(default_factory=list)
    own: list[float] = field(default_factory=list)
    """Microseconds of CPU for each keep-alive request, of the process that forwards."""
    own_new: list[float] = field(default_factory=list)
    """The same for each new connection."""
    far: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    far_new: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    paced: list[Paced] = field(default_factory=list)


def measure(setting: Setting) -> list[Row]:
    """Run all measures of this module."""
    setting.run("web", 1)
    (pod,) = setting.pods("web")
    port = setting.forward("web", "tunnel")

    @contextlib.contextmanager
    def ours() -> Iterator[tuple[int, int]]:
        yield port, setting.bench.pid(setting.bench.paths.agent_pid)

    lanes: dict[str, Lane] = {OURS: ours}
    for name, websockets in PROTOCOLS.items():
        lanes[name] = partial(setting.kubectl_forward, pod, websockets)
    figures = {name: Figures() for name in lanes}
    for name in _turns(lanes):
        _round(lanes[name], figures[name], _far_end(setting, pod))
    rate = round(HELD * max(statistics.median(figures[name].rate) for name in PROTOCOLS))
    for name in _turns(lanes):
        _at(rate, lanes[name], figures[name])
    rows = [*_rows(figures, rate), *_memory(setting)]
    setting.delete("web")
    return rows


def _turns(lanes: dict[str, Lane]) -> Iterator[str]:
    """Yield the ways' names, round after round, each round beginning with another one."""
    names = list(lanes)
    for turn in range(ROUNDS):
        yield from names[turn % len(names) :] + names[: turn % len(names)]


def _round(lane: Lane, figures: Figures, far: dict[str, list[int]]) -> None:
    with lane() as (port, pid):
        load.requests(port, seconds=1)
        meter = spent.Meter({OURS: [pid], **far})
        kept = load.requests(port, seconds=SECONDS)
        _note(meter, kept.requests, figures.own, figures.far)
        figures.rate.append(kept.rate)
        figures.p99.append(kept.p99_ms)
    with lane() as (port, pid):
        load.requests(port, seconds=1, keep_alive=False)
        meter = spent.Meter({OURS: [pid], **far})
        new = load.requests(port, seconds=SECONDS, keep_alive=False)
        _note(meter, new.requests, figures.own_new, figures.far_new)
        figures.new.append(new.rate)
    with lane() as (port, _):
        load.body(port, BODY // 10)
        figures.body.append(BODY / 1e6 / load.body(port, BODY))
    if kept.failed or new.failed:
        raise RuntimeError(f"{kept.failed} kept and {new.failed} new connections failed")


def _at(rate: int, lane: Lane, figures: Figures) -> None:
    with lane() as (port, _):
        load.requests(port, seconds=1)
        figures.paced.append(paced(port, rate, SECONDS))


def _note(meter: spent.Meter, requests: int, own: list[float], far: dict[str, list[float]]) -> None:
    each = {name: seconds / requests * 1e6 for name, seconds in meter.spent().items()}
    own.append(each.pop(OURS))
    for name, microseconds in each.items():
        far[name].append(microseconds)


def _far_end(setting: Setting, pod: Any) -> dict[str, list[int]]:
    cluster = setting.cluster
    return {
        "kube-apiserver": [cluster.controlplane.apiserver.pid],
        "kubelet": [cluster.nodes[0].kubelet.pid],
        "containerd": [cluster.nodes[0].containerd.pid],
        "the pod": spent.of_pod(pod["metadata"]["uid"]),
    }


def _rows(figures: dict[str, Figures], rate: int) -> list[Row]:
    ours = figures.pop(OURS)

    def row(what: str, unit: str, of: Callable[[Figures], list[float]], **budget: float) -> Row:
        return beside(what, unit, of(ours), {name: of(peer) for name, peer in figures.items()}, **budget)

    return [
        row("tunnel: keep-alive requests", "/s", lambda it: it.rate, at_least=1.4),
        row("tunnel: p99 of these", "ms", lambda it: it.p99, at_most=0.6),
        row(
            f"tunnel: p99 at {rate} requests/s", "ms", lambda it: [each.p99 for each in it.paced], at_most=0.6
        ),
        row("  p50 of these", "ms", lambda it: [each.p50 for each in it.paced]),
        row("  how late the load was itself, p99", "ms", lambda it: [each.own_p99 for each in it.paced]),
        row("tunnel: own CPU per request", "µs", lambda it: it.own, at_most=0.9),
        *(row(f"  CPU of {name}", "µs", partial(_far, name)) for name in ours.far),
        row("tunnel: new connections", "/s", lambda it: it.new, at_least=1.8),
        row("  own CPU per connection", "µs", lambda it: it.own_new),
        *(row(f"  CPU of {name}", "µs", partial(_far_new, name)) for name in ours.far_new),
        row("tunnel: one body of 400 MB", "MB/s", lambda it: it.body, at_least=1.3),
    ]


def _far(name: str, figures: Figures) -> list[float]:
    return figures.far[name]


def _far_new(name: str, figures: Figures) -> list[float]:
    return figures.far_new[name]


def _memory(setting: Setting) -> list[Row]:
    """Weigh the agent at rest, anew: with one forward, and with one to each of 50 tasks, each used once."""
    bench = setting.bench
    bench.kecs("port-forward", "agent", "restart")
    load.requests(setting.forward("web", "tunnel"), seconds=1)
    one = bench.memory(bench.paths.agent_pid)
    bench.kecs("port-forward", "stop", "--all")
    setting.run("many", MANY)
    bench.kecs("port-forward", "agent", "restart")
    for port in setting.forward_tasks("many", "tunnel"):
        load.body(port, 1)
    many = bench.memory(bench.paths.agent_pid)
    setting.delete("many")
    return [
        Row("agent, one forward by tunnel", one, "MB", f"at most {MEMORY_ONE} MB", one <= MEMORY_ONE),
        Row(f"agent, {MANY} forwards by tunnel", many, "MB", f"under {MEMORY_MANY} MB", many < MEMORY_MANY),
    ]

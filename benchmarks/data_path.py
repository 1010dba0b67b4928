"""The data path beside HAProxy, nginx and socat: the same load, the same origin, alternating.

Requests are answered by nginx with a few bytes; bulk comes from iperf3. Each run has a way of its own to
them (`peers`), and in each round the order moves on by one, so that nobody always has the warm machine.
What a proxy spends is its own process's time, as the kernel counts it.
"""

from __future__ import annotations

import contextlib
import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import idle, load, programs, spent
from benchmarks.agent_alone import our_agent
from benchmarks.origin import Origin, origin
from benchmarks.paced import Paced, paced
from benchmarks.peers import BIG_PIPES, Lane, Socat, haproxy, nginx
from benchmarks.table import Row, beside, spread

ROUNDS = 5
SECONDS = 2
"""Of each run; the median of five short runs says more than one long run."""
RATE = 5000
RATE_SECONDS = 5
OURS, HAPROXY, NGINX, SOCAT = "ours", "HAProxy", "nginx", "socat"
SMALL_PIPES = "HAProxy, default pipes"


@dataclass
class Figures:
    """What the lanes gave: lane to a figure a round."""

    by_lane: dict[str, list[float]] = field(default_factory=dict)

    def add(self, lane: str, figure: float) -> None:
        """Add the figure of a round."""
        self.by_lane.setdefault(lane, []).append(figure)

    def row(
        self,
        measure: str,
        unit: str,
        peers: Sequence[str],
        *,
        at_least: float | None = None,
        at_most: float | None = None,
    ) -> Row:
        """Return the row beside the best of these peers."""
        those = {name: self.by_lane[name] for name in peers}
        return beside(measure, unit, self.by_lane[OURS], those, at_least=at_least, at_most=at_most)


@dataclass
class Stage:
    """Everything that runs."""

    lanes: dict[str, Lane]

    def rounds(self, names: Sequence[str]) -> Iterator[Lane]:
        """Yield these lanes, round after round, each round beginning with another one."""
        for turn in range(ROUNDS):
            first = turn % len(names)
            for name in (*names[first:], *names[:first]):
                yield self.lanes[name]


def measure() -> list[Row]:
    """Run all measures of this module."""
    programs.require()
    descriptors = programs.allow_descriptors()
    with _stage() as (stage, there):
        return [
            *_requests(stage, "keep-alive requests, 8 connections", 8, socat=True),
            *_requests(stage, "keep-alive requests, 64 connections", 64, socat=False),
            *_new(stage),
            *_bulk(stage, 1, (OURS, HAPROXY, SMALL_PIPES, NGINX, SOCAT)),
            *_bulk(stage, 8, (OURS, HAPROXY, SMALL_PIPES)),
            *_paced(stage),
            *idle.measure(there, descriptors),
        ]


@contextlib.contextmanager
def _stage() -> Iterator[tuple[Stage, Origin]]:
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kecs-bench-", dir="/tmp")))
        there = stack.enter_context(origin(folder))
        lanes: dict[str, Lane] = {OURS: stack.enter_context(our_agent(there, 1))}
        lanes[HAPROXY] = stack.enter_context(haproxy(folder, there, HAPROXY, 10, BIG_PIPES))
        lanes[SMALL_PIPES] = stack.enter_context(haproxy(folder, there, SMALL_PIPES, 11))
        lanes[NGINX] = stack.enter_context(nginx(folder, there))
        lanes[SOCAT] = Socat(folder, there)
        yield Stage(lanes), there


def _requests(stage: Stage, what: str, connections: int, *, socat: bool) -> list[Row]:
    names = [OURS, HAPROXY, NGINX, *([SOCAT] if socat else [])]
    rates = Figures()
    for lane in stage.rounds(names):
        with lane.way("http") as port:
            done = _whole(load.requests(port, seconds=SECONDS, connections=connections), lane)
        rates.add(lane.name, done.rate)
    rows = [rates.row(what, "/s", [HAPROXY, NGINX], at_least=1.0)]
    return [*rows, *([rates.row("  beside socat", "/s", [SOCAT])] if socat else [])]


def _new(stage: Stage) -> list[Row]:
    rates = Figures()
    for lane in stage.rounds([OURS, HAPROXY, NGINX, SOCAT]):
        with lane.way("http") as port:
            done = _whole(load.requests(port, seconds=SECONDS, keep_alive=False), lane)
        rates.add(lane.name, done.rate)
    return [
        rates.row("new connections", "/s", [HAPROXY], at_least=0.8),
        rates.row("  beside nginx", "/s", [NGINX]),
        rates.row("  beside socat", "/s", [SOCAT]),
    ]


def _bulk(stage: Stage, streams: int, names: Sequence[str]) -> list[Row]:
    speeds, costs = Figures(), Figures()
    for lane in stage.rounds(names):
        with lane.way("bulk") as port:
            meter = spent.Meter({lane.name: lane.pids()})
            done = load.bulk(port, streams=streams, seconds=SECONDS)
            seconds = meter.spent()[lane.name]
        speeds.add(lane.name, done.gigabits)
        costs.add(lane.name, seconds / (done.size / 1e9))
    several = "1 stream" if streams == 1 else f"{streams} streams"
    more = [name for name in names if name not in (OURS, HAPROXY)]
    return [
        speeds.row(f"bulk, {several}", "Gbit/s", [HAPROXY, SMALL_PIPES], at_least=1.2),
        *(speeds.row(f"  beside {name}", "Gbit/s", [name]) for name in more),
        costs.row(f"CPU per GB, {several}", "s", [HAPROXY, SMALL_PIPES], at_most=0.7),
        *(costs.row(f"  beside {name}", "s", [name]) for name in more if name != SOCAT),
    ]


def _paced(stage: Stage) -> list[Row]:
    found: dict[str, list[Paced]] = {OURS: [], HAPROXY: []}
    for lane in stage.rounds([OURS, HAPROXY]):
        with lane.way("http") as port:
            found[lane.name].append(paced(port, RATE, RATE_SECONDS))

    late = [each.own_p99 for those in found.values() for each in those]

    def row(what: str, unit: str, of: Callable[[Paced], float], at_most: float | None = None) -> Row:
        peers = {HAPROXY: [of(each) for each in found[HAPROXY]]}
        return beside(what, unit, [of(each) for each in found[OURS]], peers, at_most=at_most)

    return [
        row(f"p99 at {RATE} requests/s", "ms", lambda it: it.p99, at_most=1.2),
        row("  p50 of these", "ms", lambda it: it.p50),
        row("  rate that was held", "/s", lambda it: it.rate),
        Row("  how late the load was itself, p99", statistics.median(late), "ms", spread=spread(late)),
    ]


def _whole(done: load.Load, lane: Lane) -> load.Load:
    if done.failed:
        raise RuntimeError(f"{done.failed} requests through {lane.name} failed")
    return done

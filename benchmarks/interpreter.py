"""The interpreter's lock: what other work of the agent costs a direct forward (contracts.md, section 1).

The relay loop is one thread of the agent. Beside it a tunnel downloads at full speed and a client asks for
`list` ten times a second; the direct forward must keep a share of its requests and a short tail.
"""

from __future__ import annotations

import statistics
import threading
from collections.abc import Callable

from benchmarks import load
from benchmarks.cluster import Setting
from benchmarks.table import Row, beside, spread
from kecs.client.agent import AgentClient

ROUNDS = 5
SECONDS = 4
BODY = 100_000_000
LIST_EVERY = 0.1
KEPT = 0.4
P99_MS = 5.0


def measure(setting: Setting) -> list[Row]:
    """Run all measures of this module."""
    setting.run("web", 1)
    direct, tunnel = setting.forward("web", "direct"), setting.forward("web", "tunnel")
    alone, beside_it = [], []
    for _ in range(ROUNDS):
        load.requests(direct, seconds=1)
        alone.append(load.requests(direct, seconds=SECONDS))
        with (
            AgentClient(setting.bench.paths) as agent,
            Repeat(lambda: agent.ask("forward.list"), LIST_EVERY),
            Repeat(lambda: load.body(tunnel, BODY), 0),
        ):
            beside_it.append(load.requests(direct, seconds=SECONDS))
    setting.delete("web")
    if failed := sum(run.failed for run in alone + beside_it):
        raise RuntimeError(f"{failed} requests failed")
    tail = [run.p99_ms for run in beside_it]
    middle = statistics.median(tail)
    return [
        beside(
            "direct forward beside a busy tunnel",
            "/s",
            [run.rate for run in beside_it],
            {"alone": [run.rate for run in alone]},
            at_least=KEPT,
        ),
        Row("  p99 of these", middle, "ms", f"under {P99_MS:g} ms", middle < P99_MS, spread=spread(tail)),
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

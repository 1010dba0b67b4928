"""Which metrics the agent has, and where each figure comes from; docs/reference/metrics.md describes them.

`kecs.agent.metrics_door` serves the page. One line a forward and a figure: what can grow without bound
(tasks, clients) is no label.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from kecs import __version__
from kecs.agent.exposition import Kind, Page
from kecs.agent.named import Named
from kecs.agent.runner import Runner
from kecs.agent.state import Entry
from kecs.forward.machine import State
from kecs.net.latency import BOUNDS, Durations
from kecs.net.messages import Counters, Endpoint

COUNTED: tuple[tuple[str, Kind, str, Callable[[Counters], int]], ...] = (
    ("connections_total", "counter", "Connections accepted.", lambda it: it.total),
    ("connections_expired_total", "counter", "Held connections that were given up.", lambda it: it.expired),
    (
        "connections_failed_total",
        "counter",
        "Connections that a defect of KECS ended.",
        lambda it: it.failed,
    ),
    ("received_bytes_total", "counter", "Bytes that came from clients.", lambda it: it.received),
    ("sent_bytes_total", "counter", "Bytes that went to clients.", lambda it: it.sent),
    ("datagrams_dropped_total", "counter", "Datagrams of UDP that nobody took.", lambda it: it.dropped),
    ("connections_open", "gauge", "Connections that are relayed or dialled for now.", lambda it: it.open),
    ("connections_held", "gauge", "Connections that wait for an endpoint now.", lambda it: it.held),
)
"""Numbers of a forward: the name after `kecs_forward_`, the kind, what it counts, where it is."""

TIMED: tuple[tuple[str, str, Callable[[Counters], Durations]], ...] = (
    ("dial_seconds", "Time until a task was connected, on direct routes.", lambda it: it.dial),
    (
        "first_byte_seconds",
        "Time from a client's connect to its task's first byte.",
        lambda it: it.first_byte,
    ),
)


@dataclass(frozen=True, slots=True)
class Measured:
    """One forward, or a service that is reached by its name or kept port."""

    label: str
    """The forward's name; the others have ids with a `/`, which no name has."""
    entry: Entry
    state: State | None
    """None for those that are no forward of anybody."""
    endpoints: tuple[Endpoint, ...]
    counters: Counters


class Asks(Protocol):
    """What is needed of `kecs.agent.relay.Relay`."""

    async def stats(self) -> dict[str, Counters]:
        """Ask for the counters of all forwards."""


class Metrics:
    """The page, as of the moment it is asked for."""

    def __init__(
        self,
        instance: str,
        relay: Asks,
        runners: Mapping[str, Runner],
        named: Iterable[Callable[[], Mapping[str, Named]]],
        *,
        is_connected: Callable[[], bool],
        resident: Callable[[], int],
    ) -> None:
        """`named` return the services that are reached without a forward.

        `is_connected` tells whether the control plane is followed, `resident` how many bytes of memory the
        process has.
        """
        self._instance = instance
        self._relay = relay
        self._runners = runners
        self._named = tuple(named)
        self._is_connected = is_connected
        self._resident = resident
        self._started_at = time.time()

    async def page(self) -> str:
        """Ask the relay loop and write it all down. Raises `KecsError` when the loop does not answer."""
        counted = await self._relay.stats()
        page = Page()
        self._of_the_agent(page)
        of_forwards(page, list(self._measured(counted)))
        return page.text()

    def _measured(self, counted: Mapping[str, Counters]) -> Iterable[Measured]:
        for runner in self._runners.values():
            counters = counted.get(runner.id) or runner.counters
            yield Measured(runner.entry.name, runner.entry, runner.state, runner.endpoints, counters)
        for named in self._named:
            for one in named().values():
                yield Measured(one.id, one.entry, None, one.endpoints, counted.get(one.id) or Counters())

    def _of_the_agent(self, page: Page) -> None:
        page.family("kecs_agent_info", "gauge", "Version of the agent; always 1.")
        page.sample(1, {"instance": self._instance, "version": __version__})
        own: tuple[tuple[str, Kind, str, float], ...] = (
            ("kecs_controlplane_connected", "gauge", "1 while it follows the control plane.",
             int(self._is_connected())),
            ("process_start_time_seconds", "gauge", "When the agent started, since the epoch.",
             self._started_at),
            ("process_cpu_seconds_total", "counter", "CPU time of the agent.", time.process_time()),
            ("process_resident_memory_bytes", "gauge", "Memory of the agent.", self._resident()),
            ("process_open_fds", "gauge", "Open descriptors.", sum(1 for _ in Path("/dev/fd").iterdir())),
            ("process_max_fds", "gauge", "How many it may have.",
             resource.getrlimit(resource.RLIMIT_NOFILE)[0]),
        )  # fmt: skip
        for name, kind, text, value in own:
            page.family(name, kind, text)
            page.sample(value, {})


def of_forwards(page: Page, measured: list[Measured]) -> None:
    """Write what there is of each forward."""
    page.family("kecs_forward_info", "gauge", "Where a forward leads; always 1.")
    for one in measured:
        page.sample(1, {"forward": one.label, **_described(one.entry)})
    page.family("kecs_forward_state", "gauge", "1 for the state that a forward has, 0 for the others.")
    for one in measured:
        for state in State if one.state is not None else ():
            page.sample(int(state is one.state), {"forward": one.label, "state": state.value})
    page.family("kecs_forward_endpoints", "gauge", "Endpoints that take connections, and those that drain.")
    for one in measured:
        draining = sum(endpoint.draining for endpoint in one.endpoints)
        page.sample(len(one.endpoints) - draining, {"forward": one.label, "draining": "false"})
        page.sample(draining, {"forward": one.label, "draining": "true"})
    for name, kind, text, value in COUNTED:
        page.family(f"kecs_forward_{name}", kind, text)
        for one in measured:
            page.sample(value(one.counters), {"forward": one.label})
    for name, text, durations in TIMED:
        page.family(f"kecs_forward_{name}", "histogram", text)
        for one in measured:
            taken = durations(one.counters)
            page.histogram(taken.counts, BOUNDS, taken.seconds, {"forward": one.label})


def _described(entry: Entry) -> dict[str, str]:
    return {
        "id": entry.id,
        "type": entry.type,
        "region": entry.region,
        "cluster": entry.cluster,
        "service": entry.service or "",
        "task": entry.task_id or "",
        "target_port": str(entry.target_port or entry.port),
        "local_port": str(entry.local_port),
        "protocol": entry.protocol,
    }

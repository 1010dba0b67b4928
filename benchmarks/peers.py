"""The proxies that the data path is measured beside, each configured as well as can be.

HAProxy has one thread, nginx one worker; both have a listener for each run, which leads to an address that no
other run uses. socat is started for each run, and makes a process for each connection.

HAProxy's `splice-auto` was never seen to splice here, so bulk has `splice-request` and `splice-response`,
which in turn would cost small messages more. With its default pipes it spends about twice as much on bulk as
with those of 1 MiB: it is measured with both.
"""

from __future__ import annotations

import contextlib
import itertools
import resource
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from benchmarks import programs
from benchmarks.origin import Origin

RUNS = 60
"""Runs that each proxy may take part in, of each kind."""
BIG_PIPES = "  tune.pipesize 1048576\n"

_HAPROXY = """\
global
  nbthread 1
  maxconn 2000
{pipes}defaults
  mode tcp
  timeout connect 5s
  timeout client 1h
  timeout server 1h
"""
_NGINX = """\
load_module {module};
daemon off; master_process off; pid {folder}/stream.pid; error_log stderr warn;
events {{ worker_connections {connections}; multi_accept on; }}
stream {{ tcp_nodelay on; proxy_buffer_size 64k; proxy_timeout 3600s;
"""


class Lane(Protocol):
    """A proxy with ways to the origin."""

    name: str

    def pids(self) -> list[int]:
        """Return its processes."""

    @contextlib.contextmanager
    def way(self, kind: str) -> Iterator[int]:
        """Yield a local port that leads to `http` or `bulk` by an address that no other run has."""


def targets(network: int, origin: Origin) -> dict[str, list[tuple[str, int]]]:
    """Return the addresses of all runs of one proxy, by kind; each has a network of its own."""
    return {
        "http": [(f"127.{network}.0.{run + 1}", origin.http) for run in range(RUNS)],
        "bulk": [(f"127.{network}.1.{run + 1}", origin.bulk) for run in range(RUNS)],
    }


class Standing:
    """A proxy that has listeners for all runs from its start."""

    def __init__(self, name: str, pid: int, ports: dict[str, list[int]]) -> None:
        self.name = name
        self._pid = pid
        self._ports = {kind: iter(numbers) for kind, numbers in ports.items()}

    def pids(self) -> list[int]:
        """Return its process."""
        return [self._pid]

    @contextlib.contextmanager
    def way(self, kind: str) -> Iterator[int]:
        """Yield the port of the next run."""
        yield next(self._ports[kind])


class Socat:
    """A socat for each run."""

    name = "socat"

    def __init__(self, folder: Path, origin: Origin) -> None:
        self._log = folder / "socat.log"
        self._targets = {kind: iter(those) for kind, those in targets(30, origin).items()}

    def pids(self) -> list[int]:
        """Return nothing: its processes come and go with the connections."""
        return []

    @contextlib.contextmanager
    def way(self, kind: str) -> Iterator[int]:
        """Run one."""
        (port,) = programs.free_ports(1)
        host, target = next(self._targets[kind])
        listen = f"TCP-LISTEN:{port},bind=127.0.0.1,fork,reuseaddr,nodelay,backlog=4096"
        command = [programs.path_of("socat"), "-b", "65536", listen, f"TCP:{host}:{target},nodelay"]
        with programs.running(command, self._log):
            programs.wait_for_listener(port, self._log)
            yield port


@contextlib.contextmanager
def haproxy(folder: Path, origin: Origin, name: str, network: int, pipes: str = "") -> Iterator[Standing]:
    """Run HAProxy with targets in 127.`network`, and with its default pipes or `BIG_PIPES`."""
    splice = {
        "http": "  option splice-auto\n",
        "bulk": "  option splice-request\n  option splice-response\n",
    }

    def section(kind: str, port: int, host: str, target: int) -> str:
        bind = f"listen run-{port}\n  bind 127.0.0.1:{port} backlog 4096\n"
        return f"{bind}{splice[kind]}  server it {host}:{target}\n"

    text = _Text(_HAPROXY.format(pipes=pipes), section, "")
    command = [programs.path_of("haproxy"), "-db", "-f"]
    with _standing(name, network, folder, origin, text, command) as lane:
        yield lane


@contextlib.contextmanager
def nginx(folder: Path, origin: Origin) -> Iterator[Standing]:
    """Run nginx' stream module."""
    connections = resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 100
    head = _NGINX.format(module=programs.STREAM_MODULE, connections=connections, folder=folder)

    def section(_kind: str, port: int, host: str, target: int) -> str:
        return f"  server {{ listen 127.0.0.1:{port} backlog=4096; proxy_pass {host}:{target}; }}\n"

    text = _Text(head, section, "}\n")
    with _standing("nginx", 20, folder, origin, text, [programs.path_of("nginx"), "-c"]) as lane:
        yield lane


@dataclass(frozen=True)
class _Text:
    """What a configuration is made of."""

    head: str
    section: Callable[[str, int, str, int], str]
    """Kind, local port, host and port of the target -> what leads there."""
    tail: str


@contextlib.contextmanager
def _standing(
    name: str, network: int, folder: Path, origin: Origin, text: _Text, command: list[str]
) -> Iterator[Standing]:
    leads = targets(network, origin)
    numbers = iter(programs.free_ports(2 * RUNS))
    ports = {kind: list(itertools.islice(numbers, RUNS)) for kind in leads}
    sections = [
        text.section(kind, port, *target)
        for kind, those in leads.items()
        for port, target in zip(ports[kind], those, strict=True)
    ]
    config, log = folder / f"{network}.conf", folder / f"{network}.log"
    config.write_text(text.head + "".join(sections) + text.tail)
    with programs.running([*command, str(config)], log) as pid:
        programs.wait_for_listener(ports["http"].pop(), log)  # it makes one connection to there
        yield Standing(name, pid, ports)

"""Load on a local port that costs little of the two cores itself: wrk, iperf3, or one socket for a body.

It goes to 127.0.0.1 only and is bounded in time or bytes. wrk spends some 10 microseconds a request; a body
is thrown away by the kernel and never copied to this process. Requests at a fixed rate are `paced`.
"""

from __future__ import annotations

import json
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import programs

REPORT = Path(__file__).with_name("report.lua")
CONNECTIONS = 8
CHUNK = 1 << 20
BUSY = 5.0
"""Seconds for an iperf3 server to be done with the run before."""


@dataclass(frozen=True)
class Load:
    """What came of a run of requests; `failed`: connections that were reset, and answers that are no 2xx."""

    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float
    failed: int

    @property
    def rate(self) -> float:
        """Requests a second."""
        return self.requests / self.seconds


@dataclass(frozen=True)
class Bulk:
    """What came of a bulk transfer."""

    size: int
    """Bytes that arrived."""
    seconds: float

    @property
    def gigabits(self) -> float:
        """Gbit/s."""
        return self.size * 8 / self.seconds / 1e9


def requests(
    port: int,
    path: str = "/",
    *,
    seconds: int,
    keep_alive: bool = True,
    connections: int = CONNECTIONS,
) -> Load:
    """Ask for `path` for `seconds`; without `keep_alive` each request has a new connection."""
    program = programs.path_of("wrk")
    header = [] if keep_alive else ["--header", "Connection: close"]
    done = subprocess.run(
        [
            *(program, "--threads", "1", "--connections", str(connections), "--duration", f"{seconds}s"),
            *("--timeout", "10s", "--script", str(REPORT), *header, f"http://127.0.0.1:{port}{path}"),
        ],
        check=True,
        capture_output=True,
        text=True,
        timeout=seconds + 30,
    )
    values = json.loads(done.stdout.splitlines()[-1])
    return Load(
        requests=values["requests"],
        seconds=values["microseconds"] / 1e6,
        p50_ms=values["p50"] / 1e3,
        p99_ms=values["p99"] / 1e3,
        failed=values["failed"],
    )


def bulk(port: int, *, streams: int, seconds: int) -> Bulk:
    """Have an iperf3 server send by so many connections at once for `seconds`."""
    command = [programs.path_of("iperf3"), "--client", "127.0.0.1", "--port", str(port), "--reverse"]
    command += ["--parallel", str(streams), "--time", str(seconds), "--json"]
    end = time.monotonic() + BUSY
    while True:
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=seconds + 30)
        said = json.loads(done.stdout or "{}")
        if not _came_too_early(said) or time.monotonic() > end:
            break
        time.sleep(0.05)
    if "error" in said or done.returncode:
        raise RuntimeError(f"iperf3: {said.get('error') or done.stderr}")
    received = said["end"]["sum_received"]
    return Bulk(int(received["bytes"]), float(received["seconds"]))


def _came_too_early(said: dict[str, Any]) -> bool:
    """Tell whether the server was not done yet with the run before: it says so, or hangs up at once."""
    error = said.get("error", "")
    return "busy" in error or ("control socket has closed" in error and not said.get("intervals"))


def body(port: int, size: int) -> float:
    """Fetch one body of `size` bytes from `/bytes/SIZE`; return seconds from the request to its last byte.

    Raises RuntimeError when it came in part.
    """
    with socket.create_connection(("127.0.0.1", port), timeout=120) as sock:
        began = time.perf_counter()
        sock.sendall(f"GET /bytes/{size} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        head = bytearray()
        while b"\r\n\r\n" not in head:
            head += _some(sock.recv(4096))
        got = len(head) - head.index(b"\r\n\r\n") - 4
        buffer = bytearray(CHUNK)
        while got < size:
            # On TCP this discards what has come instead of copying it (tcp(7), MSG_TRUNC).
            count = sock.recv_into(buffer, CHUNK, socket.MSG_TRUNC)
            if not count:
                raise RuntimeError(f"the body of {size} bytes ended after {got}")
            got += count
        return time.perf_counter() - began


def _some(data: bytes) -> bytes:
    if not data:
        raise RuntimeError("the connection ended before an answer came")
    return data

"""Load on a local port that costs little of the two cores itself: wrk for requests, one socket for a body.

Used by the benchmarks on the cluster. It goes to 127.0.0.1 only and is bounded in time or bytes. wrk spends
some 10 microseconds a request; the body is thrown away by the kernel and never copied to this process.
"""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from kecs.errors import KecsError

REPORT = Path(__file__).with_name("report.lua")
CONNECTIONS = 8
CHUNK = 1 << 20


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


def requests(port: int, path: str = "/", *, seconds: int, keep_alive: bool = True) -> Load:
    """Ask for `path` for `seconds` on 8 connections; without `keep_alive` each request has a new one."""
    program = shutil.which("wrk")
    if program is None:
        raise KecsError("the benchmarks on a cluster need wrk", "install it, e.g. apt-get install wrk")
    header = [] if keep_alive else ["--header", "Connection: close"]
    done = subprocess.run(
        [
            *(program, "--threads", "1", "--connections", str(CONNECTIONS), "--duration", f"{seconds}s"),
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

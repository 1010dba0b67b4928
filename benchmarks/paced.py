"""Requests at a fixed rate, evenly spaced, whatever the answers take.

A process of its own: `python -m benchmarks.paced PORT RATE SECONDS`.

The load tools of Debian do not do this: `wrk` has no rate, `hey -q` waits for an answer before it counts the
time of the next request, and `h2load --rps` sends for all its connections in the same millisecond. Here a
request has its moment, and its latency counts from that moment: an answer that is late makes nobody else's
time look short. It costs some 25 microseconds a request, and says how late it was itself.
"""

from __future__ import annotations

import collections
import contextlib
import ctypes
import gc
import json
import select
import socket
import subprocess
import sys
import time
from dataclasses import asdict, dataclass

CONNECTIONS = 64
SETTLE = 0.5
"""Seconds at the beginning that do not count."""
PATIENCE = 5.0
"""Seconds for the last answers."""
_REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
_PR_SET_TIMERSLACK = 29
"""Linux' include/uapi/linux/prctl.h."""


@dataclass(frozen=True)
class Paced:
    """What came of it; all times in milliseconds."""

    rate: float
    """Requests a second that were answered: what was asked for, when neither side was too slow."""
    p50: float
    p99: float
    own_p99: float
    """How late the load itself was to send."""


def paced(port: int, rate: int, seconds: int) -> Paced:
    """Run it in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.paced", str(port), str(rate), str(seconds)],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        timeout=seconds + 30,
    )
    return Paced(**json.loads(done.stdout))


class _Client:
    """One connection and its request in hand."""

    __slots__ = ("left", "sock", "when")

    def __init__(self, port: int) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port))
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.when = 0.0
        self.left = 0


class _Run:
    def __init__(self, port: int, rate: int, seconds: int) -> None:
        self._clients = [_Client(port) for _ in range(CONNECTIONS)]
        self._size = _size_of_an_answer(self._clients[0].sock)
        self._gap = 1 / rate
        self._total = rate * seconds
        self._free = list(self._clients)
        self._waiting: collections.deque[float] = collections.deque()
        self._took: list[tuple[float, float]] = []
        """When each request was due, and how long it took."""
        self._late: list[tuple[float, float]] = []
        """The same of sending those for which a connection was free."""

    def run(self) -> Paced:
        """Send all, and wait for the answers."""
        clock = time.perf_counter
        epoll = select.epoll()
        behind = {}
        for client in self._clients:
            client.sock.setblocking(False)
            behind[client.sock.fileno()] = client
            epoll.register(client.sock.fileno(), select.EPOLLIN)
        began, gap, total, sent = clock() + 0.01, self._gap, self._total, 0
        end = began + total * gap
        while len(self._took) < total and clock() < end + PATIENCE:
            while sent < total and (when := began + sent * gap) <= clock():
                sent += 1
                if self._free:
                    self._send(self._free.pop(), when)
                    self._late.append((when, clock() - when))
                else:
                    self._waiting.append(when)
            pause = (began + sent * gap if sent < total else end + PATIENCE) - clock()
            if pause > 0:
                select.select([epoll], [], [], pause)  # in microseconds; `epoll` itself counts milliseconds
            for fd, _ in epoll.poll(0):
                self._receive(behind[fd])
        answered, now = len(self._took), clock()
        busy = [client.when for client in self._clients if client.left > 0]
        never = [began + number * gap for number in range(sent, total)]
        # What is not answered has taken so long at least: to leave it out would be to praise who gives up.
        self._took += [(when, now - when) for when in (*busy, *self._waiting, *never)]
        return self._result(began, answered / (now - began))

    def _send(self, client: _Client, when: float) -> None:
        client.when = when
        client.left = self._size
        client.sock.send(_REQUEST)

    def _receive(self, client: _Client) -> None:
        try:
            client.left -= len(client.sock.recv(4096)) or self._size * 2
        except OSError:
            client.left = -1
        if client.left > 0:
            return
        if client.left < 0:
            raise SystemExit("a connection ended, or an answer had another size than the first one")
        self._took.append((client.when, time.perf_counter() - client.when))
        if self._waiting:
            self._send(client, self._waiting.popleft())
        else:
            self._free.append(client)

    def _result(self, began: float, rate: float) -> Paced:
        counts = began + SETTLE
        took = sorted(seconds for when, seconds in self._took if when >= counts)
        late = sorted(seconds for when, seconds in self._late if when >= counts)
        return Paced(
            rate=rate,
            p50=1000 * _quantile(took, 0.5),
            p99=1000 * _quantile(took, 0.99),
            own_p99=1000 * _quantile(late, 0.99),
        )


def _size_of_an_answer(sock: socket.socket) -> int:
    sock.sendall(_REQUEST)
    answer = b""
    while b"\r\n\r\n" not in answer:
        answer += sock.recv(4096)
    head, _, body = answer.partition(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length:")[2].split()[0])
    while len(body) < length:
        body += sock.recv(4096)
    return len(head) + 4 + length


def _quantile(ordered: list[float], part: float) -> float:
    return ordered[int(len(ordered) * part)] if ordered else 0.0


def main() -> None:
    """Run once and print the figures as a line of JSON."""
    gc.disable()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0)
    port, rate, seconds = map(int, sys.argv[1:])
    print(json.dumps(asdict(_Run(port, rate, seconds).run())))


if __name__ == "__main__":
    main()

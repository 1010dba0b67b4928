"""Thousands of idle connections through a forward: what each costs the agent, and another connection.

Each has had one request answered, so that whatever is made at the first byte is there.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

from benchmarks import load, programs
from benchmarks.agent_alone import our_agent
from benchmarks.origin import Origin
from benchmarks.table import Row, beside

ROUNDS = 3
SECONDS = 3
KILOBYTES = 2.5
KEPT = 0.95
MOST = 10_000
_REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
_AT_ONCE = 256
"""Connections that are opened before their answers are read."""


def measure(origin: Origin, descriptors: int) -> list[Row]:
    """Run all measures of this module; `descriptors` is the hard limit of open files."""
    count = min(MOST, (descriptors - 500) // 2)
    none, all_open, kilobytes = [], [], []
    with our_agent(origin, 2) as agent:
        for _ in range(ROUNDS):
            with agent.way("http") as port, agent.way("http") as one_more:
                load.requests(one_more, seconds=1, connections=1)
                before = agent.memory()
                none.append(load.requests(one_more, seconds=SECONDS, connections=1).rate)
                with connections(port, count):
                    programs.wait_for(lambda: agent.open_connections() >= count, f"{count} are open", 30)
                    kilobytes.append((agent.memory() - before) / count / 1000)
                    all_open.append(load.requests(one_more, seconds=SECONDS, connections=1).rate)
                programs.wait_for(lambda: not agent.open_connections(), "they have ended", 30)
    each = kilobytes[0]  # the agent is fresh only once: what was freed is used again
    what, budget = f"agent, each of {count} idle connections", f"at most {KILOBYTES} kB"
    return [
        Row(what, each, "kB", budget, each <= KILOBYTES),
        beside(f"requests on one more beside {count} idle", "/s", all_open, {"alone": none}, at_least=KEPT),
    ]


@contextlib.contextmanager
def connections(port: int, count: int) -> Iterator[None]:
    """Hold so many connections open, each of which has had its answer."""
    with contextlib.ExitStack() as close:
        opened: list[socket.socket] = []
        for number in range(count):
            sock = close.enter_context(socket.create_connection(("127.0.0.1", port), timeout=30))
            sock.sendall(_REQUEST)
            opened.append(sock)
            if len(opened) == _AT_ONCE or number == count - 1:
                for each in opened:
                    if not each.recv(4096).startswith(b"HTTP/1.1 200"):
                        raise RuntimeError("an idle connection had no answer")
                opened.clear()
        yield

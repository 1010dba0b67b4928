"""Trouble on a tunnel harms who makes it and nobody else, and what a connection says at its end is true.

All connections of these tests go through one port-forward connection into one pod, unless a slow client
makes the agent open another. Beside each trouble, bystanders use the same forward.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.cluster import service, target, tasks
from tests.cluster.talk import Talk
from tests.process.harness import until
from tests.process.load import Load
from tests.process.test_wire_honesty import read_to_end, request

HTTP, LATE, ECHO, HALF, COUNT = 8080, 7000, 9090, 9092, 9093
MIB = 1 << 20
RESET = b"\1\0\0\0\0\0\0\0"
"""SO_LINGER on, 0 seconds: close() resets."""
LONGEST = 10.0
"""Seconds that a bystander may wait for one answer, on a busy computer."""
ROOM = 48 * MIB
"""What the agent's memory may grow by, whatever is asked of it: bodies here are larger."""


class Web:
    """An instance, a service of one task, and a forward by tunnel to each of its ports."""

    def __init__(self, home) -> None:
        self.home = home
        tasks.define(home, tasks.server("web", HTTP, LATE, ECHO, HALF, COUNT, stopTimeout=2), family="web")
        home.service(count=1)
        home.stable()
        self.ports = {
            port: service.forward(home, route="tunnel", port=port) for port in (HTTP, LATE, ECHO, HALF, COUNT)
        }

    def get(self, path: str, port: int = HTTP) -> socket.socket:
        """Ask for a page; return the connection."""
        return request("127.0.0.1", self.ports[port], f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n")

    def whole(self, path: str) -> bytes:
        """Return the body of a page, over a connection of its own that the client ends."""
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.ports[HTTP], timeout=20)) as one:
            one.request("GET", path)
            return one.getresponse().read()

    def open(self) -> int:
        """Return how many connections the forward to the HTTP port has."""
        return int(service.row(self.home, self.ports[HTTP])["connections"]["open"])

    def memory(self, what: str = "VmRSS") -> int:
        """Return the bytes of memory that the agent has."""
        status = Path(f"/proc/{self.home.pid('agent')}/status").read_text()
        return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith(what))

    def forget_peak(self) -> None:
        """Let `memory("VmHWM")` begin anew."""
        Path(f"/proc/{self.home.pid('agent')}/clear_refs").write_text("5")


@pytest.fixture(scope="module")
def web(cluster):
    with target.visiting(cluster) as home:
        target.start(home, cluster)
        yield Web(home)


@pytest.fixture
def bystanders(beside):
    """Somebody uses the forward while the test makes trouble, and notices nothing."""
    with beside():
        yield


@pytest.fixture
def beside(web):
    """What `bystanders` does, as a function, for tests that look at what is left after it."""
    return lambda: bystanding(web)


@contextlib.contextmanager
def bystanding(web):
    """Make requests and a conversation on the forward; check that they noticed nothing."""
    with Load(web.ports[HTTP], rate=20, keep_alive=True) as load, Talk(web.ports[ECHO]) as talk:
        until(lambda: load.tally.total > 5 and talk.answered > 2, "the bystanders are served", seconds=30)
        yield
        requests, lines = load.tally.total + 5, talk.answered + 2
        until(
            lambda: (load.tally.total > requests and talk.answered > lines) or talk.broken,
            "the bystanders are served at the end",
            seconds=30,
        )
    assert load.tally.failed == []
    assert load.tally.again == []
    assert talk.broken is None
    assert max(*load.tally.seconds, talk.longest) < LONGEST


def body(answer: bytes) -> bytes:
    return answer.partition(b"\r\n\r\n")[2]


@pytest.mark.usefixtures("bystanders")
@pytest.mark.parametrize("after", [0, 200_000])
def test_a_reset_of_the_pod_arrives_as_a_reset(web, after):
    with contextlib.ExitStack() as stack:
        for connection in [stack.enter_context(web.get(f"/reset?after={after}")) for _ in range(10)]:
            with pytest.raises(ConnectionResetError):
                read_to_end(connection)


@pytest.mark.usefixtures("bystanders")
def test_connections_to_a_port_that_nobody_listens_on_yet_wait_for_it(web):
    """The pod refuses each try; what the client has said is delivered once, in the end."""
    with contextlib.ExitStack() as stack:
        early = [
            stack.enter_context(request("127.0.0.1", web.ports[LATE], f"{number}\n")) for number in range(5)
        ]
        until(lambda: refused(web) >= 5, "each has been refused", seconds=30)
        assert web.whole(f"/listen?port={LATE}&on=1") == b"ok\n"
        assert [connection.recv(100) for connection in early] == [b"%d\n" % number for number in range(5)]
    assert web.whole(f"/listen?port={LATE}&on=0") == b"ok\n"


def refused(web) -> int:
    """Return how many connections wait behind the forward to the port that is late."""
    return int(service.row(web.home, web.ports[LATE])["connections"]["held"])


@pytest.mark.usefixtures("bystanders")
def test_a_client_that_does_not_read_keeps_nobody_from_it_and_costs_little_memory(web):
    """It is reset when others have waited because of it; it never sees an end that looks whole."""
    web.forget_peak()
    before, size = web.memory(), 1000 * MIB
    with web.get(f"/bytes/{size}") as slow:
        assert slow.recv(1)
        began = time.monotonic()
        while time.monotonic() - began < 4:
            assert web.whole("/bytes/1000000") == b"x" * 1_000_000
        assert web.memory("VmHWM") < before + ROOM
        # A second one at the same time, which reads a little now and then.
        with web.get(f"/bytes/{size}") as slower, contextlib.suppress(ConnectionResetError):
            for _ in range(50):
                assert slower.recv(1000)
                assert web.whole("/bytes/100000") == b"x" * 100_000
        slow.settimeout(5)
        read = 0
        with contextlib.suppress(ConnectionResetError):
            while read < 32 * MIB:
                part = slow.recv(MIB)
                assert part, "its end is no end of what it asked for"
                read += len(part)
    assert web.memory("VmHWM") < before + ROOM


@pytest.mark.usefixtures("bystanders")
def test_a_download_given_up_ends_in_the_pod_too(web):
    """Of 1 GB, by a reset and by an ordinary close."""
    web.forget_peak()
    before = web.memory()
    unfinished = stats(web)["unfinished"]
    for linger in (RESET, None):
        with web.get(f"/bytes/{1000 * MIB}") as connection:
            read = 0
            while read < 4 * MIB:
                read += len(connection.recv(MIB))
            if linger:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    until(lambda: stats(web)["unfinished"] == unfinished + 2, "the server notices", seconds=30)
    assert web.memory("VmHWM") < before + ROOM


def stats(web) -> dict[str, int]:
    return json.loads(web.whole("/stats"))


def test_500_cancelled_requests_leave_nothing(web, beside):
    with beside():
        for number in range(500):
            with web.get(("/slow?ms=100", "/bytes/3000000", "/")[number % 3]) as connection:
                if number % 2:
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    until(lambda: web.open() == 0, "the forward has no connection left", seconds=60)
    until(lambda: stats(web)["open"] == 1, "the server has the one that asks", seconds=60)


@pytest.mark.usefixtures("bystanders")
def test_64_connections_at_once_are_all_answered(web):
    """All are open before any is answered, and each gets its own bytes back."""
    said = [bytes([number]) * 100_000 for number in range(64)]
    with contextlib.ExitStack() as stack:
        connections = [
            stack.enter_context(socket.create_connection(("127.0.0.1", web.ports[ECHO]), timeout=30))
            for _ in said
        ]
        with ThreadPoolExecutor(64) as pool:
            heard = list(pool.map(converse, connections, said))
    assert heard == said


def converse(connection: socket.socket, said: bytes) -> bytes:
    """Send all; return as much as was sent."""
    sender = threading.Thread(target=connection.sendall, args=(said,))
    sender.start()
    heard = bytearray()
    while len(heard) < len(said):
        part = connection.recv(1 << 16)
        if not part:
            break
        heard += part
    sender.join()
    return bytes(heard)


@pytest.mark.usefixtures("bystanders")
@pytest.mark.parametrize("path", ["/sink", "/hold-body?ms=2000"])
def test_an_upload_arrives_whole_and_waits_in_the_client_while_nobody_reads_it(web, path):
    web.forget_peak()
    before, size = web.memory(), 64 * MIB
    text = f"POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {size}\r\n\r\n"
    with request("127.0.0.1", web.ports[HTTP], text) as connection:
        for _ in range(size // MIB):
            connection.sendall(b"y" * MIB)
        assert body(read_to_end(connection)) == str(size).encode()
    assert web.memory("VmHWM") < before + ROOM


@pytest.mark.usefixtures("bystanders")
def test_a_download_is_whole_and_ends_as_the_server_ended_it(web):
    text = f"GET /bytes/{64 * MIB} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    with request("127.0.0.1", web.ports[HTTP], text) as connection:
        assert body(read_to_end(connection)) == b"x" * 64 * MIB


@pytest.mark.usefixtures("bystanders")
def test_a_server_may_speak_first_and_end_first(web):
    with socket.create_connection(("127.0.0.1", web.ports[HALF]), timeout=20) as connection:
        assert read_to_end(connection) == b"half\n"


@pytest.mark.usefixtures("bystanders")
@pytest.mark.parametrize(
    ("path", "size"), [("/bytes/30000000", 30_000_000), ("/slow?ms=100", 34)], ids=["long", "late"]
)
def test_a_client_that_ends_first_gets_its_answer_whole(web, path, size):
    """Its FIN is kept back meanwhile: the far end would cut the answer."""
    text = f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    with request("127.0.0.1", web.ports[HTTP], text) as connection:
        connection.shutdown(socket.SHUT_WR)
        assert len(body(read_to_end(connection))) == size


def test_an_answer_that_the_far_end_cut_does_not_look_whole(web):
    """A server that answers after the client's FIN cannot be reached by a tunnel: no empty answer is made."""
    with socket.create_connection(("127.0.0.1", web.ports[COUNT]), timeout=20) as connection:
        connection.sendall(b"y" * 300_000)
        connection.shutdown(socket.SHUT_WR)
        with pytest.raises(ConnectionResetError):
            read_to_end(connection)


def test_the_death_of_the_agent_is_a_cut_download_and_the_port_comes_back_with_a_tunnel(web):
    with web.get(f"/bytes/{64 * MIB}") as connection:
        assert connection.recv(1000)
        os.kill(web.home.pid("agent"), signal.SIGKILL)
        with pytest.raises(ConnectionResetError):
            read_to_end(connection)
    assert until(lambda: web.whole("/"), "the same port answers again", seconds=10)
    assert service.row(web.home, web.ports[HTTP])["route"] == "tunnel"

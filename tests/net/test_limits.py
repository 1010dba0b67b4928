"""The ends of what there is: descriptors that run out, a process that is killed, memory."""

from __future__ import annotations

import contextlib
import errno
import select
import signal
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from tests.net.peers import Upstream, connect, nobody, read, reset, until, was_reset

from kecs.net import dial
from kecs.net.accept import Accepting
from kecs.net.messages import Refused


@contextlib.contextmanager
def child(body: str, *arguments: object):
    """Run `body` in a process of its own; yield it with its standard input and output."""
    program = "import sys\nfrom tests.net.peers import *\n" + textwrap.dedent(body)
    process = subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path.cwd(),
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


RELAY = """
    import sys
    relay = Relay()
    host, upstream = sys.argv[1], int(sys.argv[2])
    print(relay.forward(Endpoint("a", host, upstream), addresses=[host]), flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_download_that_the_death_of_the_process_cuts_is_seen_as_cut(host):
    """kill -9 of the relay's process in mid-download: the client gets a RST, and so does the server."""
    with contextlib.closing(Upstream(host)) as upstream, child(RELAY, host, upstream.port) as process:
        port = int(process.stdout.readline())
        with connect(port, host) as client, upstream.accept() as server:
            server.sendall(b"x" * 100_000)
            read(client, 100_000)
            process.send_signal(signal.SIGKILL)

            with pytest.raises(ConnectionResetError):
                client.recv(1)
            assert was_reset(server)


def test_connections_that_came_before_the_loop_are_cut_visibly_too():
    """What waited in the listener's queue before the loop took it over has its options all the same."""
    body = """
        host, upstream = sys.argv[1], int(sys.argv[2])
        sockets = listener.bind([host], 0)
        print(sockets[0].getsockname()[1], flush=True)
        sys.stdin.readline()
        relay = Relay()
        relay.loop.send(Listen("f", sockets))
        relay.snapshot(Endpoint("a", host, upstream))
        sys.stdin.read()
    """
    with contextlib.closing(Upstream()) as upstream, child(body, "127.0.0.1", upstream.port) as process:
        port = int(process.stdout.readline())
        clients = [connect(port) for _ in range(3)]
        process.stdin.write("\n")
        process.stdin.flush()
        servers = [upstream.accept() for _ in clients]
        for server in servers:
            server.sendall(b"x")
        for client in clients:
            assert read(client, 1) == b"x"
        process.send_signal(signal.SIGKILL)
        for client in clients:
            with pytest.raises(ConnectionResetError):
                client.recv(1)
            client.close()
        for server in servers:
            server.close()


def test_a_process_that_is_killed_after_an_orderly_end_takes_nothing_back():
    """What was delivered with its FIN stays delivered."""
    with contextlib.closing(Upstream()) as upstream, child(RELAY, "127.0.0.1", upstream.port) as process:
        port = int(process.stdout.readline())
        with connect(port) as client, upstream.accept() as server:
            server.sendall(b"x" * 100_000)
            server.close()
            assert len(read(client, 100_000)) == 100_000
            assert client.recv(1) == b""
            process.send_signal(signal.SIGKILL)
            process.wait()

            assert client.recv(1) == b""


EXHAUSTED = """
    import resource
    host, upstream, limit, burn = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    relay = Relay()
    print(relay.forward(Endpoint("a", host, upstream)), flush=True)
    burnt = []
    if burn:
        import contextlib, os
        with contextlib.suppress(OSError):
            while True:
                burnt.append(os.dup(0))
        for _ in range(burn):
            os.close(burnt.pop())
    print("burnt", flush=True)
    for line in sys.stdin:
        if line == "free\\n":
            while burnt:
                os.close(burnt.pop())
        turns = relay.loop.turn
        time.sleep(0.3)
        reports = [m.error for m in relay.of(Refused)]
        print(relay.loop.turn - turns, len(reports), *set(reports), sep="|", flush=True)
"""


def ask(process: subprocess.Popen, word: str) -> list[str]:
    process.stdin.write(word + "\n")
    process.stdin.flush()
    return process.stdout.readline().strip().split("|")


@pytest.mark.parametrize("odd", [0, 1])
def test_when_descriptors_run_out_new_connections_wait_and_are_served_later(odd):
    """Accepting pauses without spinning, is reported, and goes on when a descriptor is freed.

    With an odd number left, a client can be accepted but not dialled for: it is held meanwhile.
    """
    body = "from kecs.net.messages import Refused\nimport os\n" + textwrap.dedent(EXHAUSTED)
    with (
        contextlib.closing(Upstream()) as upstream,
        child(body, "127.0.0.1", upstream.port, 128, 10 + odd) as process,
        contextlib.ExitStack() as stack,
    ):
        port = int(process.stdout.readline())
        assert process.stdout.readline() == "burnt\n"
        clients = [stack.enter_context(connect(port)) for _ in range(20)]
        servers = [stack.enter_context(upstream.accept()) for _ in range(5)]
        turns, reports, *errors = ask(process, "how")

        assert int(turns) < 60
        assert int(reports) >= 1
        assert errors == ["new connections wait: Too many open files"]
        for index, server in enumerate(servers):
            server.sendall(b"%d" % index)
        served = until(lambda: len(ready := select.select(clients, [], [], 0.3)[0]) >= 5 and ready)
        assert len(served) == 5
        reset(served[0])  # one goes, one more is served
        servers.append(stack.enter_context(upstream.accept()))
        assert ask(process, "free")
        servers += [stack.enter_context(upstream.accept()) for _ in range(14)]
        for server in servers[5:]:
            server.sendall(b"x")
        for client in clients[5:]:
            assert read(client, 1) == b"x"


@pytest.mark.parametrize("then", ["gone", "dead"])
def test_a_forward_that_found_no_descriptor_keeps_others_waiting_no_longer_than_that(
    relay, upstream, monkeypatch, then
):
    """While it waits for one nothing is accepted; not any more when it has nobody to dial."""
    begin = dial.begin
    dead = nobody()
    poor = Upstream()
    with contextlib.closing(poor):

        def no_descriptor(to: dial.Address):
            if to.sockaddr[1] == poor.port:
                raise OSError(errno.EMFILE, "Too many open files")
            return begin(to)

        monkeypatch.setattr(dial, "begin", no_descriptor)
        one = relay.forward(poor.endpoint(), name="poor")
        two = relay.forward(upstream.endpoint(), name="other")
        with connect(one):
            relay.wait(Refused, forward="poor", endpoint="")
            with connect(two) as client:
                assert relay.counters("other").total == 0
                relay.snapshot(*([dead] if then == "dead" else []), name="poor")
                with upstream.accept() as server:
                    server.sendall(b"1")
                    assert read(client, 1) == b"1"


def test_an_error_of_accept_does_not_end_the_listener(relay, upstream, monkeypatch):
    """Those that belong to one connection are passed over; after any other it is asked again later."""
    take = Accepting._take
    errors = [
        OSError(errno.ECONNABORTED, "aborted"),
        OSError(errno.EINVAL, "odd"),
        OSError(errno.EPROTO, "?"),
    ]
    turns = []

    def failing(self: Accepting):
        turns.append(self.loop.turn)
        if errors:
            raise errors.pop(0)
        return take(self)

    port = relay.forward(upstream.endpoint())
    monkeypatch.setattr(Accepting, "_take", failing)
    with connect(port), upstream.accept():
        pass

    assert turns[0] == turns[1] < turns[2]
    assert [message.error for message in relay.of(Refused)] == ["new connections wait: odd"]


def test_a_reserve_of_descriptors_is_left_to_the_rest_of_the_process():
    """Connections alone never use up what the agent needs to write its files and answer."""
    body = (
        "from kecs.net.messages import Refused\nimport os\n"
        + textwrap.dedent(EXHAUSTED)
        + textwrap.dedent(
            """
        """
        )
    )
    with (
        contextlib.closing(Upstream()) as upstream,
        child(body, "127.0.0.1", upstream.port, 128, 0) as process,
        contextlib.ExitStack() as stack,
    ):
        port = int(process.stdout.readline())
        assert process.stdout.readline() == "burnt\n"
        clients = [stack.enter_context(connect(port)) for _ in range(60)]
        until(lambda: ask(process, "how")[2:])
        open_there = sum(1 for _ in Path(f"/proc/{process.pid}/fd").iterdir())
        assert 70 <= open_there <= 128 - 32
        turns, _, error = ask(process, "how")
        assert int(turns) < 60
        assert error == "new connections wait: too many connections for the limit of open files"
        for client in clients[:40]:
            reset(client)
        for client in clients[40:]:
            client.sendall(b"q")
        answered = 0
        upstream.sock.settimeout(5)
        while answered < 20:
            server = stack.enter_context(upstream.accept())
            with contextlib.suppress(ConnectionResetError):
                answered += server.recv(1) == b"q"


def test_many_connections_leave_no_descriptor_and_no_memory(relay, upstream):
    """Objects of connections are freed when they end, without the garbage collector."""
    import gc

    from kecs.net.connection import Connection
    from kecs.net.relay import End

    port = relay.forward(upstream.endpoint())
    gc.collect()
    gc.disable()
    try:
        for ending in ("orderly", "reset", "orderly"):
            for _ in range(20):
                client, server = connect(port), upstream.accept()
                client.sendall(b"1")
                read(server, 1)
                (reset if ending == "reset" else socket.socket.close)(client)
                was_reset(server)
                server.close()
        until(lambda: relay.counters().open == 0)
        left = [o for o in gc.get_objects() if isinstance(o, Connection | End)]
    finally:
        gc.enable()

    assert left == []
    assert relay.of(Refused) == []


def test_an_idle_connection_costs_little_memory(relay, upstream):
    """The budget is 2.5 kB for each idle connection (both ends), buffers are only there while needed."""
    import tracemalloc

    port = relay.forward(upstream.endpoint())
    with contextlib.ExitStack() as stack:

        def pair() -> None:
            client, server = stack.enter_context(connect(port)), stack.enter_context(upstream.accept())
            client.sendall(b"1")
            read(server, 1)

        pair()
        number = 200
        relay.settle()
        tracemalloc.start()
        try:
            before = relay_bytes()
            for _ in range(number):
                pair()
            until(lambda: relay.counters().open == number + 1)
            each = (relay_bytes() - before) / number
        finally:
            tracemalloc.stop()

    assert each < 2500


def relay_bytes() -> int:
    """Memory that was allocated by the modules of the data path."""
    import tracemalloc

    snapshot = tracemalloc.take_snapshot().filter_traces([tracemalloc.Filter(True, "*/kecs/*")])
    return sum(trace.size for trace in snapshot.statistics("filename"))

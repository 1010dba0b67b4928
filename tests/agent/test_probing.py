"""One probe against real servers on loopback: what is a success, and how each failure reads."""

from __future__ import annotations

import asyncio
import socket

import pytest

from kecs.agent import probing
from kecs.forward.spec import Probe

TCP = Probe(timeout=5.0)
HTTP = Probe(type="http", path="/healthz", timeout=5.0)


def ask(probe, *, answer=None, end=True, carried=False):
    """Probe a server that reads a request and answers these bytes; return (outcome, what it got)."""

    async def play():
        got = bytearray()
        served = asyncio.Event()

        async def serve(reader, writer):
            if answer is not None:
                got.extend(await reader.readuntil(b"\r\n\r\n"))
                writer.write(answer)
            if not end:
                await reader.read()
            writer.close()
            served.set()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            outcome = await probing.ask(probe, "127.0.0.1", port, carried=carried)
            await served.wait()
        return outcome, bytes(got)

    return asyncio.run(play())


def test_being_connected_is_a_success():
    assert ask(TCP) == (None, b"")


def test_the_path_is_asked_for_once_and_politely():
    outcome, got = ask(HTTP, answer=b"HTTP/1.1 204 No Content\r\n\r\n")

    assert outcome is None
    assert got.startswith(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nUser-Agent: kecs-probe/")
    assert b"\r\nConnection: close\r\n" in got


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", None),
        (b"HTTP/1.0 200 OK\r\n\r\nuntil the end", None),
        (b"HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\n\r\n", None),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", None),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" + bytes(20000), None),
        (b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n", "GET /healthz answered 503"),
        (b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n", "GET /healthz answered 404"),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "GET /healthz: no answer of HTTP/1.1 (illegal status line"),
    ],
)
def test_any_answer_below_400_is_a_success(answer, outcome):
    got, _ = ask(HTTP, answer=answer)

    assert got == outcome or (outcome and got and got.startswith(outcome))


def test_one_that_hangs_up_without_an_answer_fails():
    outcome, _ = ask(HTTP, answer=b"")

    assert outcome is not None
    assert outcome.startswith("GET /healthz: ")


def test_silence_has_a_limit():
    quick = Probe(type="http", path="/", timeout=0.05)

    assert ask(quick, answer=b"", end=False)[0] == "GET / had no answer within 0.05 s"


@pytest.mark.parametrize("probe", [TCP, HTTP])
def test_a_refusal_reads_like_one(probe):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: nobody else gets it meanwhile
        outcome = asyncio.run(probing.ask(probe, *taken.getsockname()))

    what = "a connect" if probe is TCP else "GET /healthz"
    assert outcome == f"{what}: connection refused"


def test_a_connection_to_itself_is_nobody():
    """TCP's simultaneous open: possible on each port of the kernel's own range."""

    async def play():
        sock = socket.socket()
        sock.bind(("127.0.0.1", 0))
        sock.connect(sock.getsockname())
        _, writer = await asyncio.open_connection(sock=sock)
        try:
            with pytest.raises(ConnectionRefusedError):
                probing._check_peer(writer)
        finally:
            writer.transport.abort()
            await asyncio.sleep(0)

    asyncio.run(play())


def test_behind_a_tunnel_being_connected_is_no_answer_yet(monkeypatch):
    monkeypatch.setattr(probing, "SETTLE", 0.05)

    async def reset():
        async def serve(_, writer):
            writer.get_extra_info("socket").setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0"
            )
            writer.close()

        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            return await probing.ask(TCP, "127.0.0.1", port, carried=True)

    assert asyncio.run(reset()) == "a connect: connection reset by peer"
    assert ask(TCP, carried=True) == (None, b""), "one that ends in order is there"

"""What a TCP connection says at its end arrives as it was said, through real daemons."""

from __future__ import annotations

import os
import signal
import socket
import urllib.request

import pytest
from tests.process.harness import Home, until


@pytest.fixture(scope="module")
def web():
    """A service of two tasks and a forward to it, shared by the tests of this module."""
    home = Home()
    try:
        home.start()
        home.register()
        home.service()
        home.stable()
        home.port = home.forward("service", "default/web")["localPort"]
        yield home
    finally:
        home.close()


def hosts() -> list[str]:
    """Return the loopback addresses of this machine."""
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return ["127.0.0.1"]
    return ["127.0.0.1", "::1"]


def request(host: str, port: int, text: str) -> socket.socket:
    connection = socket.create_connection((host, port), timeout=20)
    connection.sendall(text.encode())
    return connection


def read_to_end(connection: socket.socket) -> bytes:
    data = bytearray()
    while part := connection.recv(1 << 16):
        data += part
    return bytes(data)


@pytest.mark.parametrize("host", hosts())
def test_a_reset_of_the_task_arrives_as_a_reset(web, host):
    with (
        request(host, web.port, "GET /cut HTTP/1.1\r\n\r\n") as connection,
        pytest.raises(ConnectionResetError),
    ):
        read_to_end(connection)


@pytest.mark.parametrize("host", hosts())
def test_a_half_closed_client_gets_its_answer(web, host):
    with request(host, web.port, "POST /count HTTP/1.1\r\n\r\n") as connection:
        connection.sendall(b"y" * 300_000)
        connection.shutdown(socket.SHUT_WR)
        answer = read_to_end(connection)
    assert answer.endswith(b"\r\n\r\n300000")


@pytest.mark.parametrize("host", hosts())
def test_a_whole_download_is_whole(web, host):
    with request(host, web.port, "GET /big HTTP/1.1\r\nConnection: close\r\n\r\n") as connection:
        answer = read_to_end(connection)
    assert len(answer.partition(b"\r\n\r\n")[2]) == 64 * 1024 * 1024


def test_a_client_that_resets_harms_only_itself(web):
    with request("127.0.0.1", web.port, "GET /slow HTTP/1.1\r\nConnection: close\r\n\r\n") as other:
        for _ in range(50):
            reset = request("127.0.0.1", web.port, "GET /big HTTP/1.1\r\n\r\n")
            reset.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            reset.close()
        assert read_to_end(other).startswith(b"HTTP/1.1 200")
    until(lambda: web.forwards()[0]["connections"]["open"] == 0, "nothing is left open")
    assert web.forwards()[0]["state"] == "ACTIVE"


def test_the_death_of_the_agent_is_seen_as_a_cut_download_and_the_port_comes_back(web):
    with request("127.0.0.1", web.port, "GET /big HTTP/1.1\r\nConnection: close\r\n\r\n") as connection:
        assert connection.recv(1000)
        os.kill(web.pid("agent"), signal.SIGKILL)
        with pytest.raises(ConnectionResetError):
            read_to_end(connection)

    def answers() -> bool:
        with urllib.request.urlopen(f"http://127.0.0.1:{web.port}/", timeout=5) as answer:
            return answer.status == 200

    until(answers, "the same port answers again", seconds=2)

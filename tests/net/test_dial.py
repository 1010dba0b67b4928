"""Beginning a connection without waiting for it."""

from __future__ import annotations

import contextlib
import errno
import socket
import struct

import pytest
from tests.net.peers import nobody, until

from kecs.net import dial, options


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_connect_over_loopback_is_mostly_done_at_once(host):
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as server:
        server.bind((host, 0))
        server.listen()
        to = dial.address(host, server.getsockname()[1])
        sock, done = dial.begin(to)
        with contextlib.closing(sock):
            assert done or until(lambda: dial.finished(sock, to))
            assert sock.gettimeout() == 0


def test_a_refused_connect_raises():
    endpoint = nobody()
    with pytest.raises(ConnectionRefusedError):
        dial.begin(dial.address(endpoint.host, endpoint.port))


@pytest.mark.parametrize("portable", [False, True])
def test_a_connect_that_is_under_way_is_not_done(monkeypatch, portable):
    """A full queue: the SYN is dropped. An event that comes now would be a stale one."""
    if portable:
        monkeypatch.setattr(dial, "_INFO", None)
    with socket.socket() as server, contextlib.ExitStack() as stack:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        to = dial.address(*server.getsockname())._replace(may_meet_itself=portable)
        states = []
        for _ in range(4):
            sock, done = dial.begin(to)
            stack.callback(sock.close)
            states.append(done)

        assert states[0]
        assert not states[-1]
        assert not dial.finished(sock, to)


def test_a_socket_that_met_itself_is_refused():
    """The kernel may choose the port that is dialled as the source port when nobody listens there."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
        sock.connect(("127.0.0.1", port))
        assert sock.getpeername() == sock.getsockname()
        to = dial.address("127.0.0.1", port)
        assert to.may_meet_itself

        with pytest.raises(ConnectionRefusedError):
            dial.finished(sock, to)


@pytest.mark.parametrize(
    ("host", "port", "can"),
    [
        ("127.0.0.1", 40000, True),
        ("::1", 40000, True),
        ("127.0.0.1", 20000, False),
        ("192.0.2.1", 40000, False),
    ],
)
def test_only_a_local_ephemeral_port_can_be_met(host, port, can, monkeypatch):
    monkeypatch.setattr(dial, "ephemeral_range", lambda: (32768, 60999))

    assert dial.address(host, port).may_meet_itself is can


def test_a_name_is_not_resolved():
    with pytest.raises(OSError):
        dial.address("localhost", 80)


def test_a_socket_of_a_failed_dial_is_closed(monkeypatch):
    """A failure between its making and its end leaves no descriptor (the fixture counts them)."""

    def fail(_sock: object, *, local: bool) -> None:
        raise OSError(errno.EINVAL, "no such option")

    monkeypatch.setattr(dial.options, "prepare", fail)
    with pytest.raises(OSError, match="no such option"):
        dial.begin(dial.address("127.0.0.1", 1))


@pytest.mark.parametrize(
    ("host", "local"),
    [("127.0.0.1", True), ("127.8.8.8", True), ("::1", True), ("10.0.0.1", False), ("2001:db8::1", False)],
)
def test_loopback_addresses_are_known(host, local):
    assert dial.address(host, 80).local is local


@pytest.mark.skipif(not options.INHERITED, reason="Linux only")
@pytest.mark.parametrize("local", [True, False])
def test_connections_within_this_machine_are_not_paced(monkeypatch, local):
    """Where the system's own way paces, a loopback socket gets one that does not."""
    with socket.socket() as sock:
        own = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16)
        monkeypatch.setattr(options, "_PACES", True)
        options.prepare(sock, local=local)
        used = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16)

    assert used.rstrip(b"\0") == (b"reno" if local else own.rstrip(b"\0"))


@pytest.mark.parametrize("way", ["libc's", "Python's"])
def test_a_close_is_a_reset_until_it_is_to_be_orderly(monkeypatch, way):
    """Whether Python can call libc or not."""
    assert options._set_bytes is not None
    if way == "Python's":
        monkeypatch.setattr(options, "_set_bytes", None)

    def linger(sock: socket.socket) -> tuple[int, ...]:
        return struct.unpack("ii", sock.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8))

    with socket.socket() as sock:
        options.prepare(sock, local=True)
        prepared = linger(sock)
        options.end_orderly(sock)

        assert (prepared, linger(sock)) == ((1, 0), (0, 0))


def test_an_option_that_cannot_be_set_is_said():
    sock = socket.socket()
    sock.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        options.prepare(sock, local=False)

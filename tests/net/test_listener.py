"""Binding: all addresses or none, taken ports by name, chosen ports by binding."""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path

import pytest

from kecs.errors import ExitCode, KecsError
from kecs.net import listener


@contextlib.contextmanager
def taken(host: str = "127.0.0.1"):
    """A listening socket of this process."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as sock:
        sock.bind((host, 0))
        sock.listen()
        yield sock.getsockname()[1]


@contextlib.contextmanager
def bound(*arguments):
    sockets = listener.bind(*arguments)
    try:
        yield sockets
    finally:
        for sock in sockets:
            sock.close()


def test_all_addresses_listen_on_the_same_port():
    with bound(["127.0.0.1", "::1"], 0) as sockets:
        ports = {sock.getsockname()[1] for sock in sockets}
        assert len(ports) == 1
        for host, family in (("127.0.0.1", socket.AF_INET), ("::1", socket.AF_INET6)):
            with socket.socket(family) as client:
                client.connect((host, *ports))


def test_sockets_are_private_to_this_process_and_do_not_block():
    with bound(["127.0.0.1"], 0) as (sock,):
        assert not sock.getblocking()
        assert not sock.get_inheritable()
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)
        assert not sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT)


def test_ipv6_any_does_not_take_ipv4_too():
    with bound(["::"], 0) as (sock,), bound(["0.0.0.0"], sock.getsockname()[1]):
        pass


def test_an_address_given_twice_is_bound_once():
    with bound(["127.0.0.1", "127.0.0.1"], 0) as sockets:
        assert len(sockets) == 1


@pytest.mark.parametrize("addresses", [["127.0.0.1"], ["127.0.0.1", "::1"], ["0.0.0.0"]])
def test_a_taken_port_is_refused_with_its_holder(addresses):
    name = Path("/proc/self/comm").read_text().strip()
    with taken() as port, pytest.raises(listener.PortTaken) as caught:
        listener.bind(addresses, port)

    error = caught.value
    assert (error.address, error.port, error.exit_code) == (addresses[0], port, ExitCode.CONFLICT)
    assert error.holder == f"{name} (pid {os.getpid()})"
    assert error.message == f"port {port} on {addresses[0]} is taken by {error.holder}"
    assert error.hint


@contextlib.contextmanager
def udp_bound(addresses, candidates):
    """Our sockets of UDP on the first of `candidates` that is free."""
    port, sockets = listener.bind_chosen(addresses, candidates, set(), udp=True)
    try:
        yield port
    finally:
        for sock in sockets:
            sock.close()


SOME = range(23000, 24000)
"""No kernel gives these to outgoing connections."""


@pytest.mark.parametrize("addresses", [["127.0.0.1"], ["0.0.0.0"]])
def test_a_taken_udp_port_is_refused_with_its_holder(addresses):
    name = Path("/proc/self/comm").read_text().strip()
    with udp_bound(["127.0.0.1"], SOME) as port:
        with pytest.raises(listener.PortTaken) as caught:
            listener.bind(addresses, port, udp=True)
        said = f"UDP port {port} on {addresses[0]} is taken by {name} (pid {os.getpid()})"
        assert caught.value.message == said
        with udp_bound(["127.0.0.1"], range(port, SOME.stop)) as other:
            assert other > port


def test_two_never_share_a_udp_port():
    """SO_REUSEADDR, which a port of TCP has, would let a second one take all that is sent to the first."""
    with (
        udp_bound(["127.0.0.1", "::1"], SOME) as port,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as second,
    ):
        second.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with pytest.raises(OSError, match="in use"):
            second.bind(("127.0.0.1", port))


def test_udp_and_tcp_have_ports_of_their_own():
    tcp_port, sockets = listener.bind_chosen(["127.0.0.1"], SOME, set())
    try:
        with udp_bound(["127.0.0.1"], [tcp_port]) as port:
            assert port == tcp_port
    finally:
        for sock in sockets:
            sock.close()


def test_when_one_address_is_taken_none_is_bound():
    with taken("::1") as port:
        with pytest.raises(listener.PortTaken) as caught:
            listener.bind(["127.0.0.1", "::1"], port)
        assert caught.value.address == "::1"
        with bound(["127.0.0.1"], port):
            pass


def test_a_port_with_old_connections_comes_back_at_once():
    """Connections that the server closed leave TIME_WAIT on its port."""
    with bound(["127.0.0.1"], 0) as (sock,):
        port = sock.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as client:
            server, _ = sock.accept()
            server.close()
            assert client.recv(1) == b""
    with bound(["127.0.0.1"], port):
        pass


def test_a_chosen_port_is_the_first_that_is_free_and_not_to_be_avoided():
    with taken() as first, bound(["127.0.0.1", "::1"], 0) as (free, _):
        second = free.getsockname()[1]
        for sock in (free, _):
            sock.close()
        port, sockets = listener.bind_chosen(["127.0.0.1", "::1"], [first, 20001, second], {20001})
        for sock in sockets:
            assert sock.getsockname()[1] == port == second
            sock.close()


def test_no_free_port_is_an_error_with_a_hint():
    with taken() as port, pytest.raises(KecsError, match="none of the ports") as caught:
        listener.bind_chosen(["127.0.0.1"], [port], set())

    assert caught.value.hint
    assert caught.value.exit_code == ExitCode.CONFLICT


@pytest.mark.parametrize(
    ("address", "port", "message"),
    [
        ("localhorst", 0, "`localhorst` is not an IP address"),
        ("", 0, "`` is not an IP address"),
        ("192.0.2.1", 0, "`192.0.2.1` is no address of this machine"),  # RFC 5737: nobody's
    ],
)
def test_an_unusable_address_is_a_usage_error(address, port, message):
    with pytest.raises(KecsError) as caught:
        listener.bind([address], port)

    assert (caught.value.message, caught.value.exit_code) == (message, ExitCode.USAGE)
    assert caught.value.hint


def test_a_privileged_port_is_a_usage_error(monkeypatch):
    """What the kernel says to those who are not root (tests may run as root)."""

    def bind(*_args):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(socket.socket, "bind", bind)
    with pytest.raises(KecsError) as caught:
        listener.bind(["127.0.0.1"], 80)

    assert caught.value.exit_code == ExitCode.USAGE
    assert "1024" in (caught.value.hint or "")


def test_default_addresses_are_loopback():
    assert listener.default_addresses() == ["127.0.0.1", "::1"]


def test_default_addresses_without_ipv6(monkeypatch):
    def refuse(*_args, **_kwargs):
        raise OSError(97, "Address family not supported by protocol")

    monkeypatch.setattr(socket, "socket", refuse)
    assert listener.default_addresses() == ["127.0.0.1"]


def test_chosen_ports_are_outside_the_ephemeral_ranges():
    assert (listener.FORWARD_PORTS[0], listener.TASK_PORTS[0]) == (20000, 29999)
    assert set(listener.FORWARD_PORTS) == set(listener.TASK_PORTS)
    assert max(listener.FORWARD_PORTS) < 32768


def test_on_macos_a_port_that_answers_is_taken(monkeypatch):
    """A wildcard listener would be shadowed there by a bind to 127.0.0.1, which succeeds."""
    monkeypatch.setattr(listener.sys, "platform", "darwin")
    with taken() as port, pytest.raises(listener.PortTaken):
        listener.bind(["127.0.0.1"], port)
    with bound(["127.0.0.1"], port):
        pass

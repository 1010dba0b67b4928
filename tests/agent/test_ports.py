"""Which local port a forward gets."""

from __future__ import annotations

import socket

import pytest
from tests.sockets import free_port

from kecs.agent import ports
from kecs.net import listener

HERE = ["127.0.0.1"]


def bind(given, target, avoid=frozenset()):
    port, sockets = ports.bind(HERE, given, target, set(avoid))
    assert {one.getsockname()[1] for one in sockets} == {port}
    for one in sockets:
        one.close()
    return port


def test_the_port_that_was_given():
    wanted = free_port()

    assert bind(wanted, 80) == wanted
    assert bind(wanted, 80, avoid={wanted}) == wanted, "a person's word counts more"


def test_a_given_port_that_is_taken_is_no_other():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(listener.PortTaken, match=str(port)):
            bind(port, 80)


def test_the_target_port_when_it_is_free():
    wanted = free_port()

    assert bind(None, wanted) == wanted
    assert bind(None, wanted, avoid={wanted}) in listener.FORWARD_PORTS


@pytest.mark.parametrize("target", [80, 1023])
def test_a_privileged_target_port_is_not_tried(target):
    assert bind(None, target) in listener.FORWARD_PORTS


def test_a_taken_target_port_is_left_alone():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert bind(None, taken.getsockname()[1]) in listener.FORWARD_PORTS

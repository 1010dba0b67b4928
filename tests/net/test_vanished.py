"""Peers that vanish without a word: no FIN, no RST, and no answer to a probe. Keep-alive finds them.

Two ways to vanish. A filter on the peer's socket drops all that comes to it, as a machine does that has no
power; and, where network namespaces can be made (root), the peer's machine loses its link.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
from tests.net.peers import Relay, Upstream, connect, read, reset, until, was_reset
from tests.process.network import CLONE_NEWNET, own_network

from kecs.net import options
from kecs.net.messages import Ended, Watch
from kecs.net.relay import End

IDLE, BETWEEN, PROBES = 1, 1, 2
FOUND = IDLE + BETWEEN * PROBES
"""Seconds after which a silent peer is given up."""

HERE, THERE = "10.77.0.1", "10.77.0.2"
SO_ATTACH_FILTER = 26  # asm-generic/socket.h
DROP_ALL = struct.pack("HBBI", 0x06, 0, 0, 0)
"""One instruction of a socket filter (linux/filter.h): return 0, nothing of the packet is kept."""


@dataclass
class Elsewhere:
    """Where the peer is that vanishes."""

    host: str
    """Its address."""
    relay_host: str
    """The relay's address, seen from there."""
    inside: Callable[[], contextlib.AbstractContextManager[None]]
    """Sockets made in it are made there."""
    vanish: Callable[[socket.socket], None]
    """Have the peer with this socket vanish."""


@contextlib.contextmanager
def deaf_socket() -> Iterator[Elsewhere]:
    """On this machine; its socket hears nothing any more."""
    yield Elsewhere("127.0.0.1", "127.0.0.1", contextlib.nullcontext, deafen)


def deafen(sock: socket.socket) -> None:
    """Drop what comes, before TCP sees it (`tcp_filter` in net/ipv4/tcp_ipv4.c)."""
    code = ctypes.create_string_buffer(DROP_ALL, len(DROP_ALL))
    sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HP", 1, ctypes.addressof(code)))


@contextlib.contextmanager
def cut_link() -> Iterator[Elsewhere]:
    """In a network namespace of its own, linked to another one that this thread is in; the link is cut."""
    if shutil.which("ip") is None:
        pytest.skip("there is no `ip` to make a link with")
    with own_network(), contextlib.ExitStack() as stack:
        there = namespace(stack)
        with own_network():
            here = namespace(stack)
            ip(f"link add here type veth peer name there netns /proc/{os.getpid()}/fd/{there}")
            ip(f"address add {HERE}/24 dev here")
            ip("link set here up")

            @contextlib.contextmanager
            def inside() -> Iterator[None]:
                enter(there)
                try:
                    yield
                finally:
                    enter(here)

            def cut(_sock: socket.socket) -> None:
                with inside():
                    ip("link set there down")

            with inside():
                ip(f"address add {THERE}/24 dev there")
                ip("link set there up")
            yield Elsewhere(THERE, HERE, inside, cut)


def namespace(stack: contextlib.ExitStack) -> int:
    """Return a descriptor of this thread's network namespace."""
    fd = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    stack.callback(os.close, fd)
    return fd


def enter(fd: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.setns(fd, CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())


def ip(command: str) -> None:
    subprocess.run(["ip", *command.split()], check=True, timeout=10)


@pytest.fixture(params=[deaf_socket, cut_link], ids=["deaf socket", "cut link"])
def elsewhere(request, nothing_left) -> Iterator[Elsewhere]:
    with request.param() as place:
        yield place


@pytest.fixture
def relay(elsewhere, monkeypatch) -> Iterator[Relay]:
    """One that probes soon, in the network from which `elsewhere` is reached."""
    tcp = int(socket.IPPROTO_TCP)
    soon = {socket.TCP_KEEPIDLE: IDLE, socket.TCP_KEEPINTVL: BETWEEN, socket.TCP_KEEPCNT: PROBES}
    known = [(level, option) for level, option, _ in options._OPTIONS]
    assert {(tcp, int(option)) for option in soon} <= set(known)
    monkeypatch.setattr(
        options,
        "_OPTIONS",
        [(lvl, opt, soon.get(opt, value) if lvl == tcp else value) for lvl, opt, value in options._OPTIONS],
    )
    running = Relay()
    yield running
    running.stop()


@pytest.mark.parametrize("who", ["client", "target"])
def test_who_vanishes_is_found_and_the_other_side_is_reset(relay, elsewhere, who):
    """Both ends are closed; a connection beside it, as idle but alive, stays."""
    with contextlib.ExitStack() as stack:
        near = stack.enter_context(contextlib.closing(Upstream()))
        with elsewhere.inside():
            far = stack.enter_context(contextlib.closing(Upstream(elsewhere.host)))
        addresses = dict.fromkeys(["127.0.0.1", elsewhere.relay_host])
        upstream = far if who == "target" else near
        doomed = relay.forward(upstream.endpoint(), name="doomed", addresses=list(addresses))
        living = relay.forward(near.endpoint(), name="living")
        relay.loop.send(Watch("doomed", on=True))

        alive = stack.enter_context(connect(living)), stack.enter_context(near.accept())
        if who == "client":
            with elsewhere.inside():
                client = connect(doomed, elsewhere.relay_host)
        else:
            client = connect(doomed)
        server = upstream.accept()
        gone, other = (client, server) if who == "client" else (server, client)
        stack.callback(reset, gone)
        stack.enter_context(other)
        for one, two in ((client, server), (server, client), alive):
            one.sendall(b"hello")
            assert read(two, 5) == b"hello"
        until(lambda: is_acknowledged(relay), "all is acknowledged")

        begun = time.monotonic()
        elsewhere.vanish(gone)
        assert was_reset(other)
        seconds = time.monotonic() - begun
        ended = relay.wait(Ended, forward="doomed")

        assert ended.why in ("Connection timed out", "No route to host")
        assert seconds > FOUND - BETWEEN, "nobody said it: probes found it"
        assert (ended.received, ended.sent) == (5, 5)
        counted = relay.counters("doomed")
        assert (counted.open, counted.failed, counted.by_endpoint) == (0, 0, (("a", 0),))
        assert len(ends(relay)) == 2
        assert relay.counters("living").open == 1
        for one, two in (alive, alive[::-1]):
            one.sendall(b"still here")
            assert read(two, 10) == b"still here"


def ends(relay: Relay) -> list[End]:
    """The sockets of relayed connections."""
    return [end for end in list(relay.loop.ends.values()) if isinstance(end, End)]


def is_acknowledged(relay: Relay) -> bool:
    """What is under way is sent again for a quarter of an hour, and not probed for meanwhile."""
    return not any(end._undelivered() for end in ends(relay))

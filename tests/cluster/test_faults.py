"""Every part of a cluster and of KECS dies under load: all comes back, and who need not notice does not.

One service and four forwards for all tests of this module: what one test breaks, the next finds whole.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
from tests.cluster import service, target
from tests.cluster.harness import procs
from tests.cluster.harness.cluster import Cluster
from tests.cluster.talk import Talk
from tests.process.harness import Home, until
from tests.process.load import Load

RATE, TUNNEL_RATE = 100, 25
"""Requests a second on each route. Tunnels need the API server: meanwhile 1,024 are held at most."""
NOTICED_WITHIN = 5.0
"""Seconds until a tunnel whose far end does not answer is given up."""
NOBODY = 250
"""The host's number of an address that nothing has in the network of a cluster."""
WHILE_DOWN = 300
"""Requests on the direct route while something is down."""


@dataclass
class Web:
    """A service of two tasks and the local ports that lead to it."""

    home: Home
    cluster: Cluster
    direct: int
    tunnel: int
    direct_echo: int
    tunnel_echo: int


@pytest.fixture(scope="module")
def web(own, leaving):
    leaving.settle()
    home = Home()
    try:
        target.start(home, own)
        service.create(home, count=2)
        ports = [
            service.forward(home, route=route, port=port, name=f"{route}-{port}")
            for port in (service.HTTP, service.ECHO)
            for route in ("direct", "tunnel")
        ]
        yield Web(home, own, *ports)
    finally:
        target.leave(own, home)


@contextlib.contextmanager
def without_apiserver(web: Web) -> Iterator[None]:
    web.cluster.controlplane.apiserver.kill()
    yield
    web.cluster.controlplane.apiserver.start()


@contextlib.contextmanager
def without_kubelet(web: Web) -> Iterator[None]:
    web.cluster.nodes[0].kubelet.kill()
    yield
    web.cluster.nodes[0].kubelet.start()


@contextlib.contextmanager
def without_containerd(web: Web) -> Iterator[None]:
    web.cluster.nodes[0].containerd.kill()
    yield
    web.cluster.nodes[0].containerd.start()


@contextlib.contextmanager
def without_proxy(web: Web) -> Iterator[None]:
    web.cluster.nodes[0].proxy.kill()
    yield
    web.cluster.nodes[0].proxy.start()


@contextlib.contextmanager
def without_controlplane(web: Web) -> Iterator[None]:
    killed = web.home.kill("controlplane")
    yield
    until(lambda: web.home.pid("controlplane") != killed, "another control plane")


@contextlib.contextmanager
def under_load(web: Web) -> Iterator[tuple[Load, Load, Talk, Talk]]:
    """Ask and talk on both routes all the while: requests direct and by tunnel, connections direct and so."""
    with (
        Talk(web.direct_echo) as direct_talk,
        Talk(web.tunnel_echo) as tunnel_talk,
        Load(web.direct, rate=RATE) as direct,
        Load(web.tunnel, rate=TUNNEL_RATE) as tunnel,
    ):
        until(lambda: direct.tally.total > 50 and tunnel.tally.total > 25, "requests are answered")
        yield direct, tunnel, direct_talk, tunnel_talk


Breaks = Callable[[Web], contextlib.AbstractContextManager[None]]
FAULTS: dict[str, tuple[Breaks, bool]] = {
    "api-server": (without_apiserver, True),
    "kubelet": (without_kubelet, True),
    "containerd": (without_containerd, True),
    "kube-proxy": (without_proxy, False),
    "control-plane-of-kecs": (without_controlplane, False),
}
"""How it is broken and mended, and whether established tunnels end with it: three pass their bytes on."""


@pytest.mark.timeout(240)
@pytest.mark.parametrize("fault", FAULTS)
def test_direct_connections_notice_nothing_and_tunnels_heal(web, fault):
    without, ends_tunnels = FAULTS[fault]
    with under_load(web) as (direct, tunnel, direct_talk, tunnel_talk):
        struck = time.monotonic()
        with without(web):
            at_the_blow = service.span(struck)
            service.more(direct, WHILE_DOWN)
        web.cluster.wait_ready()
        until(lambda: service.answer(web.tunnel), "the tunnel serves again", seconds=30)
        service.comes_and_goes(web.home)
        service.more(tunnel, 50)

    assert direct.tally.failed == []
    assert direct_talk.broken is None
    assert tunnel.tally.failed_outside(at_the_blow) == [], "only what was in flight may fail"
    assert (tunnel_talk.broken is not None) == ends_tunnels, tunnel_talk.broken
    assert {row["state"] for row in web.home.forwards()} == {"ACTIVE"}


@pytest.mark.timeout(240)
def test_an_api_server_that_falls_silent_is_noticed_and_tunnels_heal(web):
    """Its connections stay open, and nothing comes by them any more: as when this computer loses a VPN."""
    with under_load(web) as (direct, tunnel, direct_talk, tunnel_talk):
        struck = time.monotonic()
        web.cluster.cut_controlplane()
        try:
            until(lambda: tunnel_talk.broken, "the tunnel is given up", seconds=15)
            noticed = time.monotonic() - struck
            in_flight = service.span(struck)
            service.more(direct, WHILE_DOWN)
        finally:
            web.cluster.mend_controlplane()
        web.cluster.wait_ready()
        until(lambda: service.answer(web.tunnel), "the tunnel serves again", seconds=30)
        service.more(tunnel, 50)

    assert noticed < NOTICED_WITHIN
    assert direct.tally.failed == []
    assert direct_talk.broken is None
    assert tunnel.tally.failed_outside(in_flight) == [], "who came later was held until it was back"
    assert {row["state"] for row in web.home.forwards()} == {"ACTIVE"}


@contextlib.contextmanager
def without_a_way_to_the_node(web: Web) -> Iterator[None]:
    """Send what is for the node to an address of its network that nobody has: nothing comes back."""
    network = web.cluster.network
    detour = (f"{web.cluster.nodes[0].address}/32", "via", network.address(NOBODY), "dev", network.bridge)
    procs.run("ip", "route", "add", *detour)
    try:
        yield
    finally:
        procs.run("ip", "route", "delete", *detour)


@pytest.mark.timeout(240)
def test_where_nodes_cannot_be_reached_tunnels_serve_until_they_can_again(web):
    port = service.forward(web.home, name="auto")
    assert service.row(web.home, port)["route"] == "direct"
    with Load(port, rate=RATE) as load:
        until(lambda: load.tally.total > 50, "requests are answered")
        struck = time.monotonic()
        with without_a_way_to_the_node(web):
            at_the_blow = service.span(struck)
            until(lambda: service.row(web.home, port)["route"] == "tunnel", "tunnels serve", seconds=30)
            service.more(load, 2 * RATE)
        until(lambda: service.row(web.home, port)["route"] == "direct", "it is direct again", seconds=90)
        service.more(load, RATE)
    web.home.run("port-forward", "stop", "auto")

    assert load.tally.failed_outside(at_the_blow) == [], "a dial that fails goes elsewhere, unnoticed"


@pytest.mark.timeout(120)
def test_a_killed_agent_is_back_on_its_ports_and_only_requests_in_flight_fail(web):
    with (
        Talk(web.direct_echo) as talk,
        Load(web.direct, rate=RATE) as direct,
        Load(web.tunnel, rate=TUNNEL_RATE) as tunnel,
    ):
        until(lambda: direct.tally.total > 50 and tunnel.tally.total > 25, "requests are answered")
        struck = time.monotonic()
        web.home.kill("agent")
        until(lambda: service.answer(web.direct), "the direct route serves again", seconds=5)
        until(lambda: service.answer(web.tunnel), "the tunnel serves again", seconds=10)
        away = service.span(struck)
        service.more(direct, 100)
        service.more(tunnel, 50)

    assert direct.tally.failed_outside(away) == []
    assert tunnel.tally.failed_outside(away) == []
    assert direct.tally.failed, "it was away"
    assert talk.broken is not None
    assert "ConnectionResetError" in talk.broken, "a cut connection never looks ended"
    service.comes_and_goes(web.home)


@pytest.mark.timeout(120)
def test_both_daemons_killed_come_back_with_the_next_command_and_adopt_the_pods(web):
    before = {pod["metadata"]["uid"] for pod in service.objects(web.cluster, web.home, "pods")}
    arns = web.home.arns()
    web.home.kill("agent"), web.home.kill("controlplane")
    web.home.run("ps")
    until(lambda: service.answer(web.direct), "the direct route serves again", seconds=10)
    until(lambda: service.answer(web.tunnel), "the tunnel serves again", seconds=10)

    assert web.home.arns() == arns
    service.comes_and_goes(web.home)
    assert {pod["metadata"]["uid"] for pod in service.objects(web.cluster, web.home, "pods")} & before

"""The routes to a service whose node port is published on this machine, taken away one after another.

The nodes' addresses are silent to this machine, as with Docker Desktop, unless a test says otherwise; what
publishes (`docker_proxy`) reaches the nodes by a second address of theirs. It accepts whether or not
anybody is behind, so what must never happen is that a request is given to it in vain.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from collections.abc import Iterator
from functools import partial

import pytest
import yaml
from tests.cluster import service, target
from tests.cluster.docker_proxy import Publisher, free_block
from tests.cluster.harness import procs
from tests.cluster.harness.cluster import Cluster
from tests.cluster.harness.node import Node
from tests.process.harness import Home, until
from tests.process.load import Load

RATE = 100
"""Requests a second, each on a connection of its own."""
WHILE_DOWN = 200
BLOCK = 5
"""So many ports are published; a service of the tests has two of them."""
NODE_LOSS = 10
SECOND = 100
"""What the last part of a node's second address is more than that of its first."""
NOTICED_WITHIN = 6.0
"""Seconds until a tunnel into a node that does not answer is given up, and a moment."""


class Site:
    """A cluster whose node ports of a block are published by its first node, and a home on it."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.node = cluster.nodes[0]
        *_, self.api_port = free = free_block(BLOCK + 1)
        self.block = free[:-1]
        second = second_address(self.node)
        self.node.machine.run("ip", "address", "add", f"{second}/24", "dev", "eth0")
        self.publisher = Publisher(self.block, second)
        self.home = Home()

    def start(self) -> None:
        """Start an instance that knows what is published."""
        target.start(self.home, self.cluster, "--port", str(self.api_port))
        self.home.run("stop")
        file = self.home.path / "instances/default/instance.yaml"
        known = yaml.safe_load(file.read_text())
        file.write_text(yaml.safe_dump(known | {"published": f"{self.block[0]}-{self.block[-1]}"}))
        self.home.run("start")

    def close(self) -> None:
        """Publish nothing any more, and let the nodes be as they were. The instance is for others to end."""
        for node in self.cluster.nodes:
            self.hear(node)
        self.publisher.kill()
        second = second_address(self.node)
        self.node.machine.run("ip", "address", "delete", f"{second}/24", "dev", "eth0")

    def silence(self, node: Node) -> None:
        """Let what this machine sends to the node's address vanish; others reach it as before."""
        bridge = self.cluster.network.bridge
        nobody = ("lladdr", "02:00:00:00:00:01", "dev", bridge, "nud", "permanent")
        procs.run("ip", "neighbor", "replace", node.address, *nobody)

    def hear(self, node: Node) -> None:
        """Let the node's address be reached again."""
        with contextlib.suppress(RuntimeError):  # it was never silenced
            procs.run("ip", "neighbor", "delete", node.address, "dev", self.cluster.network.bridge)

    def route(self, port: int) -> str | None:
        """Return the route of the next connection of a forward."""
        return service.row(self.home, port)["route"]

    def takes(self, port: int, route: str | None, seconds: float = 15) -> None:
        """Wait until a forward takes this route."""
        until(lambda: self.route(port) == route, f"{route} is taken", seconds)

    def wide(self) -> str:
        """Return the forwards as `list -o wide` shows them."""
        return self.home.run("port-forward", "list", "-o", "wide").stdout

    @contextlib.contextmanager
    def nobody_behind(self) -> Iterator[None]:
        """Take the node ports off the node: what publishes accepts, is refused there, and ends.

        So it is while a node that was restarted has not written kube-proxy's rules yet.
        """
        self.node.proxy.kill()
        self.node.machine.run("iptables", "-t", "nat", "-F", "KUBE-NODEPORTS")
        try:
            yield
        finally:
            self.node.proxy.start()


def second_address(node: Node) -> str:
    """Return the address of a node that is in no list of addresses."""
    network, _, last = node.address.rpartition(".")
    return f"{network}.{int(last) + SECOND}"


@pytest.fixture
def site(own, leaving):
    one = Site(own)
    try:
        one.start()
        yield one
    finally:
        one.close()
        leaving.begin(partial(target.leave, own, one.home))


@pytest.fixture
def desktop(site):
    """A site whose nodes' addresses are silent, with a service of two tasks and a forward to it."""
    service.create(site.home, count=2)
    site.silence(site.node)
    port = service.forward(site.home)
    assert service.answer(port), "the first client finds out that nodes are silent"
    site.takes(port, "published")
    return site, port


@pytest.mark.timeout(240)
def test_each_route_is_taken_when_the_better_one_is_gone_and_no_request_fails(site):
    service.create(site.home, count=2)
    numbers = service.node_ports(site.cluster, site.home)
    assert set(numbers.values()) <= set(site.block)
    port = service.forward(site.home)
    site.takes(port, "direct")

    with Load(port, rate=RATE) as load:
        service.more(load, 50)

        struck = time.monotonic()
        site.silence(site.node)
        silenced = service.span(struck, after=0.1)
        site.takes(port, "published")
        assert f"published 127.0.0.1:{numbers[service.HTTP]}" in site.wide()
        service.more(load, WHILE_DOWN)

        with site.nobody_behind():
            site.takes(port, "tunnel")
            service.more(load, WHILE_DOWN)
        site.takes(port, "published")
        service.more(load, WHILE_DOWN)

        struck = time.monotonic()
        site.publisher.kill()
        killed = service.span(struck, after=0.1)
        site.takes(port, "tunnel")
        service.more(load, WHILE_DOWN)
        site.publisher.start()
        site.takes(port, "published")
        service.more(load, WHILE_DOWN)

        site.hear(site.node)
        site.takes(port, "direct", seconds=45)
        service.more(load, WHILE_DOWN)

    assert load.tally.failed_outside(silenced, killed) == [], service.story(site.home, load)
    assert load.tally.again == []


@pytest.mark.timeout(180)
@pytest.mark.usefixtures("quiet")
def test_requests_wait_while_a_cluster_restarts_and_what_publishes_is_there_before_the_cluster(desktop):
    """As when Docker starts k3d's server again: it accepts at once, for seconds before anybody is behind."""
    site, port = desktop
    with Load(port, rate=20) as load:
        service.more(load, 20)
        struck = time.monotonic()
        site.publisher.kill()
        killed = service.span(struck, after=0.1)
        with site.nobody_behind():
            # A second blow: until now requests went by tunnels, and those under way end with it.
            struck = time.monotonic()
            site.cluster.controlplane.apiserver.kill()
            killed_too = service.span(struck, after=0.1)
            try:
                until(lambda: service.row(site.home, port)["connections"]["held"] > 10, "requests wait")
                site.publisher.start()
                until(lambda: service.row(site.home, port)["connections"]["held"] > 60, "and go on to wait")
                # Nodes that were silent are tried again now and then; what publishes is no way meanwhile.
                assert site.route(port) in (None, "direct")
            finally:
                site.cluster.controlplane.apiserver.start()
                site.cluster.controlplane.wait_ready()
        site.cluster.wait_ready()
        site.takes(port, "published", seconds=30)
        service.more(load, 60)

    assert load.tally.failed_outside(killed, killed_too) == [], service.story(site.home, load)


@pytest.mark.timeout(180)
def test_no_request_fails_over_two_deployments(desktop):
    site, port = desktop
    with Load(port, rate=RATE) as load:
        service.more(load, 50)
        for version in ("2", "3"):
            before = site.home.arns()
            revision = service.register(site.home, version)
            site.home.aws().update_service(service="web", taskDefinition=revision)
            rolled = partial(site.home.rolled, revision, before)
            until(rolled, f"deployment {version} is complete", seconds=60, every=0.2)
        service.more(load, 50)

    assert not load.tally.failed, service.story(site.home, load)
    assert {answer.split()[0] for answer in load.tally.answers} == {"1", "2", "3"}
    site.takes(port, "published")


@pytest.mark.timeout(180)
def test_after_the_only_task_was_killed_new_requests_wait_for_the_next_one(desktop):
    site, port = desktop
    site.home.aws().update_service(service="web", desiredCount=1)
    until(lambda: site.home.describe()["runningCount"] == 1 == len(site.home.arns()), "one task is left", 30)
    with Load(port, rate=50) as load:
        service.more(load, 50)
        before = site.home.arns()
        [victim] = until(lambda: len(found := servers(site.home)) == 1 and found, "one process is left", 30)
        struck = time.monotonic()
        os.kill(victim, signal.SIGKILL)
        procs.wait_gone(victim)  # until then its kernel sockets take connections
        in_flight = service.span(struck, after=0.0)
        until(
            lambda: site.home.arns().isdisjoint(before) and site.home.describe()["runningCount"] == 1,
            "another task runs",
            60,
        )
        site.takes(port, "published")
        service.more(load, 50)

    assert load.tally.failed_outside(in_flight) == [], service.story(site.home, load)


@pytest.mark.timeout(120)
def test_a_service_that_somebody_deletes_in_the_cluster_is_left_and_used_again(desktop):
    """What is sent before KECS hears of it may be lost, since it was accepted; after that nothing is."""
    site, port = desktop
    [before] = service.objects(site.cluster, site.home, "services")
    name, namespace = before["metadata"]["name"], before["metadata"]["namespace"]
    with Load(port, rate=RATE) as load:
        service.more(load, 50)
        struck = time.monotonic()
        site.cluster.kubectl("delete", "service", name, "--namespace", namespace)
        until(lambda: is_another(site, before), "it was made again")
        unheard = service.span(struck, after=0.0)
        service.more(load, 50)
        site.takes(port, "published")
        service.more(load, 50)

    assert load.tally.failed_outside(unheard) == [], service.story(site.home, load)


@pytest.mark.timeout(120)
def test_a_service_beyond_the_block_goes_by_the_tunnel_and_says_why(desktop):
    site, _ = desktop
    for name in ("other", "last"):  # of two ports each
        site.home.service(name, count=1)
        site.home.stable(name)
    names = {number: f"last-{number}" for number in (service.HTTP, service.ECHO)}
    for number, name in names.items():
        site.home.forward("service", "default/last", f":{number}", "--name", name, "--wait", "30")

    def lines() -> dict[str, str]:
        return {line.split()[0]: line for line in site.wide().splitlines()[1:]}

    def beyond() -> list[str]:
        return [line for name, line in lines().items() if "is beyond the published ones" in line]

    for row in site.home.forwards():  # a client of each finds out that nodes are silent
        with socket.create_connection(("127.0.0.1", row["localPort"]), timeout=20) as connection:
            connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
            assert connection.recv(1)
    [line] = until(lambda: len(found := beyond()) == 1 and found, "one of two ports is beyond the block")
    assert line.split()[0] in names.values()
    assert "tunnel (node port " in line
    assert f"beyond the published ones, {site.block[0]}-{site.block[-1]})" in line
    http = next(row for row in site.home.forwards() if row["name"] == names[service.HTTP])
    assert service.answer(http["localPort"]).startswith("1 ")
    assert "published (kube-proxy balances)" in lines()["default-web"]


def test_a_half_closed_client_gets_its_answer(desktop):
    site, _ = desktop
    port = service.forward(site.home, port=service.ECHO, name="echo")
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(b"x")
        assert connection.recv(1) == b"x", "the first client finds out that nodes are silent"
    site.takes(port, "published")
    said = b"x" * 100_000
    assert service.echoed(port, said) == said


@pytest.mark.timeout(300)
@pytest.mark.parametrize("lost", [0, 1], ids=["the-node-that-publishes", "another-node"])
def test_a_node_that_is_lost_makes_no_black_hole_of_what_is_published(make_cluster, lost):
    """What publishes accepts, and what it dials is silent: the lost tunnels tell, long before Kubernetes."""
    cluster = make_cluster(nodes=2, node_loss_seconds=NODE_LOSS)
    site = Site(cluster)
    try:
        site.start()
        service.create(site.home, count=4)
        for node in cluster.nodes:
            site.silence(node)
        port = service.forward(site.home)
        assert service.answer(port), "the first client finds out that nodes are silent"
        site.takes(port, "published")

        with Load(port, rate=50) as load:
            service.more(load, 50)
            struck = time.monotonic()
            cluster.nodes[lost].cut()
            site.takes(port, "tunnel", seconds=NOTICED_WITHIN)
            unnoticed = service.span(struck)
            service.more(load, 100)
            until(
                lambda: f"node {cluster.nodes[lost].name} is not ready" in site.wide(), "it is not ready", 60
            )
            assert "published 127.0.0.1" not in site.wide()
            service.more(load, 100)
            cluster.nodes[lost].mend()
            cluster.wait_ready()
            site.takes(port, "published", seconds=60)
            service.more(load, 100)

        assert load.tally.failed_outside(unnoticed) == [], service.story(site.home, load)
    finally:
        site.close()
        site.home.close()


def is_another(site: Site, before) -> bool:
    """Tell whether the Service was made again."""
    found = service.objects(site.cluster, site.home, "services")
    return [each["metadata"]["uid"] for each in found] not in ([], [before["metadata"]["uid"]])


def servers(home: Home) -> list[int]:
    """Return the processes of the test server in all pods."""
    return [pid for pid, command in home.processes().items() if command.split()[:1] == ["/server"]]

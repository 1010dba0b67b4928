"""`--publish` with everything real but k3d and Docker: they are scripted, the cluster behind them is not."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml
from tests.cluster import guide, service, target
from tests.cluster.harness import build, images
from tests.k3d.scripted import ScriptedK3d
from tests.process.harness import KECS, Home, until
from tests.sockets import free_port

LB = "k3d-kecs-default-serverlb"


class Site:
    """An instance of the runtime `k3d` whose cluster is the tests' own."""

    def __init__(self, cluster, folder: Path) -> None:
        self.cluster = cluster
        self.k3d = ScriptedK3d(folder / "k3d", listen=True)
        self.k3d.use_api(cluster.kubeconfig)
        server = yaml.safe_load(cluster.kubeconfig.read_text())["clusters"][0]["cluster"]["server"]
        self._api = (urlsplit(server).hostname, urlsplit(server).port)
        self._before = target.namespaces(cluster).keys()
        self.home = Home(PATH=f"{self.k3d.bin}:{KECS.parent}:{os.environ['PATH']}")

    def start(self) -> None:
        self.home.start("--runtime", "k3d", "--load-balancer", "--node-ports", "0", timeout=120)

    def connect_node_ports(self) -> None:
        """Let what Docker would pass on to the server reach the node."""
        node = target.node_addresses(self.cluster)[0]
        ports = service.node_ports(self.cluster, self.home).values()
        self.k3d.backends({6443: self._api, **{port: (node, port) for port in ports}})

    def mapped(self) -> list[tuple[int, int]]:
        return sorted((host, node) for _, host, node in self.k3d.ports(LB) if node != 6443)

    def close(self) -> None:
        with contextlib.suppress(AssertionError):
            self.home.run("destroy", "--yes", timeout=120)
        self.home.close()
        self.k3d.close()
        # The cluster that was deleted is a scripted one: the real one still has what was in it.
        if left := target.namespaces(self.cluster).keys() - self._before:
            self.cluster.kubectl("delete", "namespace", *left, "--wait=true", seconds=100)


@pytest.fixture
def site(own, tmp_path):
    one = Site(own, tmp_path)
    yield one
    one.close()


@pytest.mark.timeout(300)
def test_a_published_port_lives_through_the_stop_of_kecs_and_goes_with_the_forward(site):
    site.start()
    home = site.home
    service.create(home, count=1)
    site.connect_node_ports()
    port = free_port()

    started = home.forward("service", "default/web", ":http", "--publish", str(port), "--yes")
    node_port = service.node_ports(site.cluster, home)[service.HTTP]
    assert (started["publish"], site.mapped()) == (port, [(port, node_port)])
    assert service.answer(port).startswith("1 ")
    assert f"127.0.0.1:{port}" in home.run("port-forward", "list", "-o", "wide").stdout

    home.run("port-forward", "agent", "stop")
    assert service.answer(port).startswith("1 "), "Docker holds it, not KECS"
    home.run("port-forward", "agent", "restart")

    home.run("port-forward", "stop", "default-web", "--yes")
    assert site.mapped() == []
    with pytest.raises(OSError, match="refused"):
        service.answer(port)


@pytest.mark.timeout(300)
def test_a_file_publishes_two_services_in_one_edit_once_they_exist(site, tmp_path):
    site.start()
    home = site.home
    ports = [free_port(), free_port()]
    file = tmp_path / "port-forward.yaml"
    file.write_text(
        'version: "1"\nforwards:\n'
        + "".join(
            f"- {{name: {name}, type: service, service: web, targetPort: {name}, publish: {port}}}\n"
            for name, port in zip(("http", "echo"), ports, strict=True)
        )
    )
    ran = home.run("port-forward", "run", "--config", str(file), "--yes")
    assert "is not published yet: default/web:http has no node port" in ran.stderr

    service.create(home, count=1)
    site.connect_node_ports()
    home.run("port-forward", "run", "--config", str(file), "--yes", "--wait", timeout=90)
    numbers = service.node_ports(site.cluster, home)
    assert site.mapped() == sorted([(ports[0], numbers[service.HTTP]), (ports[1], numbers[service.ECHO])])
    assert len(site.k3d.calls("node", "edit")) == 1
    assert service.answer(ports[0]).startswith("1 ")

    home.run("port-forward", "down", "--config", str(file), "--yes")
    assert site.mapped() == []
    assert len(site.k3d.calls("node", "edit")) == 2


@pytest.mark.timeout(300)
def test_a_node_port_that_moved_is_put_right_by_the_next_start(site):
    site.start()
    home = site.home
    service.create(home, count=1)
    site.connect_node_ports()
    port = free_port()
    stale = 32767
    site.k3d.run("node", "edit", LB, "--port-add", f"127.0.0.1:{port}:{stale}")

    ran = home.run("port-forward", "start", "service", "web", ":http", "--publish", str(port), "--yes")
    assert f"127.0.0.1:{port}, which leads to node port {stale}" in ran.stderr
    node_port = service.node_ports(site.cluster, home)[service.HTTP]
    assert site.mapped() == [(port, node_port)]
    until(lambda: service.answer(port), "the published port answers")


@pytest.mark.timeout(300)
def test_the_guide_works_as_written(site, tmp_path):
    """What it says of a terminal and of a file is in the other tests here."""
    name = "docker.io/library/nginx:1.29-alpine"
    files = {"server": build.server()}
    archive = tmp_path / "web.tar"
    site.cluster.load(images.write(archive, name, files, entrypoint=["/server"], environment={"PORT": "80"}))
    blocks = guide.blocks(guide.FOLDER / "k3d.md")
    ((first,), (stop_and_start,), (balanced,)) = blocks.values()
    reader = guide.Reader(site.home, site.cluster)

    assert "http://127.0.0.1:8088 -> default/web:80  ACTIVE" in reader.run(first)
    reader.run(stop_and_start)
    assert site.k3d.is_empty()
    reader.run(balanced)
    assert site.k3d.containers()[LB] == "running"

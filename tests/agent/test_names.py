"""Names instead of ports: which hosts there are, where they lead, whose port it is and how long."""

from __future__ import annotations

import asyncio
import socket

import pytest
import yaml
from tests.agent.scripted import refuses, until
from tests.agent.shapes import REGION, A, B, change, port, service, snapshot, task, wanted
from tests.sockets import free_port

from kecs.agent import names as module
from kecs.agent.named import first_port
from kecs.agent.names import NamesPort
from kecs.agent.picture import Picture
from kecs.agent.state import NamesEntry
from kecs.client.endpoints import Route
from kecs.client.names import hosts_of, url_of
from kecs.errors import KecsError
from kecs.forward.backoff import Backoff
from kecs.net import listener
from kecs.net.messages import Close, Listen, Names, OpenFront, Snapshot, Waiting

WEB = (REGION, "prod", "web", None)


@pytest.mark.parametrize(
    ("service_", "cluster", "region", "hosts"),
    [
        ("web", "prod", REGION, ("web.prod.localhost",)),
        ("web", "default", REGION, ("web.localhost", "web.default.localhost")),
        ("web", "prod", "eu-west-1", ("web.prod.eu-west-1.localhost",)),
        ("web", "default", "eu-west-1", ("web.default.eu-west-1.localhost",)),
        ("Web_API", "prod", REGION, ("web-api-2189497f.prod.localhost",)),
    ],
)
def test_a_service_has_its_hosts_by_the_names_that_kubernetes_allows(service_, cluster, region, hosts):
    assert hosts_of(service_, cluster, region, REGION) == hosts


def test_the_url_is_the_shortest_one():
    assert url_of("web", "default", REGION, REGION, 20000) == "http://web.localhost:20000/"


def test_a_name_leads_to_the_first_port_of_tcp():
    assert first_port(service(ports=[port(53, protocol="udp"), port(8080), port(80)])) == 8080
    assert first_port(service(task(A, port(81)), ports=[])) == 81
    assert first_port(service(ports=[port(53, protocol="udp")])) is None


class Stage:
    """The port with a picture and a relay that keeps what it is sent; the file is an attribute."""

    def __init__(self):
        self.sent = []
        self.picture = Picture()
        self.names_entry = None
        self.writes = 0
        self.tunnels = {}
        self.full = False
        self.names = NamesPort(self, REGION, self, self.picture, self)

    def keep_names(self, entry):
        if self.full:
            raise KecsError("no space left")
        self.names_entry = entry
        self.writes += 1

    def avoided_ports(self):
        return set()

    def send(self, message):
        self.sent.append(message)
        if isinstance(message, OpenFront):
            for sock in message.sockets:
                sock.close()

    def want(self, forward, names):
        self.tunnels[forward] = set(names)

    def learn(self, line):
        changes = self.picture.apply(line)
        self.names.follow(changes)
        return self.take()

    def take(self):
        sent, self.sent = self.sent, []
        return [
            message.forwards if isinstance(message, Names) else (type(message).__name__, *_of(message))
            for message in sent
        ]


def _of(message):
    if isinstance(message, Snapshot):
        return message.forward, [one.id for one in message.endpoints]
    return (message.forward,) if isinstance(message, Listen | Close) else ()


@pytest.fixture
def play():
    def play(scene):
        async def run():
            stage = Stage()
            try:
                await scene(stage, stage.names)
            finally:
                stage.names.leave()

        asyncio.run(run())

    return play


def test_names_are_made_before_the_port_takes_clients_and_follow_what_there_is(play):
    async def scene(stage, names):
        stage.learn(snapshot(1, service(task(A, port(80, 29001))), service(name="api", public=False)))
        assert stage.take() == []
        names.open("")
        web = "name/web.prod.localhost"
        assert stage.take() == [
            ("Listen", web),
            ("Snapshot", web, [A]),
            {"web.prod.localhost": web},
            ("OpenFront",),
        ]
        both = service(task(A, port(80, 29001)), task(B, port(80, 29002)))
        assert stage.learn(change(2, both)) == [("Snapshot", web, [A, B])]
        assert stage.learn(change(3, service(name="api", public=False, ports=[port(81)]))) == []
        api = "name/api.default.localhost"
        assert stage.learn(change(4, service(name="api", cluster="default"))) == [
            ("Listen", api),
            {"web.prod.localhost": web, "api.localhost": api, "api.default.localhost": api},
        ]
        assert stage.learn(change(5, removed=[WEB])) == [
            {"api.localhost": api, "api.default.localhost": api},
            ("Close", web),
        ]

    play(scene)


def test_before_anything_is_known_clients_wait_and_none_is_told_that_there_is_nothing(play):
    async def scene(stage, names):
        names.open("")
        with socket.create_connection(("127.0.0.1", names.port)):
            assert stage.take() == []
            assert stage.learn(snapshot(1))[-1:] == [("OpenFront",)]

    play(scene)


def test_the_port_is_kept_for_all_who_want_it_and_closed_with_the_last(play):
    async def scene(stage, names):
        stage.learn(snapshot(1, service()))
        kept = names.open("/a.yaml")
        assert names.open("") == kept == names.open("/a.yaml") == names.port
        assert stage.names_entry == NamesEntry(port=kept, owners=["", "/a.yaml"])
        assert stage.writes == 2, "nothing is written that is there"
        assert names.close("/b.yaml") == kept == names.close("")
        stage.take()
        assert names.close("/a.yaml") is None
        assert stage.take() == [("CloseFront",), {}, ("Close", "name/web.prod.localhost")]
        assert (names.port, stage.names_entry) == (None, NamesEntry(port=kept))
        assert names.open("/c.yaml") == kept

    play(scene)


def test_what_cannot_be_written_is_not_opened(play):
    async def scene(stage, names):
        stage.full, stage.names_entry = True, NamesEntry(port=free_port())
        with pytest.raises(KecsError, match="no space left"):
            names.open("")
        assert (names.port, stage.names_entry.owners) == (None, [])
        assert refuses(stage.names_entry.port)

    play(scene)


def test_a_port_that_is_taken_at_the_start_is_had_back_and_no_other(play, monkeypatch):
    monkeypatch.setattr(module, "AGAIN", Backoff(first=0.01, cap=0.01))

    async def scene(stage, names):
        (stranger,) = listener.bind(["127.0.0.1"], 0)
        kept = stranger.getsockname()[1]
        stage.names_entry = NamesEntry(port=kept, owners=[""])
        stage.learn(snapshot(1))
        with stranger:
            names.restore()
            assert names.port is None
            assert f"port {kept} on 127.0.0.1 is taken by" in names.warnings[0]
            with pytest.raises(KecsError, match="is taken") as raised:
                names.open("/a.yaml")
            assert "choose" not in str(raised.value.hint), "nobody can choose the port of names"
        async with asyncio.timeout(5):
            while names.port is None:
                await asyncio.sleep(0.005)
        assert (names.port, names.warnings) == (kept, [])

    play(scene)


def test_what_nobody_wants_is_not_restored(play):
    async def scene(stage, names):
        stage.names_entry = NamesEntry(port=free_port())
        names.restore()
        assert names.port is None

    play(scene)


def test_tunnels_are_opened_for_services_whose_clients_wait_and_given_up_with_the_service(play):
    async def scene(stage, names):
        def pod(name):
            route = Route(kind="tunnel", namespace="ns", pod=name, port=80)
            return service(task(A, port(80, ready=True, routes=[route])))

        stage.learn(snapshot(1, pod("one")))
        names.open("")
        assert stage.tunnels == {}
        web = "name/web.prod.localhost"
        names.waiting(Waiting("pf-00000001", 1))
        names.waiting(Waiting(web, 1))
        assert stage.tunnels == {web: {"ns/one"}}
        stage.learn(change(2, pod("two")))
        assert stage.tunnels == {web: {"ns/two"}}
        stage.learn(change(3, removed=[WEB]))
        assert stage.tunnels == {web: set()}

    play(scene)


# With an agent


def ask(port_, host):
    """Ask for `host`; return the first line of the answer."""
    with socket.create_connection(("127.0.0.1", port_), timeout=10) as client, client.makefile("rb") as file:
        client.sendall(f"GET / HTTP/1.1\r\nHost: {host}:{port_}\r\n\r\n".encode())
        return file.readline().decode().strip().removesuffix(" GET / HTTP/1.1")


def ready(home, task_id, **members):
    return service(task(task_id, port(80, home.task(task_id))), **members)


def test_every_public_service_answers_by_its_name_on_one_port_which_is_kept(running):
    running.controlplane.publish(
        ready(running, A), ready(running, B, name="api", cluster="default"), service(name="off", public=False)
    )
    kept = running.client.open_names()
    assert 20000 <= kept < 30000
    assert ask(kept, "web.prod.localhost") == A
    assert ask(kept, "api.localhost") == ask(kept, "API.default.LOCALHOST.") == B
    assert ask(kept, "off.prod.localhost") == "HTTP/1.1 404 Not Found"
    assert running.client.call("agent.status").names_port == kept
    assert yaml.safe_load(running.paths.forwards_config.read_text())["names"] == {
        "localPort": kept,
        "owners": [""],
    }
    running.kill()
    running.launch()
    assert until(lambda: ask(kept, "web.prod.localhost") == A, "it is back on the same port")
    assert running.client.close_names() is None
    assert refuses(kept)
    assert running.client.open_names() == kept


def test_a_planned_stop_waits_for_who_came_by_a_name(running):
    target = ready(running, A)
    running.controlplane.publish(target)
    kept = running.client.open_names()
    with socket.create_connection(("127.0.0.1", kept), timeout=10) as client, client.makefile("rb") as file:
        client.sendall(b"GET / HTTP/1.1\r\nHost: web.prod.localhost\r\n\r\n")
        assert file.readline().decode().startswith(A)
        leaving = port(80, target.tasks[0].ports[0].routes[0].port, draining=True)
        version = running.controlplane.publish(service(task(A, leaving, status="DEACTIVATING")))
        running.controlplane.seen(version)
        assert ("drained", A) not in running.controlplane.posts
        client.sendall(b"one more\n")
        assert A in file.readline().decode()
    until(lambda: ("drained", A) in running.controlplane.posts, "the last connection has ended")


def test_a_forward_is_never_given_the_port_of_the_names(running):
    running.controlplane.publish(ready(running, A))
    kept = running.client.open_names()
    running.client.close_names()
    (row,) = running.start(wanted())
    assert row.local_port != kept

"""Metrics: what Prometheus' own parser makes of the page, and who may read it."""

from __future__ import annotations

import asyncio
import http.client
import re
import socket
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.agent.scripted import Client, until
from tests.agent.shapes import A, make_instance, port, service, task
from tests.agent.shapes import wanted as spec
from tests.sockets import free_port

from kecs.agent.exposition import Page
from kecs.agent.metrics import of_forwards
from kecs.agent.metrics_door import CLIENTS, MetricsDoor
from kecs.client.agent import AgentClient
from kecs.client.metrics_address import MetricsAddress, parse, wanted
from kecs.errors import ExitCode, KecsError
from kecs.net import listener
from kecs.net.latency import BOUNDS

DOCS = Path(__file__).resolve().parent.parent.parent / "docs" / "reference"


def families(text):
    return {family.name: family for family in text_string_to_metric_families(text)}


def values(text, name):
    """Return the samples of a name, by their labels."""
    return {
        tuple(sample.labels.values()): sample.value
        for family in families(text).values()
        for sample in family.samples
        if sample.name == name
    }


def get(address, path="/metrics", method="GET", **headers):
    """Ask; return status, headers, body."""
    connection = http.client.HTTPConnection(address.host, address.port, timeout=10)
    try:
        connection.request(method, path, headers={"Host": str(address), **headers})
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read().decode()
    finally:
        connection.close()


# The text


def test_labels_may_have_every_character_and_numbers_are_whole_or_not():
    page = Page()
    page.family("a_total", "counter", "Said.")
    page.sample(3, {"it": 'a"b\\c\nd'})
    page.sample(0.25, {})

    (family,) = text_string_to_metric_families(page.text())
    assert (family.type, family.documentation) == ("counter", "Said.")
    assert [(one.labels, one.value) for one in family.samples] == [({"it": 'a"b\\c\nd'}, 3.0), ({}, 0.25)]


def test_a_histogram_adds_up_to_its_last_bucket():
    page = Page()
    page.family("took_seconds", "histogram", "How long.")
    page.histogram((1, 0, 2, 1), (0.1, 1.0, 30.0), 40.5, {"forward": "web"})

    samples = [
        (one.name, one.labels.get("le"), one.value) for one in families(page.text())["took_seconds"].samples
    ]
    assert samples == [
        ("took_seconds_bucket", "0.1", 1),
        ("took_seconds_bucket", "1.0", 1),
        ("took_seconds_bucket", "30.0", 3),
        ("took_seconds_bucket", "+Inf", 4),
        ("took_seconds_sum", None, 40.5),
        ("took_seconds_count", None, 4),
    ]


# The address


@pytest.mark.parametrize(
    ("text", "host", "number"),
    [("127.0.0.1:9400", "127.0.0.1", 9400), ("[::1]:1", "::1", 1), ("localhost:65535", "127.0.0.1", 65535)],
)
def test_an_address_is_read_and_written_the_same(text, host, number):
    address = parse(text)
    assert address == MetricsAddress(host, number)
    assert parse(str(address)) == address
    assert address.is_loopback


@pytest.mark.parametrize(
    "text",
    [
        *("", "9400", ":9400", "127.0.0.1", "127.0.0.1:", "127.0.0.1:0", "127.0.0.1:65536", "127.0.0.1:x"),
        *("::1:9400", "[127.0.0.1]:9400", "[::1", "example.com:9400", "127.0.0.1:٣", "on"),
    ],
)
def test_what_is_no_address_is_a_usage_error(text):
    with pytest.raises(KecsError) as caught:
        wanted(text, "127.0.0.1:9400")
    assert caught.value.exit_code == ExitCode.USAGE
    assert "127.0.0.1:9400" in caught.value.hint


def test_off_is_a_wish_and_none_is_not():
    assert wanted("off", "127.0.0.1:9400") is None
    assert wanted(None, "127.0.0.1:9400") == "127.0.0.1:9400"
    assert not parse("0.0.0.0:9400").is_loopback


# The door


@pytest.fixture
def doors():
    """Return what plays a scene with an open door; the scene runs on another thread."""

    def play(scene, host="127.0.0.1", page=None):
        async def said():
            return "page_total 1\n"

        async def run():
            address = MetricsAddress(host, free_port())
            door = MetricsDoor(address, page or said)
            await door.open()
            try:
                return await asyncio.to_thread(scene, door, address)
            finally:
                await door.close()

        return asyncio.run(run())

    return play


def test_the_door_answers_one_path_and_one_method(doors):
    def scene(_door, address):
        return [
            get(address)[0],
            get(address, "/metrics?x=1")[0],
            get(address, "/")[0],
            get(address, "/metrics/")[0],
            get(address, method="POST")[0],
            get(address, method="HEAD")[0],
        ]

    assert doors(scene) == [200, 200, 404, 404, 405, 405]


def test_the_door_says_which_format_it_is(doors):
    status, headers, body = doors(lambda _door, address: get(address))

    assert (status, body) == (200, "page_total 1\n")
    assert headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example:80"}, 403),
        ({"Host": "127.0.0.1.evil.example"}, 403),
        ({"Host": "localhost"}, 200),
        ({"Host": "metrics.localhost:9400"}, 200),
        ({"Origin": "http://localhost"}, 403),
    ],
)
def test_web_pages_are_refused(doors, headers, status):
    assert doors(lambda _door, address: get(address, **headers))[0] == status


def test_on_another_address_any_name_may_be_ours_but_no_page(doors):
    def scene(_door, address):
        here = MetricsAddress("127.0.0.1", address.port)
        return get(here, Host="host.docker.internal:9400")[0], get(here, Origin="http://a")[0]

    assert doors(scene, host="0.0.0.0") == (200, 403)


def test_what_is_no_http_is_answered_400_and_closed(doors):
    def scene(_door, address):
        with socket.create_connection(address, timeout=10) as client:
            client.sendall(b"\x16\x03\x01 hello\r\n\r\n")
            return client.makefile("rb").read()

    assert doors(scene).startswith(b"HTTP/1.1 400 ")


def test_a_client_that_says_more_than_it_should_gets_the_whole_page(doors):
    async def large():
        return "x" * 8_000_000

    def scene(_door, address):
        with socket.create_connection(address, timeout=10) as client:
            client.sendall(f"GET /metrics HTTP/1.1\r\nHost: {address}\r\n\r\n".encode())
            said = client.recv(1)
            client.sendall(b"more")
            return len((said + client.makefile("rb").read()).partition(b"\r\n\r\n")[2])

    assert doors(scene, page=large) == 8_000_000


def test_a_client_that_says_nothing_keeps_nobody_from_reading(doors):
    def scene(_door, address):
        silent = [socket.create_connection(address, timeout=10) for _ in range(CLIENTS - 1)]
        status = get(address)[0]
        for one in silent:
            one.close()
        return status

    assert doors(scene) == 200


def test_one_client_too_many_is_closed_and_there_is_room_again_later(doors):
    def scene(_door, address):
        silent = [socket.create_connection(address, timeout=10) for _ in range(CLIENTS)]
        with pytest.raises(ConnectionError):
            get(address)
        for one in silent:
            one.close()
        return until(lambda: _status_or_none(address), "there is room again")

    assert doors(scene) == 200


def _status_or_none(address):
    try:
        return get(address)[0]
    except ConnectionError:
        return None


def test_a_loop_that_does_not_answer_is_503(doors):
    async def broken():
        raise KecsError("the relay loop did not answer")

    status, _, body = doors(lambda _door, address: get(address), page=broken)
    assert (status, body) == (503, "the relay loop did not answer\n")


def test_a_taken_address_is_said_and_tried_again(doors):
    """The door is open as soon as the stranger has left, and until then it says who has the port."""
    number = free_port()

    async def page():
        return "page_total 1\n"

    async def run():
        (stranger,) = listener.bind(["127.0.0.1"], number)
        door = MetricsDoor(MetricsAddress("127.0.0.1", number), page)
        await door.open()
        try:
            before = door.url, door.warnings
            stranger.close()
            async with asyncio.timeout(10):
                while door.url is None:
                    await asyncio.sleep(0.01)
            return before, door.url, door.warnings
        finally:
            await door.close()

    (url, [warning]), after, warnings = asyncio.run(run())
    assert url is None
    assert f"port {number} on 127.0.0.1 is taken" in warning
    assert (after, warnings) == (f"http://127.0.0.1:{number}/metrics", [])


# The agent


def test_the_agent_tells_of_its_forwards(home):
    address = MetricsAddress("127.0.0.1", free_port())
    make_instance(home.path, metrics_address=str(address))
    home.controlplane.publish(service(task(A, port(80, home.task("one")))), service(name="idle"))
    home.launch()
    (row,) = home.start(spec("prod/web", target_port=80), wait=10)
    (waiting,) = home.start(spec("prod/idle", target_port=80))
    with Client(row.local_port) as client:
        assert client.ask() == "one"
        text = get(address)[2]
        counted = home.row()

        web, idle = ("prod-web",), (waiting.name,)
        assert values(text, "kecs_forward_connections_open") == {web: 1, idle: 0}
        assert values(text, "kecs_forward_connections_total") == {web: 1, idle: 0}
        assert values(text, "kecs_forward_received_bytes_total")[web] == counted.bytes.in_ > 0
        assert values(text, "kecs_forward_sent_bytes_total")[web] == counted.bytes.out > 0
        for name in ("dial", "first_byte"):
            assert values(text, f"kecs_forward_{name}_seconds_count") == {web: 1, idle: 0}
            assert 0 < values(text, f"kecs_forward_{name}_seconds_sum")[web] < 10
            assert len(values(text, f"kecs_forward_{name}_seconds_bucket")) == 2 * (len(BOUNDS) + 1)
        states = values(text, "kecs_forward_state")
        assert {key for key, value in states.items() if value} == {
            ("prod-web", "ACTIVE"),
            (waiting.name, "WAITING"),
        }
        assert len(states) == 2 * 5
        assert values(text, "kecs_controlplane_connected") == {(): 1}
        assert values(text, "process_resident_memory_bytes")[()] > 10_000_000
        info = next(one.labels for one in families(text)["kecs_forward_info"].samples)
        assert (info["cluster"], info["service"], info["local_port"]) == ("prod", "web", str(row.local_port))

    until(lambda: not values(get(address)[2], "kecs_forward_connections_open")[web], "it has ended")
    with AgentClient(home.paths) as agent:
        assert agent.ask("agent.status")["metrics"] == address.url


def test_without_an_address_the_agent_serves_none(running):
    with AgentClient(running.paths) as agent:
        status = agent.ask("agent.status")
    assert "metrics" not in status or status["metrics"] is None


def test_a_port_for_metrics_is_never_chosen_for_a_forward(home):
    """Not even while the door could not be opened yet."""
    make_instance(home.path, metrics_address="127.0.0.1:20000")
    home.controlplane.publish(service(task(A, port(80, home.task("one")))))
    home.launch()
    (row,) = home.start(spec("prod/web", target_port=80))

    assert row.local_port != 20000


# The page that describes them


def test_every_metric_is_documented_and_no_other(home):
    address = MetricsAddress("127.0.0.1", free_port())
    make_instance(home.path, metrics_address=str(address))
    home.controlplane.publish(service(task(A, port(80, home.task("one")))))
    home.launch()
    home.start(spec("prod/web", target_port=80), wait=10)
    served = {
        (f"{family.name}_total" if family.type == "counter" else family.name, family.type)
        for family in families(get(address)[2]).values()
    }
    rows = re.findall(
        r"^\| `((?:kecs|process)_[a-z_]+)` \| (\w+) \|", (DOCS / "metrics.md").read_text(), re.MULTILINE
    )

    assert set(rows) == served
    assert len(rows) == len(served)


def test_there_may_be_no_forward():
    page = Page()
    of_forwards(page, [])
    assert "kecs_forward_connections_open" in families(page.text())

"""Trouble on one connection through a tunnel into a real pod, and what others in the same one notice of it.

The relay loop is driven as the agent does it; no control plane is involved. `Others` are two connections that
talk all the time and new ones that come one after the other; none of them may fail.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import socket
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.cluster import pods
from tests.net.carriers import carried
from tests.net.peers import Relay, connect, read, reset, until

from kecs.kube.access import Access
from kecs.kube.tunnel import Tunnel
from kecs.kube.upgrade import open_portforward
from kecs.net.messages import CarrierLost, Carry, Congested

HTTP, ECHO = 8080, 9090


class Driver(Relay):
    """A relay loop with tunnels into one pod: another is opened when one is lost or congested."""

    def __init__(self, access, namespace, pod, over):
        self._open = lambda: Tunnel(open_portforward(access, namespace, pod, timeout=10, over=over))
        self._name = f"{namespace}/{pod}"
        self._opening = []
        super().__init__()
        self._carry()

    def to(self, port, name):
        """Start a forward to a port of the pod; return the local one."""
        return self.forward(carried(name, port, carrier=self._name), name=name)

    def stop(self):
        for thread in self._opening:
            thread.join()
        super().stop()

    def _on_message(self, message):
        super()._on_message(message)
        lost = isinstance(message, CarrierLost) and not message.left
        if lost or (isinstance(message, Congested) and message.carriers < 8):
            self._opening.append(threading.Thread(target=self._carry))
            self._opening[-1].start()

    def _carry(self):
        self.loop.send(Carry(self._name, self._open()))


class Others:
    """Clients that ask for nothing but to be left alone."""

    def __init__(self, http_port, echo_port, talkers=2):
        self.failures, self.answers, self.longest = [], 0, 0.0
        self._http, self._echo = http_port, echo_port
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask)]
        self._threads += [threading.Thread(target=self._talk) for _ in range(talkers)]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        until(lambda: self.answers > 10 or self.failures, seconds=30)
        return self

    def __exit__(self, *_):
        before = self.answers
        until(lambda: self.answers > before + 10 or self.failures, seconds=30)
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _ask(self):
        while not self._stop.wait(0.01):
            self._measure(lambda: get(self._http, "/", seconds=10))

    def _talk(self):
        with connect(self._echo) as sock:
            while not self._stop.wait(0.02) and not self.failures:
                self._measure(lambda: (sock.sendall(b"hello"), read(sock, 5)))

    def _measure(self, work):
        began = time.monotonic()
        try:
            work()
        except (OSError, AssertionError, http.client.HTTPException) as error:
            self.failures.append(f"{error!r} after {time.monotonic() - began:.2f} s")
        else:
            self.answers += 1
            self.longest = max(self.longest, time.monotonic() - began)


def get(port, path, seconds=20.0):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=seconds)
    try:
        connection.request("GET", path)
        return connection.getresponse().read()
    finally:
        connection.close()


@pytest.fixture(scope="module")
def pod(cluster):
    """A pod of the test server: (namespace, name)."""
    namespace = f"tunnels-{uuid.uuid4().hex[:8]}"
    cluster.kubectl("create", "namespace", namespace)
    until(lambda: _applied(cluster, pods.server("srv", namespace)), seconds=30)
    cluster.kubectl("-n", namespace, "wait", "--for=condition=Ready", "pod/srv", "--timeout=60s")
    yield namespace, "srv"
    cluster.kubectl("delete", "namespace", namespace, "--wait=true", seconds=100)


def _applied(cluster, manifest):
    """Whether the pod was taken: a new namespace has its service account a moment later."""
    try:
        cluster.kubectl.apply(manifest)
    except RuntimeError:
        return False
    return True


@pytest.fixture(params=["spdy", "websocket"])
def driver(request, cluster, pod):
    one = Driver(Access.load(cluster.kubeconfig), *pod, request.param)
    yield one
    one.stop()


@pytest.fixture
def ports(driver):
    return driver.to(HTTP, "http"), driver.to(ECHO, "echo")


def test_a_reset_by_the_pod_is_the_client_s_and_nobody_else_s(ports):
    with Others(*ports) as others:
        for after in (0, 1000, 100_000):
            with pytest.raises((ConnectionResetError, http.client.IncompleteRead)) as raised:
                get(ports[0], f"/reset?after={after}")
            assert isinstance(raised.value, ConnectionResetError)
    assert others.failures == []


def test_a_refused_port_harms_nobody(driver, ports):
    nobody = driver.to(9999, "nobody")
    with Others(*ports) as others, contextlib.ExitStack() as stack:
        for _ in range(20):
            client = stack.enter_context(connect(nobody))
            client.sendall(b"is anybody there?")
        until(lambda: driver.counters("nobody").held == 20)
    assert others.failures == []


def test_a_port_that_stops_listening_and_comes_back(driver, ports):
    port = driver.to(7070, "on and off")
    get(ports[0], "/listen?port=7070&on=1")
    with Others(*ports) as others:
        with connect(port) as client:
            client.sendall(b"one")
            assert read(client, 3) == b"one"
        get(ports[0], "/listen?port=7070&on=0")
        with connect(port) as client:
            client.sendall(b"two")
            until(lambda: driver.counters("on and off").held)
            get(ports[0], "/listen?port=7070&on=1")
            assert read(client, 3) == b"two", "a refused client waits, and nothing that it said is lost"
        get(ports[0], "/listen?port=7070&on=0")
    assert others.failures == []


def test_a_slow_reader_harms_nobody(driver, ports):
    with Others(*ports, talkers=0) as others, connect(ports[0], window=4096) as slow:
        slow.sendall(b"GET /bytes/300000000 HTTP/1.1\r\nHost: x\r\n\r\n")
        driver.wait(Congested)
        for _ in range(20):
            get(ports[0], "/")
        # One of the others may have come before there was another tunnel, and have waited for too long.
        with contextlib.suppress(ConnectionResetError):
            assert read(slow, 1_000_000)
    assert others.failures == []


def test_an_upload_that_the_pod_does_not_read_harms_nobody_and_arrives(ports):
    size = 30_000_000
    with Others(*ports) as others, connect(ports[0]) as client:
        client.settimeout(60)
        client.sendall(b"POST /hold-body?ms=4000 HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % size)
        client.sendall(bytes(size))
        answer = b""
        while not answer.endswith(str(size).encode()):
            part = client.recv(1000)
            assert part, answer
            answer += part
    assert others.failures == []


def test_an_aborted_download_harms_nobody(ports):
    with Others(*ports) as others:
        for _ in range(3):
            with connect(ports[0]) as client:
                client.sendall(b"GET /bytes/1000000000 HTTP/1.1\r\nHost: x\r\n\r\n")
                read(client, 100_000)
    assert others.failures == []


def test_500_cancelled_requests_harm_nobody(driver, ports):
    with Others(*ports) as others:
        for number in range(500):
            client = connect(ports[0])
            client.sendall(b"GET /slow?ms=300 HTTP/1.1\r\nHost: x\r\n\r\n")
            reset(client) if number % 2 else client.close()
    assert others.failures == []
    until(lambda: driver.counters("http").open == 0, seconds=30)


def test_64_connections_at_once(ports):
    def talk(number):
        connection = http.client.HTTPConnection("127.0.0.1", ports[0], timeout=30)
        answers = []
        for _ in range(20):
            connection.request("GET", "/")
            answers.append(connection.getresponse().read())
        connection.close()
        return answers

    with ThreadPoolExecutor(64) as pool:
        assert {answer for answers in pool.map(talk, range(64)) for answer in answers} == {b"1 srv"}


def test_much_arrives_whole_both_ways(ports):
    """An echo of random bytes, read while they are written."""
    data = hashlib.shake_128(b"seed").digest(20_000_000)
    with connect(ports[1]) as client:
        client.settimeout(60)
        writer = threading.Thread(target=client.sendall, args=(data,))
        writer.start()
        heard = hashlib.sha256()
        left = len(data)
        while left:
            part = client.recv(1 << 16)
            assert part
            heard.update(part)
            left -= len(part)
        writer.join()
    assert heard.digest() == hashlib.sha256(data).digest()


def test_an_answer_to_a_half_closed_client_comes_when_it_comes_soon(ports):
    with connect(ports[1]) as client:
        client.sendall(b"last words")
        client.shutdown(socket.SHUT_WR)
        assert read(client, 10) == b"last words"

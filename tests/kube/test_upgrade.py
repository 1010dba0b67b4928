"""Opening a port-forward: which way is taken, what the socket is like, what each failure is called."""

from __future__ import annotations

import os
import socket
import ssl
import subprocess
import sys
import threading
import time
from contextlib import closing

import pytest
from tests.cluster.harness.certificates import write_kubeconfig
from tests.kube.objects import status
from tests.kube.scripted import Answer, ScriptedApi
from tests.kube.shapes import pod

from kecs.kube import sockets, upgrade
from kecs.kube.access import Access
from kecs.kube.errors import ApiError, PodGone, Unreachable
from kecs.kube.tls import TlsSocket
from kecs.kube.upgrade import open_portforward
from kecs.wire import portforward, websocket

PATH = "/api/v1/namespaces/default/pods/web/portforward"


@pytest.fixture(autouse=True)
def nothing_remembered(monkeypatch):
    monkeypatch.setattr(upgrade, "_worked", {})


@pytest.fixture
def pod_there(api):
    api.put(pod())
    api.backends[80] = "echo"


def opened(access, **options):
    return open_portforward(access, "default", "web", timeout=options.pop("timeout", 5), **options)


def echo(upgraded, words=b"hello"):
    """Send `words` through a forwarded connection to port 80; what comes back."""
    sock = upgraded.sock
    sock.settimeout(5)
    frames = websocket.Framing() if upgraded.framing == "websocket" else None
    client = portforward.Client()
    connection = client.open(80)
    client.send(connection, words)
    out = client.session.take()
    for piece in frames.wrap(out) if frames else out:
        sock.sendall(piece)
    heard = b""
    while len(heard) < len(words):
        data = sock.recv(65536)
        assert data, "the far end has closed"
        for piece in frames.receive(data) if frames else [data]:
            for _, what in client.receive(piece):
                assert isinstance(what, memoryview), what
                heard += what
    return heard


@pytest.mark.parametrize("over", ["spdy", "websocket"])
def test_bytes_go_through_an_opened_port_forward(api, access, pod_there, over):
    upgraded = opened(access, over=over)
    with upgraded.sock:
        assert (upgraded.framing, upgraded.rest) == (over, b"")
        assert echo(upgraded) == b"hello"


def test_the_agent_needs_no_http_client_for_it():
    program = (
        "import sys, kecs.kube.upgrade;"
        "heavy = {'httpx2', 'httpcore2', 'anyio', 'wsproto', 'lightkube'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert said.stdout == "[]\n"


def test_plain_spdy_is_the_first_choice(api, access, pod_there):
    with opened(access).sock:
        [request] = api.requests
    assert (request.method, request.path) == ("POST", PATH)
    assert request.headers["x-stream-protocol-version"] == "portforward.k8s.io"


def test_the_socket_is_ready_for_an_event_loop(api, access, pod_there):
    with opened(access).sock as sock:
        assert sock.gettimeout() == 0
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == sockets.IDLE
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == sockets.GIVE_UP


def test_where_spdy_is_refused_a_websocket_is_opened_and_remembered(api, access, pod_there):
    api.refused_upgrades = {"spdy"}
    for _ in range(2):
        upgraded = opened(access)
        with upgraded.sock:
            assert upgraded.framing == "websocket"
    assert [seen.method for seen in api.requests] == ["POST", "GET", "GET"]


def test_what_was_remembered_is_not_a_promise(api, access, pod_there):
    api.refused_upgrades = {"spdy"}
    opened(access).sock.close()
    api.refused_upgrades = {"websocket"}
    upgraded = opened(access)
    with upgraded.sock:
        assert upgraded.framing == "spdy"


@pytest.mark.parametrize(
    "answer",
    [
        Answer(drop="close"),
        Answer(drop="reset"),
        Answer(502, b"<h1>Bad Gateway</h1>"),
        Answer(404, b"no such page"),
        Answer(426, b"Upgrade Required"),
        Answer(400, status(400, "BadRequest", "Upgrade request required")),
        Answer(200, b"{}"),
    ],
    ids=lambda answer: answer.drop or str(answer.code),
)
def test_whatever_stands_between_and_does_not_pass_spdy_on_leads_to_a_websocket(
    api, access, pod_there, answer
):
    api.answer_next(answer, method="POST")
    upgraded = opened(access)
    with upgraded.sock:
        assert upgraded.framing == "websocket"


def test_an_upgrade_that_is_swallowed_leads_to_a_websocket_in_time_and_is_remembered(api, access, pod_there):
    api.answer_next(Answer(drop="swallow"), method="POST", times=9)
    began = time.monotonic()
    for _ in range(2):
        upgraded = opened(access, timeout=2)
        with upgraded.sock:
            assert upgraded.framing == "websocket"
    assert time.monotonic() - began < 2
    assert [seen.method for seen in api.requests] == ["POST", "GET", "GET"]


def test_a_remembered_way_that_is_swallowed_leaves_time_for_the_other(api, access, pod_there):
    api.refused_upgrades = {"spdy"}
    opened(access).sock.close()
    api.refused_upgrades = set()
    api.answer_next(Answer(drop="swallow"), method="GET")
    upgraded = opened(access, timeout=2)
    with upgraded.sock:
        assert upgraded.framing == "spdy"


def test_an_answer_may_take_all_the_time_when_no_other_way_is_left(api, access, pod_there):
    api.pause()
    threading.Timer(0.6, api.resume).start()
    with opened(access, over="spdy", timeout=1).sock:
        pass


def test_only_the_way_that_was_asked_for_is_tried(api, access, pod_there):
    api.refused_upgrades = {"spdy"}
    with pytest.raises(ApiError) as raised:
        opened(access, over="spdy")
    assert raised.value.status == 400
    assert len(api.requests) == 1


def test_both_ways_refused_is_an_error(api, access, pod_there):
    api.refused_upgrades = {"spdy", "websocket"}
    with pytest.raises(ApiError):
        opened(access)
    assert len(api.requests) == 2


@pytest.mark.parametrize("over", ["spdy", "websocket", "auto"])
def test_a_pod_that_does_not_exist_is_gone(api, access, over):
    with pytest.raises(PodGone, match='pods "web" not found'):
        opened(access, over=over)
    assert len(api.requests) == 1, "another way would not find it either"


def test_a_missing_right_is_told_at_once(api, access, pod_there):
    api.deny("create", "pods/portforward")
    with pytest.raises(ApiError) as raised:
        opened(access)
    assert raised.value.status == 403
    assert 'cannot create resource "pods/portforward"' in raised.value.message
    assert len(api.requests) == 1


def test_a_kubelet_that_is_away_is_the_servers_word(api, access, pod_there):
    api.answer_next(Answer(500, status(500, "InternalError", "error dialing backend")))
    with pytest.raises(ApiError, match="error dialing backend"):
        opened(access)
    assert len(api.requests) == 1


def test_an_expired_token_is_renewed_once(api, tmp_path):
    token = tmp_path / "token"
    token.write_text("old")
    api.put(pod())
    api.tokens = {"new"}
    access = Access.load(api.kubeconfig(tmp_path, {"tokenFile": str(token)}))
    access.headers()
    token.write_text("new")
    opened(access).sock.close()
    assert [seen.headers["authorization"] for seen in api.requests] == ["Bearer old", "Bearer new"]


def test_a_token_that_stays_wrong_is_refused(api, tmp_path):
    api.put(pod())
    api.tokens = {"right"}
    access = Access.load(api.kubeconfig(tmp_path, {"token": "wrong"}))
    with pytest.raises(ApiError) as raised:
        opened(access)
    assert raised.value.status == 401
    assert "does not accept the token in the kubeconfig" in str(raised.value)
    assert "wrong" not in str(raised.value)


def test_the_whole_has_one_deadline(api, access, pod_there):
    api.pause()
    began = time.monotonic()
    with pytest.raises(Unreachable, match="did not answer in time"):
        opened(access, timeout=0.2)
    assert time.monotonic() - began < 2
    api.resume()


def test_a_slow_handshake_counts_too(tls_api, authority, tmp_path):
    access = Access.load(tls_api.kubeconfig(tmp_path, authority=authority.pair.certificate))
    tls_api.hold_handshakes()
    with pytest.raises(Unreachable, match="did not answer in time"):
        opened(access, timeout=0.2)
    tls_api.release_handshakes()


@pytest.mark.parametrize("over", ["spdy", "websocket"])
def test_it_works_in_tls(tls_api, authority, tmp_path, over):
    tls_api.put(pod())
    tls_api.backends[80] = "echo"
    access = Access.load(tls_api.kubeconfig(tmp_path, authority=authority.pair.certificate))
    upgraded = opened(access, over=over)
    with closing(upgraded.sock):
        assert isinstance(upgraded.sock, TlsSocket)
        assert upgraded.sock.gettimeout() == 0
        words = os.urandom(100_000)
        assert echo(upgraded, words) == words


def test_nobody_listening_is_unreachable(api, access):
    api.stop()
    with pytest.raises(Unreachable, match="nothing listens"):
        opened(access)
    api.start()


class Speaker(threading.Thread):
    """A server that says something right behind its 101."""

    def __init__(self, context=None):
        super().__init__()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._context = context
        self.start()

    def run(self):
        sock, _ = self._listener.accept()
        if self._context is not None:
            sock = self._context.wrap_socket(sock, server_side=True)
        with sock, self._listener:
            while b"\r\n\r\n" not in sock.recv(65536):
                pass
            sock.sendall(
                b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n"
                b"X-Stream-Protocol-Version: portforward.k8s.io\r\n\r\nfirst bytes"
            )
            sock.recv(1)


@pytest.mark.parametrize("in_tls", [False, True])
def test_bytes_behind_the_answer_are_handed_over(tmp_path, authority, certificate, in_tls):
    context = None
    if in_tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate.certificate, certificate.key)
    speaker = Speaker(context)
    server = f"{'https' if in_tls else 'http'}://127.0.0.1:{speaker.port}"
    path = write_kubeconfig(tmp_path / "kubeconfig", server, authority.pair.certificate, {})
    upgraded = opened(Access.load(path))
    with closing(upgraded.sock):
        assert upgraded.rest == b"first bytes"
    speaker.join(5)


def test_a_server_below_a_path_is_asked_there(api, tmp_path):
    path = write_kubeconfig(tmp_path / "k", f"{api.url}/k8s/clusters/c-1", None, {})
    with pytest.raises(ApiError):
        opened(Access.load(path), over="spdy")
    assert api.requests[0].path == f"/k8s/clusters/c-1{PATH}"


def test_a_pod_is_found_by_its_name_whatever_it_holds(api, access):
    with pytest.raises(PodGone):
        open_portforward(access, "default", "a b", timeout=5)
    assert api.requests[0].path == "/api/v1/namespaces/default/pods/a%20b/portforward"


@pytest.fixture
def other_api(nothing_left):
    with ScriptedApi() as server:
        yield server


def test_what_is_remembered_is_remembered_for_one_server(api, other_api, access, tmp_path, pod_there):
    other_api.put(pod())
    (tmp_path / "other").mkdir()
    api.refused_upgrades = {"spdy"}
    opened(access).sock.close()
    upgraded = opened(Access.load(other_api.kubeconfig(tmp_path / "other")))
    with upgraded.sock:
        assert upgraded.framing == "spdy"

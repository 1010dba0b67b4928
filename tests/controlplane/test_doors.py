"""Who may call: not a web page, not another user, and with `require_key` only who has the key."""

import os
import socket
import subprocess
import sys
import types

import pytest

from kecs import procnet
from kecs.client.instance import Instance
from kecs.controlplane import doors
from kecs.controlplane.doors import Doors, Peer
from kecs.wire.awsjson import AwsJsonError

KEY = "AKIAKECSKECSKECS"
CALL = (
    b"POST / HTTP/1.1\r\nHost: localhost\r\nX-Amz-Target: AmazonEC2ContainerServiceV20141113.ListClusters\r\n"
    b"Content-Length: 2\r\n%b\r\n{}"
)
CLOSE = b"Connection: close\r\n"


def doors_of(**members):
    return Doors(
        Instance(
            name="n",
            id="i",
            region="eu-west-1",
            api_port=0,
            access_key_id=KEY,
            directory="/",
            created_at=0.0,
            **members,
        )
    )


def refused(check, *arguments):
    with pytest.raises(AwsJsonError) as caught:
        check(*arguments)
    assert caught.value.status == 403
    return caught.value.code, caught.value.message


def ask(api, data, host="127.0.0.1"):
    """Send one request that ends its connection; return the whole answer."""
    with api.connect(host) as connection, connection.makefile("rb") as file:
        connection.sendall(data)
        return file.read()


def status_of(api, extra=b"", host="127.0.0.1"):
    return int(ask(api, CALL % (CLOSE + extra), host).split()[1])


@pytest.mark.parametrize(
    "host",
    ["localhost", "LOCALHOST:5373", "127.0.0.1", "127.0.0.1:1", "[::1]", "[::1]:65535", "ecs.localhost:80"],
)
def test_the_names_of_this_machine_are_welcome(host):
    """With or without a port, in any case; names below `localhost` lead here too (RFC 6761, 6.3)."""
    doors_of().refuse_web_pages({"host": host})


@pytest.mark.parametrize(
    "host",
    [
        "", "evil.example", "evil.example:5373", "localhost.evil.example", "evil-localhost",
        "127.0.0.1.nip.io", "127.0.0.1@evil.example", "localhost:80:80", "localhost:", "localhost:x",
        "[::1].evil.example", "::1", "0.0.0.0", "192.168.1.5", "a..localhost", ".localhost", "localhost\n",
    ],
)  # fmt: skip
def test_a_foreign_host_is_refused(host):
    """What DNS rebinding would send: a name of somebody else that leads to 127.0.0.1."""
    assert refused(doors_of().refuse_web_pages, {"host": host})[0] == "AccessDeniedException"


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://localhost:5373", ""])
def test_any_origin_is_refused(origin):
    """A browser says where a page is from; no SDK and no CLI has an Origin."""
    code, message = refused(doors_of().refuse_web_pages, {"host": "localhost", "origin": origin})

    assert code == "AccessDeniedException"
    assert "web pages" in message


def test_the_api_answers_403_to_web_pages(api):
    """At the real door, for a call and for a browser's preflight alike."""
    assert status_of(api) == 200
    assert status_of(api, b"Origin: http://localhost\r\n") == 403
    preflight = b"OPTIONS / HTTP/1.1\r\nHost: localhost\r\nOrigin: http://evil.example\r\n%b\r\n"
    assert ask(api, preflight % CLOSE).startswith(b"HTTP/1.1 403")
    answer = ask(api, b"GET / HTTP/1.1\r\nHost: evil.example\r\n%b\r\n" % CLOSE)
    assert answer.startswith(b"HTTP/1.1 403")
    assert b'"__type":"AccessDeniedException"' in answer


CHILD = """
import os, socket, sys
os.setgid(65534)
os.setuid(65534)
family, host, port, data = sys.argv[1:]
with socket.socket(int(family)) as connection:
    connection.settimeout(20)
    connection.connect((host, int(port)) if port else host)
    try:
        connection.sendall(data.encode())
        while piece := connection.recv(65536):
            sys.stdout.write(piece.decode())
    except (ConnectionResetError, BrokenPipeError):
        pass
"""


def as_nobody(family, host, port, data):
    # -I -S: nobody's own Python must not read what only root may.
    command = [sys.executable, "-I", "-S", "-c", CHILD, str(int(family)), host, port, data]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout


@pytest.mark.skipif(os.getuid() != 0, reason="needs root to become another user")
@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "::ffff:127.0.0.1"])
def test_another_user_of_this_machine_is_refused(api, host):
    """A process of uid 65534 gets 403, over IPv4, IPv6 and IPv4 on an IPv6 socket."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    answer = as_nobody(family, host, str(api.port), (CALL % CLOSE).decode())

    assert answer.startswith("HTTP/1.1 403")
    assert "other users of this machine (uid 65534)" in answer


@pytest.mark.skipif(os.getuid() != 0, reason="needs root to become another user")
def test_another_user_does_not_reach_the_admin_application(api):
    """Even where the socket's folder would let it in, the connection ends without an answer."""
    api.folder.chmod(0o755)
    api.admin_path.chmod(0o777)
    answer = as_nobody(socket.AF_UNIX, str(api.admin_path), "", "GET /_kecs/x HTTP/1.1\r\nHost: k\r\n\r\n")

    assert answer == ""
    assert api.admin_requests == []


def row(uid, inode=5):
    return procnet.Socket(("127.0.0.1", 1), ("127.0.0.1", 2), procnet.ESTABLISHED, uid, inode)


@pytest.mark.parametrize(
    ("found", "why"),
    [
        (row(os.getuid()), None),
        (row(0), None),
        (row(os.getuid() + 1), f"uid {os.getuid() + 1}"),
        (None, "cannot be told"),
        (row(0, inode=0), "cannot be told"),
    ],
    ids=["ours", "root", "another", "no entry", "closed already"],
)
def test_the_kernel_decides_once_for_each_connection(monkeypatch, found, why):
    """Ours and root pass; another, none, and one whose uid 0 only means that it closed, do not."""
    asked = []
    monkeypatch.setattr(procnet, "tcp_socket", lambda *ends: asked.append(ends) or found)
    monkeypatch.setattr(doors.sys, "platform", "linux")
    peer = Peer(("127.0.0.1", 1), ("127.0.0.1", 2))

    for _ in range(2):
        if why is None:
            doors_of().refuse_other_users(peer)
        else:
            code, message = refused(doors_of().refuse_other_users, peer)
            assert code == "AccessDeniedException"
            assert why in message
    assert asked == [(("127.0.0.1", 1), ("127.0.0.1", 2))]


def test_a_connection_is_looked_up_once_by_the_server(api, monkeypatch):
    """Requests on a kept connection do not read /proc again."""
    asked = []
    look = procnet.tcp_socket
    monkeypatch.setattr(procnet, "tcp_socket", lambda *ends: asked.append(ends) or look(*ends))

    for _ in range(2):
        with api.connect() as connection, connection.makefile("rb") as file:
            connection.sendall(CALL % b"" + CALL % b"" + CALL % CLOSE)
            assert file.read().count(b"HTTP/1.1 200") == 3
    assert len(asked) == 2


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_client_that_closed_before_it_was_looked_at_is_refused(host):
    """The kernel has no owner for such a socket: its row says uid 0, inode 0, or is gone."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as listener:
        listener.bind((host, 0))
        listener.listen()
        client = socket.create_connection(listener.getsockname()[:2])
        server, _ = listener.accept()
        with server:
            ends = (server.getpeername(), server.getsockname())
            assert Peer(*ends).refusal() is None
            client.close()
            assert "cannot be told" in Peer(*ends).refusal()


def test_with_require_key_only_the_instances_key_is_taken(start_api):
    """Another key and no key are refused; the error names the command that helps."""
    api = start_api(require_key=True)

    assert api.client(key=KEY).list_clusters()["clusterArns"] == []
    other = api.client(key="AKIAOTHER")
    with pytest.raises(other.exceptions.ClientError, match="kecs env") as caught:
        other.list_clusters()
    assert caught.value.response["Error"]["Code"] == "UnrecognizedClientException"
    assert status_of(api) == 403


@pytest.mark.parametrize(
    "peer",
    [Peer(("10.0.0.5", 1), ("10.0.0.1", 2)), Peer(None, None), Peer("", "/run/x.sock")],
    ids=["another machine", "unknown", "unix"],
)
def test_where_the_user_is_not_told_the_key_decides(peer):
    """Over anything but loopback no uid is known, whatever the platform."""
    check = doors_of().refuse_other_keys
    doors_of().refuse_other_users(peer)

    check(peer, KEY)
    assert refused(check, peer, None)[0] == "MissingAuthenticationTokenException"
    assert refused(check, peer, "AKIA")[0] == "UnrecognizedClientException"
    assert refused(check, peer, "é")[0] == "UnrecognizedClientException"


def test_on_other_platforms_the_key_decides(monkeypatch):
    """macOS has no /proc: a loopback peer needs the key there."""
    monkeypatch.setattr(doors, "sys", types.SimpleNamespace(platform="darwin"))
    peer = Peer(("127.0.0.1", 1), ("127.0.0.1", 2))

    doors_of().refuse_other_users(peer)
    doors_of().refuse_other_keys(peer, KEY)
    assert refused(doors_of().refuse_other_keys, peer, "AKIA")[0] == "UnrecognizedClientException"


def test_a_row_is_found_among_those_of_the_kernel():
    """The fast search finds the same row as reading all of them."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()) as client,
    ):
        ends = (client.getsockname(), client.getpeername())
        found = procnet.tcp_socket(*ends)

        assert found == next(row for row in procnet.tcp_sockets() if (row.local, row.remote) == ends)
        assert found.uid == os.getuid()
        assert found.inode == os.fstat(client.fileno()).st_ino
        assert procnet.tcp_socket(ends[0], ("127.0.0.1", 1)) is None
        assert procnet.tcp_socket(("nonsense", 1), ends[1]) is None

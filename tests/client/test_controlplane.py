"""The synchronous client of the control plane, against a socket that answers by script."""

from __future__ import annotations

import json
import socket

import pytest
from tests.client.fakes import Script

from kecs.client.agent import NotRunning, WentAway
from kecs.client.controlplane import ControlPlaneClient
from kecs.errors import ExitCode, KecsError

PS = {"services": [], "tasks": []}


def answering(data: bytes, heard: list[bytes] | None = None):
    def answer(connection: socket.socket) -> None:
        request = connection.recv(65536)
        if heard is not None:
            heard.append(request)
        for at in range(0, len(data), 5):  # read in pieces
            connection.sendall(data[at : at + 5])

    return answer


def whole(document: object, status: str = "200 OK") -> bytes:
    body = json.dumps(document).encode()
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def chunked(*parts: bytes, end: bool = True) -> bytes:
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts)
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks + (b"0\r\n\r\n" if end else b"")


def test_a_get_asks_on_the_socket_and_reads_the_type(home):
    heard: list[bytes] = []
    with Script(home.paths.controlplane_socket, answering(whole(PS), heard)):
        answer = ControlPlaneClient(home.paths).ps(stopped=True)

    assert (answer.services, answer.tasks) == ([], [])
    assert heard[0].startswith(b"GET /_kecs/ps?stopped=1 HTTP/1.1\r\n")
    assert b"\r\nhost: localhost\r\n" in heard[0].lower()


def test_names_are_quoted_in_the_query(home):
    heard: list[bytes] = []
    document = {"title": "t", "facts": [], "withoutEffect": [], "advice": []}
    with Script(home.paths.controlplane_socket, answering(whole(document), heard)):
        ControlPlaneClient(home.paths).explain("service", "a b", "x&y=z")

    assert heard[0].split()[1] == b"/_kecs/explain?type=service&cluster=a+b&name=x%26y%3Dz"


def test_a_refusal_is_raised_with_its_words_hint_and_exit_code(home):
    refusal = {"message": "there is no service", "hint": "see ps", "exitCode": 3}
    with (
        Script(home.paths.controlplane_socket, answering(whole(refusal, "404 Not Found"))),
        pytest.raises(KecsError) as caught,
    ):
        ControlPlaneClient(home.paths).status()

    assert (caught.value.message, caught.value.hint) == ("there is no service", "see ps")
    assert caught.value.exit_code == ExitCode.NOT_FOUND


def test_lines_come_whole_however_they_are_cut(home):
    parts = (
        b'{"taskId": "0", "container": "web", "te',
        b'xt": "one"}\n{"taskId": "0", "container": "web", "text"',
        (b': "two"}\n'),
    )
    with Script(home.paths.controlplane_socket, answering(chunked(*parts))):
        lines = list(ControlPlaneClient(home.paths).logs("default", "web"))

    assert [line.text for line in lines] == ["one", "two"]


def test_shutdown_ends_with_the_line_that_is_done(home):
    heard: list[bytes] = []
    data = chunked(b'{"text": "ending 2 tasks"}\n', b'{"text": "", "done": true}\n', end=False)
    with Script(home.paths.controlplane_socket, answering(data, heard)):
        lines = list(ControlPlaneClient(home.paths).shutdown())

    assert [line.text for line in lines] == ["ending 2 tasks", ""]
    assert heard[0].startswith(b"POST /_kecs/shutdown ")


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"HTTP/1.1 200 OK\r\n", id="half a head"),
        pytest.param(whole(PS)[:-1], id="all but one byte"),
        pytest.param(chunked(b'{"services": [], ', end=False), id="a cut chunk"),
        pytest.param(b"hello\r\n\r\n", id="no HTTP"),
    ],
)
def test_a_cut_answer_is_never_taken_for_a_whole_one(home, data):
    with Script(home.paths.controlplane_socket, answering(data)), pytest.raises(WentAway):
        ControlPlaneClient(home.paths).ps()


def test_a_shutdown_that_ends_without_its_last_line_went_away(home):
    with (
        Script(home.paths.controlplane_socket, answering(chunked(b'{"text": "ending"}\n'))),
        pytest.raises(WentAway),
    ):
        list(ControlPlaneClient(home.paths).shutdown())


@pytest.mark.parametrize("data", [whole({"what": 1}), whole("x"), whole({"x": 1}, "500 Oh")])
def test_an_answer_of_another_version_says_so(home, data):
    with Script(home.paths.controlplane_socket, answering(data)), pytest.raises(KecsError) as caught:
        ControlPlaneClient(home.paths).status()
    assert "kecs stop" in caught.value.hint


def test_nobody_listening_is_not_running(home):
    with pytest.raises(NotRunning, match="control plane"):
        ControlPlaneClient(home.paths).status()


def test_one_that_does_not_answer_is_unreachable(home):
    def silent(connection: socket.socket) -> None:
        while connection.recv(65536):
            pass

    with (
        Script(home.paths.controlplane_socket, silent),
        pytest.raises(KecsError, match="does not answer") as caught,
    ):
        ControlPlaneClient(home.paths, timeout=0.05).status()
    assert caught.value.exit_code == ExitCode.UNREACHABLE

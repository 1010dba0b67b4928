"""Services by their names on one port, with the real runtime: HTTP, WebSockets, rolls, what is shown."""

from __future__ import annotations

import http.client
import socket
import sys

from tests.process.harness import PRIVATE, SERVERS, Home, until
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, Request, TextMessage


def names_port(home: Home) -> int:
    return home.json("status")["agentStatus"]["namesPort"]


def get(port: int, host: str, path: str = "/") -> tuple[int, bytes]:
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        client.request("GET", path, headers={"Host": f"{host}:{port}"})
        answer = client.getresponse()
        return answer.status, answer.read()
    finally:
        client.close()


def test_services_answer_by_name_whatever_http_they_speak_and_commands_say_so(running: Home):
    running.register()
    running.service()
    running.service("hidden", count=0, networkConfiguration=PRIVATE)
    running.stable()
    started = running.run("port-forward", "start", "service", "default/web", "--names")
    port = names_port(running)
    assert f"http://web.localhost:{port}/" in started.stdout
    tasks = {arn.rpartition("/")[2] for arn in running.arns()}

    status, body = get(port, "web.localhost")
    assert (status, body.split()[1].decode() in tasks) == (200, True)
    assert get(port, "WEB.default.localhost")[0] == 200
    status, body = get(port, "hidden.localhost")
    assert (status, f"http://web.localhost:{port}/".encode() in body) == (404, True)
    assert b"hidden.localhost:" not in body
    assert len(get(port, "web.localhost", "/big")[1]) == 64 * 1024 * 1024

    kept = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    answers = set()
    for _ in range(5):
        kept.request("GET", "/", headers={"Host": "web.localhost"})
        answers.add(kept.getresponse().read())
    kept.close()
    assert len(answers) == 1, "one connection is one task's"

    with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
        upload = bytes(3_000_000)
        client.sendall(b"POST /count HTTP/1.0\r\nHost: web.localhost\r\n\r\n" + upload)
        client.shutdown(socket.SHUT_WR)
        answer = b"".join(iter(lambda: client.recv(65536), b""))
    assert answer.endswith(b"3000000")

    shown = running.json("ps")["services"]
    assert {one["service"]: one["url"] for one in shown} == {
        "web": f"http://web.localhost:{port}/",
        "hidden": None,
    }
    assert f"http://web.localhost:{port}/" in running.run("ps").stdout
    assert f"http://SERVICE.CLUSTER.localhost:{port}/" in running.run("status").stdout


def test_a_roll_by_name_fails_no_request_and_the_port_survives_both_daemons(running: Home):
    running.register()
    running.service()
    running.stable()
    running.run("port-forward", "start", "service", "default/web", "--names")
    port = names_port(running)
    for daemon in ("agent", "controlplane"):
        running.kill(daemon)
        until(lambda: _serves(port), "names are served again on the same port", seconds=30)
    assert names_port(running) == port
    before = running.arns()
    running.aws().update_service(service="web", forceNewDeployment=True)
    while running.arns() & before:
        assert get(port, "web.localhost")[0] == 200
    running.stable()


def _serves(port: int) -> bool:
    try:
        return get(port, "web.localhost")[0] == 200
    except (OSError, http.client.HTTPException):
        return False


def test_a_websocket_by_name(running: Home):
    running.register(container={"command": [sys.executable, str(SERVERS / "websocket.py")]})
    running.service(count=1)
    running.stable()
    running.run("port-forward", "start", "service", "default/web", "--names")
    port = names_port(running)
    client = WSConnection(ConnectionType.CLIENT)
    with socket.create_connection(("127.0.0.1", port), timeout=20) as sock:
        sock.sendall(client.send(Request(host=f"web.localhost:{port}", target="/")))
        assert isinstance(_next(sock, client), AcceptConnection)
        for word in ("one", "two"):
            sock.sendall(client.send(TextMessage(word)))
            said = _next(sock, client)
            assert isinstance(said, TextMessage)
            assert said.data == f"{word.upper()} web.localhost:{port}"


def _next(sock: socket.socket, client: WSConnection) -> object:
    while True:
        for event in client.events():
            return event
        client.receive_data(sock.recv(65536))


CALLS = """
import os, time, urllib.error, urllib.request
url = os.environ["KECS_URL_WEB"]
for attempt in range(200):  # the first task that needs it has the agent started
    try:
        print(url, urllib.request.urlopen(url).read().decode().split()[1], flush=True)
        break
    except urllib.error.URLError:
        time.sleep(0.05)
"""


def test_a_task_finds_a_service_by_its_variable_and_nothing_has_to_be_started_for_it(running: Home):
    running.register()
    running.register("caller", container={"command": [sys.executable, "-c", CALLS], "portMappings": []})
    running.service()
    running.stable()
    aws = running.aws()

    def called() -> list[str]:
        (task,) = aws.run_task(taskDefinition="caller", networkConfiguration=PRIVATE)["tasks"]
        identity = task["taskArn"].rpartition("/")[2]
        return until(
            lambda: running.run("logs", identity, code=None).stdout.split()[-2:], "it has called", seconds=30
        )

    url, answered = called()
    assert url.startswith("http://127.0.0.1:")
    assert answered in {arn.rpartition("/")[2] for arn in running.arns()}
    assert running.forwards() == []

    aws.update_service(service="web", forceNewDeployment=True)
    running.stable()
    assert called()[0] == url, "kept for the service's life"

"""A whole agent in this process, with real tasks and a scripted control plane: probes, notices, a sleep."""

from __future__ import annotations

import asyncio
import functools
import http.server
import shutil
import socket
import threading

import pytest
from tests.agent.scripted import ScriptedControlPlane, until
from tests.agent.shapes import A, B, make_instance, port, service, short_home, task, wanted
from tests.agent.test_channels import Hook
from tests.agent.test_daemon import serve, unsupervised  # noqa: F401 - a fixture

from kecs.agent import daemon, notify
from kecs.client.agent import AgentClient
from kecs.client.rpc_types import StartRequest, StopRequest
from kecs.client.wake import Wake
from kecs.forward.spec import Notify, Probe


class HealthyTask:
    """A task that serves its name, and a status for /healthz that a test sets."""

    def __init__(self, name):
        self.status = 200
        it = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                body = name.encode()
                self.send_response(it.status if self.path == "/healthz" else 200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    def close(self):
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def get(number):
    """Return who answers on a new connection."""
    with socket.create_connection(("127.0.0.1", number), timeout=10) as sock:
        sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
        return sock.makefile("rb").read().rpartition(b"\r\n\r\n")[2].decode()


class Stage:
    """An agent, and what a test does to it from a thread of its own."""

    def __init__(self, paths, controlplane):
        self.paths = paths
        self.controlplane = controlplane
        self.tasks = {}

    def task(self, name):
        self.tasks[name] = HealthyTask(name)
        return self.tasks[name]

    def start(self, **members):
        with AgentClient(self.paths) as client:
            request = StartRequest(forwards=[wanted(**members)], wait=10)
            return client.start(request).forwards[0].forward

    def row(self):
        with AgentClient(self.paths) as client:
            return client.get("prod-web")

    def until(self, condition, what):
        return until(lambda: condition(self.row()) and self.row(), what)


@pytest.fixture
def play(unsupervised):  # noqa: F811
    home = short_home()
    paths = make_instance(home)
    stage = Stage(paths, ScriptedControlPlane(paths.controlplane_socket))

    def run(scene):
        failures = []

        def act():
            try:
                scene(stage)
            except BaseException as error:  # it is the test's, on another thread
                failures.append(error)
            finally:
                with AgentClient(paths) as client:
                    client.shutdown()

        assert serve(paths, act) == 0
        if failures:
            raise failures[0]

    yield run
    for one in stage.tasks.values():
        one.close()
    stage.controlplane.close()
    shutil.rmtree(home)


def test_a_task_that_fails_its_probe_gets_no_connection_until_it_is_well(play):
    def scene(stage):
        well, ill = stage.task("well"), stage.task("ill")
        stage.controlplane.publish(service(task(A, port(80, well.port)), task(B, port(80, ill.port))))
        number = stage.start(probe=Probe(type="http", path="/healthz", interval=0.1, failures=2)).local_port
        assert {get(number) for _ in range(4)} == {"well", "ill"}

        ill.status = 503
        row = stage.until(lambda row: row.reason, "the probe has failed")
        assert (row.state, row.reason) == (
            "ACTIVE",
            "1 of 2 tasks fails its probe: GET /healthz answered 503",
        )
        assert {one.task_id: (one.ready, one.failing) for one in row.endpoints} == {
            A: (True, None),
            B: (False, "GET /healthz answered 503"),
        }
        assert {get(number) for _ in range(10)} == {"well"}

        ill.status = 200
        stage.until(lambda row: row.reason is None, "it is back")
        assert {get(number) for _ in range(4)} == {"well", "ill"}

    play(scene)


def test_while_all_fail_a_connection_is_held_and_served_by_the_first_that_is_well(play):
    def scene(stage):
        only = stage.task("only")
        stage.controlplane.publish(service(task(A, port(80, only.port))))
        number = stage.start(probe=Probe(type="http", path="/healthz", interval=0.1, failures=1)).local_port
        only.status = 500
        row = stage.until(lambda row: row.state == "WAITING", "it waits")
        assert row.reason == "its only task fails its probe: GET /healthz answered 500"
        with socket.create_connection(("127.0.0.1", number), timeout=10) as sock:
            sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
            stage.until(lambda row: row.connections.held == 1, "it is held")
            only.status = 200
            assert sock.makefile("rb").read().endswith(b"only")

    play(scene)


def test_a_planned_stop_of_a_task_that_fails_its_probe_is_answered(play):
    """What drains is the relay loop's to say, whether a probe took it out before or not."""

    def scene(stage):
        ill, well = stage.task("ill"), stage.task("well")
        both = [task(A, port(80, ill.port)), task(B, port(80, well.port))]
        stage.controlplane.publish(service(*both))
        row = stage.start(probe=Probe(type="http", path="/healthz", interval=0.1, failures=1))
        ill.status = 500
        stage.until(lambda row: row.reason, "the probe has failed")
        leaving = task(A, port(80, ill.port, draining=True), status="DEACTIVATING")
        version = stage.controlplane.publish(service(leaving, both[1]))
        until(lambda: ("drained", A) in stage.controlplane.posts, "it is drained")
        assert ("seen", version) in stage.controlplane.posts
        assert get(row.local_port) == "well"

    play(scene)


def test_a_flapping_task_is_told_of_once_in_a_window_with_a_count_of_the_rest(play, monkeypatch):
    monkeypatch.setattr(notify, "PATIENCE", 0.05)
    monkeypatch.setattr(notify, "WINDOW", 2.0)

    def scene(stage):
        only = stage.task("only")
        up, down = service(task(A, port(80, only.port))), service(task(A, port(80), status="PENDING"))
        stage.controlplane.publish(up)
        with Hook(200) as hook:
            stage.start(notify=Notify(webhook=hook.url))
            for _ in range(6):
                stage.controlplane.publish(down)
                stage.until(lambda row: row.state == "WAITING", "it is down")
                threading.Event().wait(0.1)  # longer than PATIENCE: each is an interruption
                stage.controlplane.publish(up)
                stage.until(lambda row: row.state == "ACTIVE", "it is up")
            told = [event for _, _, event in until(lambda: hook.got[2:] and hook.got, "the window has ended")]
        assert [(one["event"], one["leftOut"]) for one in told] == [
            ("reconnecting", 0),
            ("reconnected", 0),
            ("reconnected", 5),
        ]
        assert told[0]["forward"] == "prod-web"
        assert told[0]["reason"] == "no task of prod/web is ready (1 PENDING)"

    play(scene)


def test_what_is_stopped_by_a_person_is_no_news(play, monkeypatch):
    monkeypatch.setattr(notify, "PATIENCE", 0.0)

    def scene(stage):
        only = stage.task("only")
        stage.controlplane.publish(service(task(A, port(80, only.port))))
        with Hook(200) as hook:
            stage.start(notify=Notify(webhook=hook.url))
            with AgentClient(stage.paths) as client:
                client.stop(StopRequest(forwards=["prod-web"]))
            stage.start(notify=Notify(webhook=hook.url), name="prod-web")
            stage.controlplane.publish(service(task(A, port(80), status="PENDING")))
            until(lambda: hook.got, "the other one is told of")
            assert [event["event"] for _, _, event in hook.got] == ["reconnecting"]

    play(scene)


def test_after_a_sleep_everything_is_checked_at_once(play, monkeypatch):
    slept = [0.0]
    monkeypatch.setattr(
        daemon,
        "Wake",
        functools.partial(Wake, asleep=lambda: slept[0], pause=lambda _seconds: asyncio.sleep(0.01)),
    )

    def scene(stage):
        only = stage.task("only")
        stage.controlplane.publish(service(task(A, port(80, only.port))))
        number = stage.start(
            probe=Probe(type="http", path="/healthz", interval=3600.0, failures=1)
        ).local_port
        until(lambda: stage.row().state == "ACTIVE", "it serves")
        asked = len(stage.controlplane.requests)
        only.status = 500
        slept[0] += 3600.0
        row = stage.until(lambda row: row.state == "WAITING", "it was probed although an hour is not over")
        assert row.reason == "its only task fails its probe: GET /healthz answered 500"
        until(lambda: len(stage.controlplane.requests) > asked, "the endpoints of now are asked for")
        only.status = 200
        slept[0] += 3600.0
        stage.until(lambda row: row.state == "ACTIVE", "it was probed again")
        assert get(number) == "only"

    play(scene)

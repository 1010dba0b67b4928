"""How an event reaches a person: real commands, and a real HTTP server on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import http.server
import json
import os
import sys
import threading
from pathlib import Path

import pytest
from tests.agent.scripted import until
from tests.agent.shapes import entry
from tests.sockets import free_port

from kecs.agent import channels
from kecs.agent.notify import Notice, event_of
from kecs.forward.machine import State

EVENT = event_of(
    Notice("reconnecting", State.WAITING, "no task of prod/web is ready"),
    entry(),
    instance="default",
    time=1700000000.0,
)
JSON = {
    "event": "reconnecting",
    "time": 1700000000.0,
    "instance": "default",
    "forward": "prod-web",
    "id": "pf-00000001",
    "target": "prod/web:80",
    "localPort": 20001,
    "state": "WAITING",
    "reason": "no task of prod/web is ready",
    "seconds": None,
    "leftOut": 0,
    "text": "prod/web:80 on port 20001 is waited for: no task of prod/web is ready",
}


def run(code, folder, *arguments):
    command = [sys.executable, "-c", code, *arguments]
    return asyncio.run(channels.command(command, EVENT, folder))


def test_a_command_gets_the_event_as_a_line_of_json_and_runs_in_its_folder(tmp_path):
    outcome = run("import sys; open(sys.argv[1], 'w').write(sys.stdin.read())", tmp_path, "event")

    assert outcome == channels.Outcome(None)
    text = (tmp_path / "event").read_text()
    assert json.loads(text) == JSON
    assert text.endswith("}\n")


def test_what_a_command_says_is_kept_and_so_is_its_exit_code(tmp_path):
    code = "import sys; print('to out'); print('to err', file=sys.stderr); sys.exit(7)"

    assert run(code.replace("print('to out')", "print('to out', flush=True)"), tmp_path) == channels.Outcome(
        "it ended with 7", "to out\nto err"
    )


def test_a_command_that_floods_or_does_not_read_harms_nobody(tmp_path):
    error, said = run("print('x' * 10_000_000)", tmp_path)

    assert error is None
    assert said == "x" * channels.SAID


def test_a_command_that_hangs_is_ended_with_all_that_it_started(tmp_path, monkeypatch):
    monkeypatch.setattr(channels, "COMMAND", 1.0)
    code = """
import subprocess, sys
child = subprocess.Popen(["sleep", "1000"])
open("pid", "w").write(str(child.pid))
print("begun", flush=True)
child.wait()
"""
    outcome = run(code, tmp_path)

    assert outcome == channels.Outcome("it took longer than 1 s", "begun")
    child = int((tmp_path / "pid").read_text())
    until(lambda: not is_alive(child), "its child is gone")


def is_alive(pid):
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False


def test_a_child_that_goes_on_is_not_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr(channels, "COMMAND", 60.0)
    code = 'import subprocess; print(subprocess.Popen(["sleep", "1000"]).pid)'

    error, said = run(code, tmp_path)

    os.kill(int(said), 9)
    assert error is None


def test_a_command_that_is_not_there_is_an_error_that_names_it(tmp_path):
    error, _ = asyncio.run(channels.command(["./no-such-thing"], EVENT, tmp_path))

    assert error == "`./no-such-thing` cannot be started: No such file or directory"


class Hook:
    """A webhook that answers what it is told to, in order; the last answer for ever."""

    def __init__(self, *statuses):
        self.got = []
        hook = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                hook.got.append((self.path, self.headers["Content-Type"], json.loads(body)))
                status = statuses[min(len(hook.got), len(statuses)) - 1]
                if status is None:
                    hook.release.wait(10)
                    return
                self.send_response(status)
                self.end_headers()

            def log_message(self, *_):
                pass

        self.release = threading.Event()
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/hook"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.release.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(channels, "TRIES", (0.0, 0.01, 0.01))


def test_a_webhook_is_posted_the_event_whatever_proxy_is_set(monkeypatch, quick):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    with Hook(204) as hook:
        outcome = asyncio.run(channels.webhook(hook.url, EVENT))

    assert outcome == channels.Outcome(None)
    assert hook.got == [("/hook", "application/json", JSON)]


def test_a_webhook_is_tried_again(quick):
    with Hook(503, 200) as hook:
        assert asyncio.run(channels.webhook(hook.url, EVENT)) == channels.Outcome(None)

    assert len(hook.got) == 2


def test_a_webhook_that_refuses_is_given_up_with_its_answer(quick):
    with Hook(500) as hook:
        assert asyncio.run(channels.webhook(hook.url, EVENT)) == channels.Outcome("it answered 500")

    assert len(hook.got) == 3


def test_a_webhook_that_hangs_has_a_limit(monkeypatch):
    monkeypatch.setattr(channels, "TRIES", (0.0,))
    monkeypatch.setattr(channels, "WEBHOOK", 0.3)
    with Hook(None) as hook:
        outcome = asyncio.run(channels.webhook(hook.url, EVENT))

    assert outcome.error == "it did not answer within 0.3 s"
    assert len(hook.got) == 1


def test_a_webhook_where_nobody_is(quick):
    outcome = asyncio.run(channels.webhook(f"http://127.0.0.1:{free_port()}/", EVENT))

    assert outcome.error


@pytest.mark.parametrize(
    ("url", "here"),
    [
        ("http://127.0.0.1:1/", True),
        ("http://[::1]:1/", True),
        ("http://localhost/", True),
        ("http://hooks.localhost/", True),
        ("https://hooks.example.com/", False),
        ("http://10.0.0.1/", False),
        ("http://[x", False),
    ],
)
def test_only_this_machine_is_reached_past_the_proxies_of_the_environment(url, here):
    assert channels._is_here(url) is here

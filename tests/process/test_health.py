"""Probes and notifications of a team's file, with the real command, daemons and tasks."""

from __future__ import annotations

import json
import sys
import urllib.request

from tests.process.harness import until

SERVER = """
import http.server, os, pathlib
me = os.environ["KECS_TASK_ARN"].rpartition("/")[2]
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        ill = self.path == "/healthz" and pathlib.Path(os.environ["ILL"], me).exists()
        self.send_response(503 if ill else 200)
        self.end_headers()
        self.wfile.write(me.encode())
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""
FILE = """
version: "1"
forwards:
  - name: web
    type: service
    service: web
    targetPort: http
    probe: {type: http, path: /healthz, interval: 0.2, failures: 2}
    notify:
      command: [PYTHON, ./told.py]
"""
TOLD = """
import pathlib, sys
with pathlib.Path("told").open("a") as file:
    file.write(sys.stdin.read())
print("written")
"""


def ask(port):
    """Return the id of the task that answers on a new connection."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10) as answer:
        return answer.read().decode()


def test_a_task_that_fails_its_probe_is_out_and_a_program_hears_of_what_is_interrupted(running):
    ill, team = running.path / "ill", running.path / "team"
    ill.mkdir()
    team.mkdir()
    (team / "told.py").write_text(TOLD)
    (team / "port-forward.yaml").write_text(FILE.replace("PYTHON", json.dumps(sys.executable)))
    running.register(
        container={"command": [sys.executable, "-c", SERVER]},
        environment=[{"name": "ILL", "value": str(ill)}],
    )
    running.service()
    running.stable()
    running.run("port-forward", "run", "--config", str(team / "port-forward.yaml"), "--wait", "20")

    def row():
        (only,) = running.json("port-forward", "list")
        return only

    port = row()["localPort"]
    both = until(lambda: (seen := {ask(port) for _ in range(4)}) and len(seen) == 2 and seen, "both answer")
    sick, well = sorted(both)

    (ill / sick).touch()
    shown = until(lambda: (one := row())["reason"] and one, "the probe has failed")
    assert (shown["state"], shown["reason"]) == (
        "ACTIVE",
        "1 of 2 tasks fails its probe: GET /healthz answered 503",
    )
    assert {ask(port) for _ in range(10)} == {well}

    (ill / well).touch()
    until(lambda: row()["state"] == "WAITING", "none is well")
    told = team / "told"
    until(told.exists, "the program has heard of it")
    (ill / sick).unlink()
    (ill / well).unlink()
    until(lambda: row()["reason"] is None, "both are back")
    until(lambda: len(told.read_text().splitlines()) == 2, "the program has heard of that too")
    lost, back = map(json.loads, told.read_text().splitlines())

    assert [lost["event"], back["event"]] == ["reconnecting", "reconnected"]
    assert lost["reason"] == "2 of 2 tasks fail their probe: GET /healthz answered 503"
    assert (lost["forward"], lost["target"], lost["localPort"]) == ("web", "default/web:http", port)
    assert back["seconds"] >= 2

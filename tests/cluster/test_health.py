"""Probes on a real cluster: each pod is asked through its tunnel, and node ports are left while one fails."""

from __future__ import annotations

import http.client

from tests.cluster import service
from tests.process.harness import until

FILE = """
version: "1"
defaults:
  probe: {type: http, path: /health, interval: 0.3, failures: 2}
forwards:
  - {name: both-ways, type: service, service: web, targetPort: 8080}
  - {name: by-tunnel, type: service, service: web, targetPort: 8080, route: tunnel}
"""
BAD = "GET /health answered 503"


class Pinned:
    """One connection, so that the same task answers all that is asked on it."""

    def __init__(self, port):
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        self.who = self.get("/")

    def get(self, path):
        self._connection.request("GET", path)
        answer = self._connection.getresponse()
        body = answer.read().decode()
        assert answer.status == 200, body
        return body

    def be(self, health):
        self.get(f"/health?set={health}")

    def close(self):
        self._connection.close()


def another_than(who, port):
    """Return a connection to another task, when that is who takes it."""
    one = Pinned(port)
    if one.who != who:
        return one
    one.close()
    return None


def test_a_pod_that_fails_its_probe_gets_no_connection_by_any_way_and_keeps_those_it_has(running):
    service.create(running, count=2)
    file = running.path / "port-forward.yaml"
    file.write_text(FILE)
    running.run("port-forward", "run", "--config", str(file), "--wait", "30")

    def rows():
        return {row["name"]: row for row in running.forwards()}

    def all_are(state, reason, *, route):
        def look():
            shown = rows()
            return all((row["state"], row["reason"]) == (state, reason) for row in shown.values()) and (
                shown["both-ways"]["route"] == route
            )

        return until(look, f"{state}: {reason}, {route}: {rows()}", seconds=30)

    all_are("ACTIVE", None, route="direct")
    ports = [row["localPort"] for row in rows().values()]
    ill = Pinned(ports[0])
    well = until(lambda: another_than(ill.who, ports[0]), "the other task answers too")

    ill.be("bad")
    all_are("ACTIVE", f"1 of 2 tasks fails its probe: {BAD}", route="tunnel")
    for port in ports:
        assert {service.answer(port) for _ in range(10)} == {well.who}
    assert ill.get("/") == ill.who, "its connection stays"

    well.be("bad")
    all_are("WAITING", f"2 of 2 tasks fail their probe: {BAD}", route=None)
    well.be("good")
    all_are("ACTIVE", f"1 of 2 tasks fails its probe: {BAD}", route="tunnel")
    ill.be("good")
    all_are("ACTIVE", None, route="direct")
    ill.close()
    well.close()

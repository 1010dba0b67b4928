"""`kecs doctor` on a real instance: content while all is well, exit code 1 and what to do when not."""

from __future__ import annotations

import json
import os
import socket

from tests.process.harness import Home


def findings(home: Home, code: int) -> dict[str, list[dict]]:
    """Run the doctor; return what it found by level."""
    done = home.run("doctor", "-o", "json", code=code)
    by_level: dict[str, list[dict]] = {}
    for finding in json.loads(done.stdout):
        by_level.setdefault(finding["level"], []).append(finding)
    return by_level


def test_a_running_instance_and_a_stopped_one_are_well(running: Home):
    running.register()
    running.service(count=1)
    running.stable()
    running.forward("service", "default/web")
    found = findings(running, 0)
    assert set(found) <= {"ok", "not used"}, found
    running.run("stop")
    found = findings(running, 0)
    assert set(found) <= {"ok", "not used"}, found


def test_a_port_that_was_taken_while_the_instance_was_stopped(running: Home):
    running.register()
    running.service(count=1)
    port = running.forward("service", "default/web")["localPort"]
    running.run("stop")
    with socket.create_server(("127.0.0.1", port)):
        [error] = findings(running, 1)["error"]
        assert error["check"] == "kept ports"
        assert f"port {port} of the forward `default-web`" in error["text"]
        assert f"(pid {os.getpid()})" in error["text"]
        assert error["advice"]


def test_a_proxy_in_the_environment(running: Home):
    done = running.run("doctor", env={"HTTP_PROXY": "http://127.0.0.1:9"}, code=1)
    assert "export NO_PROXY=127.0.0.1,localhost" in done.stdout

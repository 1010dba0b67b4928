"""The guides to files of forwards and to debugging by tags do what they say, run as they are written."""

from __future__ import annotations

import re

import pytest
from tests.process import guide
from tests.process.harness import Home

CONNECTED = r"This is {}, version {}, task [0-9a-f]{{8}}"


@pytest.fixture(autouse=True)
def _isolated():
    if not guide.can_isolate():
        pytest.skip("this user may have no network namespace, and a guide's ports may be somebody's")


@pytest.mark.timeout(280)
def test_the_guide_to_a_file_for_the_team(home: Home):
    said = guide.run(home, "team-file.md")

    assert re.search(r"^\+ web  http://127.0.0.1:8080 -> team/web:http  WAITING", said["Begin"], re.MULTILINE)
    assert re.search(r"^api +WAITING +127.0.0.1:3000", said["Begin"], re.MULTILINE)

    came = said["The services come"]
    assert re.search(r"^= web .* ACTIVE$", came, re.MULTILINE)
    assert re.search(CONNECTED.format("web", 1), came)
    assert re.search(CONNECTED.format("api", 1), came)

    changed = said["The file changes"]
    assert changed.count("localPort 3000 -> 3001") == 2, "once as a plan, once as it is done"
    assert "nothing was changed" in changed
    assert re.search(CONNECTED.format("api", 1), changed)
    assert "wrong.yaml:13:5" in changed
    assert "refused: exit code 2" in changed

    deployed = said["The services change"]
    assert re.search(CONNECTED.format("web", 2), deployed)
    assert "it serves: connect to http://127.0.0.1:8080" in deployed

    ended = said["The end"]
    assert re.search(r"^web +stopped$", ended, re.MULTILINE)
    assert "- name: team-web" in ended, "the one by hand was left alone"
    assert "- name: api" not in ended
    assert not (home.path / "instances/default").exists()


@pytest.mark.timeout(280)
def test_the_guide_to_udp(home: Home):
    said = guide.run(home, "udp.md")

    first = said["A forward to it"]
    assert "time-clock  udp://127.0.0.1:5300 -> time/clock:5300/udp  ACTIVE" in first
    assert re.search(r"^[0-9:]{8}, 16 bytes heard, version 1, task [0-9a-f]{8}$", first, re.MULTILINE)
    assert re.search(r"^[0-9:]{8}, 9 bytes heard, version 1, task [0-9a-f]{8}$", first, re.MULTILINE)
    assert re.search(
        r"^time-clock +ACTIVE +127.0.0.1:5300 +time/clock:5300/udp +2 +2 +0", first, re.MULTILINE
    )
    assert re.search(r"5300/udp on \d+ <- 127.0.0.1:5300", first)
    assert "`time-clock` was there already" in first
    assert "has no port `5300/tcp`" in first
    assert "refused: exit code 3" in first

    assert "version 2" in said["A deployment"]

    none = said["Without a task"]
    assert "no answer: timed out" in none
    assert none.count("nobody") >= 1
    assert "it is WAITING, so datagrams are dropped: no task of time/clock is ready" in none
    assert re.search(r"\d+ datagrams were dropped, since nobody took them", none)
    assert not (home.path / "instances/default").exists()


@pytest.mark.timeout(280)
def test_the_guide_to_debugging_a_task(home: Home):
    said = guide.run(home, "debug-a-task.md")

    first = said["A forward to it"]
    assert re.search(r"ACTIVE \(task [0-9a-f]{8}, \d+s old, the only match\)", first)
    assert '"version": "1"' in first
    assert "thread work:" in first
    assert "in job" in first

    second = said["The next one"]
    assert '"version": "2"' in second
    assert "2 tasks have the tags Component=worker, and one is allowed" in second
    assert "refused: exit code 4" in second

    none = said["None left"]
    assert "it is WAITING, so new connections are held: no task with Environment=dev,Component=worker" in none
    assert "has stopped: debugged" in none
    assert none.rstrip().endswith("}"), "the worker that came back answered"
    assert re.search(r'^\{"version": "2", "task": "[0-9a-f]{8}", "jobsDone": \d\}$', none, re.MULTILINE)

    pinned = said["One task and no other"]
    assert re.search(r"^pinned +ENDED", pinned, re.MULTILINE)
    assert "is STOPPED: done with it" in pinned
    assert not (home.path / "instances/default").exists()

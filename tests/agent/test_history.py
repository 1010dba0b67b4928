"""What a forward remembers of its life."""

from __future__ import annotations

import json
import logging
import shutil

import pytest
from tests.agent.shapes import A, B, entry, port, service, short_home, snapshot, task

from kecs.agent import history as module
from kecs.agent.history import History, moves
from kecs.agent.picture import Picture
from kecs.agent.resolution import Resolution
from kecs.forward.machine import NoEndpoint

NOTHING = Resolution((), (), NoEndpoint("nothing"))


@pytest.fixture
def home():
    folder = short_home()
    yield folder
    shutil.rmtree(folder)


def resolve(*tasks, **members):
    picture = Picture()
    picture.apply(snapshot(1, service(*tasks)))
    return picture.resolve(entry(**members))


UP = task(A, port(80, 29001))


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        (NOTHING, resolve(UP), ["task aaaaaaaa is ready"]),
        (NOTHING, resolve(task(A, port(80, 29001, ready=False))), ["task aaaaaaaa is not ready"]),
        (resolve(UP), resolve(UP), []),
        (resolve(UP), resolve(task(A, port(80, 29001, draining=True))), ["task aaaaaaaa is leaving"]),
        (resolve(UP), resolve(), ["task aaaaaaaa is gone"]),
        (
            resolve(UP),
            resolve(task(A, status="STOPPED", reason="Essential container in task exited")),
            ["task aaaaaaaa is STOPPED: Essential container in task exited"],
        ),
        (
            resolve(task(A, port(80, 29001), a="1"), tags={"a": "1"}),
            resolve(
                task(A, port(80, 29001), a="1"),
                task(B, port(80, 29002), created_at=2.0, a="1"),
                tags={"a": "1"},
            ),
            ["task bbbbbbbb is ready", "new connections go to task bbbbbbbb of 2 that match"],
        ),
    ],
)
def test_what_became_of_the_tasks_is_told_once(before, after, said):
    assert list(moves(before, after)) == said


def test_events_are_kept_in_memory_up_to_a_bound_and_all_in_the_file(home, monkeypatch):
    monkeypatch.setattr(module, "KEPT", 3)
    history = History("web", home / "web.log")
    for number in range(4):
        history.note("state", f"event {number}")
    history.note("refused", "connect failed", level=logging.WARNING, endpoint=A)
    history.close()

    assert [(event.kind, event.text) for event in history.events] == [
        ("state", "event 2"),
        ("state", "event 3"),
        ("refused", "connect failed"),
    ]
    lines = [json.loads(line) for line in (home / "web.log").read_text().splitlines()]
    assert [line["message"] for line in lines] == [*(f"event {n}" for n in range(4)), "connect failed"]
    assert {name: lines[-1][name] for name in ("level", "kind", "endpoint")} == {
        "level": "warning",
        "kind": "refused",
        "endpoint": A,
    }

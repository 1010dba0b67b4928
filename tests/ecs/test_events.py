"""Events of a service: wording, order, bounds, and when one is said again."""

from __future__ import annotations

import itertools
import re

import msgspec
import pytest
from tests.ecs.simulation import START

from kecs.ecs import events
from kecs.ecs.model import Service

IDS = itertools.count(1)


def new_id() -> str:
    return f"{next(IDS):032x}"


@pytest.fixture
def service() -> Service:
    return Service(
        region="r", cluster="c", name="web", task_definition="web:1", desired_count=2,
        deployment_configuration={}, created_at=START,
    )  # fmt: skip


BLOCKED = (
    "was unable to stop or start tasks during a deployment because of the service deployment configuration."
    " Update the minimumHealthyPercent or maximumPercent value and try again."
)
WORDS = [
    (events.tasks_started, (["a", "b"],), "has started 2 tasks: (task a) (task b)."),
    (events.tasks_stopped, (["a"],), "has stopped 1 running tasks: (task a)."),
    (events.failed_health_checks, ("a",), "(task a) failed container health checks."),
    (events.deployment_completed, ("ecs-svc/1",), "(deployment ecs-svc/1) deployment completed."),
    (
        events.deployment_failed,
        ("ecs-svc/1",),
        "(deployment ecs-svc/1) deployment failed: tasks failed to start.",
    ),
    (events.rolling_back, ("ecs-svc/1",), "rolling back to deployment ecs-svc/1."),
    (events.steady_state, (), "has reached a steady state."),
    (events.cannot_start_consistently, (), "is unable to consistently start tasks successfully."),
    (events.cannot_place, ("no port is left",), "was unable to place a task. Reason: no port is left."),
    (
        events.blocked_by_configuration,
        (),
        BLOCKED,
    ),
]


@pytest.mark.parametrize(("say", "what", "text"), WORDS, ids=[say.__name__ for say, _, _ in WORDS])
def test_each_event_in_the_words_of_aws(service: Service, say, what, text: str):
    said = say(service, *what, START + 5, new_id)

    assert [event.message for event in said.events] == [f"(service web) {text}"]
    assert said.events[0].created_at == START + 5
    assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", said.events[0].id)


def test_nothing_is_said_of_no_tasks(service: Service):
    assert events.tasks_started(service, [], START, new_id) is service
    assert events.tasks_stopped(service, [], START, new_id) is service


def test_newest_first_and_at_most_100_with_ids_of_their_own(service: Service):
    for number in range(130):
        service = events.tasks_started(service, [f"t{number}"], START + number, new_id)

    assert len(service.events) == events.MOST == 100
    assert service.events[0].message.endswith("(task t129).")
    assert service.events[-1].message.endswith("(task t30).")
    assert len({event.id for event in service.events}) == 100


@pytest.mark.parametrize(
    ("later", "times"), [(0.0, 1), (events.SILENCE - 1, 1), (events.SILENCE, 2), (events.SILENCE + 1, 2)]
)
def test_a_warning_is_said_again_only_after_six_hours(service: Service, later: float, times: int):
    service = events.blocked_by_configuration(service, START, new_id)
    service = events.tasks_started(service, ["a"], START, new_id)
    service = events.blocked_by_configuration(service, START + later, new_id)

    assert sum("unable" in event.message for event in service.events) == times


def test_a_warning_is_said_again_when_its_cause_was_resolved_meanwhile(service: Service):
    service = events.cannot_start_consistently(service, START, new_id)
    service = events.steady_state(service, START + 1, new_id)
    service = events.cannot_start_consistently(service, START + 2, new_id)

    assert [("unable" in event.message) for event in service.events] == [True, False, True]


def test_another_warning_is_not_a_duplicate(service: Service):
    service = events.cannot_place(service, "one", START, new_id)
    service = events.cannot_place(service, "two", START, new_id)
    other = msgspec.structs.replace(service, name="api")

    assert len(service.events) == 2
    assert len(events.cannot_place(other, "one", START, new_id).events) == 3

"""The same forward, a new one, or a conflict."""

from __future__ import annotations

import pytest
from tests.agent.shapes import REGION, A, entry, lone, port, service, task, wanted

from kecs.agent.checks import find
from kecs.agent.plan import New, plan
from kecs.errors import ExitCode, KecsError

TARGETS = [service(ports=[port(80), port(81, name="admin")]), service(name="api"), lone(task(A, port(80)))]
WEB = entry(name="mine", local_port=8080)


def planned(*specs, existing=(WEB,)):
    return plan([find(spec, TARGETS, REGION) for spec in specs], list(existing))


@pytest.mark.parametrize(
    "spec",
    [
        wanted(target_port=80),
        wanted(target_port="http"),
        wanted(target_port=80, local_port=8080),
        wanted(target_port=80, name="mine"),
        wanted(target_port=80, name="mine", local_port=8080),
    ],
)
def test_the_same_again_is_the_same_forward(spec):
    assert planned(spec) == [WEB]


def test_a_file_that_names_the_port_by_its_name_has_the_same_forward():
    of_a_file = entry(name="mine", target_port=None, target_port_name="http", owner="/x/port-forward.yaml")
    assert planned(wanted(target_port="http"), existing=[of_a_file]) == [of_a_file]
    assert isinstance(planned(wanted(target_port="admin"), existing=[of_a_file])[0], New)


@pytest.mark.parametrize(
    ("spec", "name"),
    [
        (wanted(target_port=81), "prod-web"),
        (wanted("prod/api"), "prod-api"),
        (wanted(target_port=80, local_port=9090), "prod-web"),
        (wanted(target_port=80, name="other"), "other"),
        (wanted(target_port=80, address=["127.0.0.2"]), "prod-web"),
        (wanted(target_port=80, hold_seconds=5.0), "prod-web"),
        (wanted(target_port=80, route="tunnel"), "prod-web"),
        (wanted(f"prod/{A}", "task"), "task-aaaaaaaa"),
        (wanted("prod/aaaaaaaaa", "task"), "task-aaaaaaaa"),
    ],
)
def test_anything_else_is_a_new_one(spec, name):
    (new,) = planned(spec)

    assert isinstance(new, New)
    assert new.name == name


@pytest.mark.parametrize(
    "spec",
    [
        wanted(target_port=81, name="mine"),
        wanted("prod/api", name="mine"),
        wanted(target_port=80, local_port=9090, name="mine"),
    ],
)
def test_a_name_that_does_something_else_is_a_conflict(spec):
    with pytest.raises(KecsError, match="`mine` is taken by a forward to prod/web:80 on port 8080") as caught:
        planned(spec)

    assert caught.value.exit_code == ExitCode.CONFLICT


def test_one_that_ended_is_not_the_same_and_keeps_its_name():
    ended = entry(name="task-aaaaaaaa", type="task", ended="task aaaaaaaa is gone")

    (new,) = planned(wanted(f"prod/{A}", "task"), existing=[ended])
    assert new.name == "task-aaaaaaaa-2"
    with pytest.raises(KecsError, match="which ended"):
        planned(wanted(f"prod/{A}", "task", name="task-aaaaaaaa"), existing=[ended])


def test_several_in_one_request():
    first, again, other = planned(
        wanted(target_port=80), wanted(target_port=80), wanted(target_port=81), existing=[]
    )

    assert first is again
    assert (first.name, other.name) == ("prod-web", "prod-web-2")


def test_a_default_name_leaves_given_ones_alone():
    first, second = planned(wanted(target_port=80), wanted("prod/api", name="prod-web"), existing=[])

    assert (first.name, second.name) == ("prod-web-2", "prod-web")


def test_two_of_one_name_in_one_request_are_a_conflict():
    with pytest.raises(KecsError, match="two forwards of this request") as caught:
        planned(wanted(target_port=80, name="x"), wanted(target_port=81, name="x"), existing=[])

    assert caught.value.exit_code == ExitCode.CONFLICT


PUBLISHED = entry(name="mine", local_port=8080, publish=18080)


@pytest.mark.parametrize("publish", [None, 18080])
def test_a_published_forward_is_the_same_when_asked_for_again(publish):
    assert planned(wanted(target_port=80, publish=publish), existing=[PUBLISHED]) == [PUBLISHED]


def test_one_that_is_to_be_published_is_another_one():
    (new,) = planned(wanted(target_port=80, publish=18080))
    assert isinstance(new, New)


@pytest.mark.parametrize(
    "specs",
    [
        [wanted("prod/api", publish=18080)],  # published already
        [wanted("prod/api", publish=8080)],  # somebody listens there
        [wanted("prod/api", local_port=18080)],  # Docker does
        [wanted("prod/api", publish=18081), wanted(target_port=81, publish=18081)],
        [wanted("prod/api", publish=18081, name="one"), wanted("prod/api", local_port=18081, name="two")],
    ],
)
def test_a_port_that_docker_holds_or_shall_hold_is_a_conflict(specs):
    with pytest.raises(KecsError, match="belongs to the forward") as caught:
        planned(*specs, existing=[PUBLISHED])
    assert caught.value.exit_code == ExitCode.CONFLICT


def test_where_one_that_ended_listened_docker_may():
    ended = entry(name="mine", local_port=8080, ended="gone")
    assert isinstance(planned(wanted("prod/api", publish=8080), existing=[ended])[0], New)

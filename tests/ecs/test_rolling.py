"""Tables of moves: given tasks and bounds, how many start and which stop."""

from __future__ import annotations

import pytest
from tests.ecs.simulation import START
from tests.ecs.test_deployments import service

from kecs.ecs.model import Task
from kecs.ecs.rolling import Bounds, Grade, grade, moves

NOW = START + 1000


def task(task_id: str, **members: object) -> Task:
    """Make a task whose id says what it is: `o1h` is of the old deployment, first made, healthy.

    p: pending, u: unhealthy, w: running and not healthy yet, h: healthy, s: being stopped, x: STOPPED.
    """
    kind = task_id[2]
    known: dict[str, object] = {
        "region": "r", "cluster": "c", "id": task_id, "group": "service:web", "task_definition": "web:1",
        "family": "web", "revision": 1, "containers": [], "created_at": START + int(task_id[1]),
        "started_by": {"o": "old", "n": "new", "a": "ancient"}[task_id[0]],
        "last_status": {"p": "ACTIVATING", "s": "DEACTIVATING", "x": "STOPPED"}.get(kind, "RUNNING"),
        "desired_status": "STOPPED" if kind in "sx" else "RUNNING",
        "started_at": None if kind == "p" else START + 500,
        "healthy_at": {"h": START + 501, "w": NOW + 1}.get(kind),
        "health_status": "UNHEALTHY" if kind == "u" else "UNKNOWN",
    }  # fmt: skip
    return Task(**(known | members))


def found(
    ids: str, *, desired: int, minimum: int, maximum: int, may_start: bool = True, one_node: bool = False
):
    bounds = Bounds(desired=desired, minimum=minimum, maximum=maximum, one_node=one_node)
    return moves("new", [task(item) for item in ids.split()], bounds, NOW, may_start=may_start)


@pytest.mark.parametrize(
    ("ids", "desired", "minimum", "maximum", "start", "stop"),
    [
        # A first deployment.
        ("", 2, 2, 4, 2, ""),
        ("n1p", 2, 2, 4, 1, ""),
        ("n1h n2h", 2, 2, 4, 0, ""),
        ("n1x n2s n3h", 2, 2, 4, 1, ""),
        # A roll with the default 100/200: start first, stop as new ones become healthy.
        ("o1h o2h", 2, 2, 4, 2, ""),
        ("o1h o2h n3p n4p", 2, 2, 4, 0, ""),
        ("o1h o2h n3w n4p", 2, 2, 4, 0, ""),
        ("o1h o2h n3h n4p", 2, 2, 4, 0, "o1h"),
        ("o1h o2h n3h n4h", 2, 2, 4, 0, "o1h o2h"),
        # Tasks being stopped do not count against the maximum.
        ("o1s o2s n3h n4h", 2, 2, 4, 0, ""),
        ("o1s o2s n3h", 2, 2, 2, 1, ""),
        # 50/100: make room first, within the minimum.
        ("o1h o2h o3h o4h", 4, 2, 4, 2, "o1h o2h"),
        ("o3h o4h n5p n6p", 4, 2, 4, 0, ""),
        ("o3h o4h n5h n6p", 4, 2, 4, 1, "o3h"),
        # 50/150: one fits at once; three more need room, and two may go.
        ("o1h o2h o3h o4h", 4, 2, 5, 3, "o1h o2h"),
        # 0/100: all at once.
        ("o1h o2h", 2, 0, 2, 2, "o1h o2h"),
        # Rounding: 100/150 of one is no room at all.
        ("o1h", 1, 1, 1, 0, ""),
        # What never served is given up at once, what serves only for room.
        ("o1p o2p", 2, 2, 4, 2, "o1p o2p"),
        ("a1h a2h o3p o4p", 2, 2, 4, 2, "o3p o4p"),
        ("a1h a2h o3w o4w", 2, 2, 4, 2, "o3w o4w"),
        ("o1w o2w", 2, 2, 4, 2, ""),
        ("o1w o2w n3w n4w", 2, 2, 4, 0, ""),
        ("o1w n3h n4h", 2, 2, 4, 0, "o1w"),
        # The oldest deployment first, then the next.
        ("a1h a2h o3h o4h", 2, 2, 4, 2, "a1h a2h"),
        ("a1h o2h n3h n4h", 2, 2, 4, 0, "a1h o2h"),
        # Scaling in: what is not running first, then the newest.
        ("n1h n2h n3h n4p", 2, 2, 4, 0, "n4p n3h"),
        ("n1h n2w n3h", 2, 2, 4, 0, "n2w"),
        ("n1h n2h n3h", 0, 0, 0, 0, "n3h n2h n1h"),
        ("o1h o2h n3h", 0, 0, 0, 0, "o1h o2h n3h"),
        # Scaling during a roll.
        ("o1h o2h n3h n4p", 1, 1, 2, 0, "n4p o1h o2h"),
        ("o1h o2h n3h n4h", 4, 4, 8, 2, ""),
        # An unhealthy task: its replacement first.
        ("n1h n2u", 2, 2, 4, 1, ""),
        ("n1h n2u n3p", 2, 2, 4, 0, ""),
        ("n1h n2u n3h", 2, 2, 4, 0, "n2u"),
        ("n1u n2u", 2, 2, 4, 2, ""),
        ("o1h o2h n3u n4u", 2, 2, 4, 2, "n3u n4u"),
        # No room for a replacement: one by one.
        ("n1h n2u", 2, 2, 2, 1, "n2u"),
        ("n1u n2u", 2, 2, 2, 1, "n1u"),
        ("n2u n3p", 2, 2, 2, 0, ""),
        ("n2u n3h", 2, 2, 2, 1, "n2u"),
        ("n1u n2u n3u n4u", 4, 2, 4, 2, "n1u n2u"),
        ("o1u o2u", 2, 2, 2, 1, "o1u"),
        ("o1u n2p o3p", 1, 1, 1, 0, "o3p"),
        ("a1u o2p", 1, 1, 1, 1, "a1u o2p"),
        ("n1u n2u n3u", 1, 1, 1, 1, "n1u n2u n3u"),
        ("o1u o2u", 2, 2, 4, 2, ""),
        ("o1u o2u n3w n4p", 2, 2, 4, 0, ""),
        ("o1u o2u n3h n4p", 2, 2, 4, 0, ""),
        ("o1u o2u n3h n4h", 2, 2, 4, 0, "o1u o2u"),
    ],
)  # fmt: skip
def test_moves(ids: str, desired: int, minimum: int, maximum: int, start: int, stop: str):
    result = found(ids, desired=desired, minimum=minimum, maximum=maximum)

    assert (result.start, {task.id for task in result.stop}) == (start, set(stop.split()))


def test_the_order_in_which_tasks_are_given_up():
    everything = "n9u o4h a3h o2w a1w o6u o5p n8h n7h"

    result = found(everything, desired=2, minimum=0, maximum=2)

    assert [task.id for task in result.stop] == ["o5p", "o6u", "n9u", "a1w", "o2w", "a3h", "o4h"]
    assert result.unhealthy == {"n9u"}, "the others go because of the roll"


@pytest.mark.parametrize(
    ("ids", "stuck"),
    [
        ("o1h o2h", True),
        ("o1h o2w", False),
        ("o1h o2h n3s", False),
        ("n1h n2h", False),
        ("o1h n2h", True),
        ("o1h n2p", False),
        ("o1h n2u", False),
    ],
)
def test_100_100_is_stuck_when_nothing_is_in_motion(ids: str, stuck: bool):
    assert found(ids, desired=2, minimum=2, maximum=2).stuck is stuck


def test_nothing_is_given_up_for_room_while_nothing_may_start():
    """A throttled or FAILED deployment leaves the old tasks alone."""
    result = found("o1h o2h o3h o4h", desired=4, minimum=2, maximum=4, may_start=False)

    assert (result.start, result.stop, result.missing, result.stuck) == (0, [], 4, False)


@pytest.mark.parametrize(
    ("ids", "start", "stop"),
    [("o1h", 0, "o1h"), ("o1s", 0, ""), ("o1x", 1, ""), ("n1h", 0, ""), ("n1u", 0, "n1u"), ("", 1, "")],
)
def test_a_daemon_stops_before_it_starts(ids: str, start: int, stop: str):
    result = found(ids, desired=1, minimum=0, maximum=1, one_node=True)

    assert (result.start, [task.id for task in result.stop]) == (start, stop.split())


@pytest.mark.parametrize(
    ("desired", "lowest", "highest", "minimum", "maximum"),
    [
        (2, None, None, 2, 4), (3, 50, 150, 2, 4), (5, 50, 150, 3, 7), (1, 50, 100, 1, 1), (4, 0, 100, 0, 4),
        (10, 33, 133, 4, 13), (100, 29, 129, 29, 129), (0, 100, 200, 0, 0),
        # What could never be met is read as what can.
        (4, 150, 50, 4, 4),
    ],
)  # fmt: skip
def test_the_minimum_is_rounded_up_and_the_maximum_down(
    desired: int, lowest: int | None, highest: int | None, minimum: int, maximum: int
):
    configuration = {"minimumHealthyPercent": lowest, "maximumPercent": highest}

    bounds = Bounds.of(service(desired_count=desired, deployment_configuration=configuration))

    assert (bounds.desired, bounds.minimum, bounds.maximum) == (desired, minimum, maximum)


def test_the_bounds_of_a_daemon():
    bounds = Bounds.of(service(desired_count=0, scheduling_strategy="DAEMON"))

    assert (bounds.desired, bounds.minimum, bounds.maximum, bounds.one_node) == (1, 0, 1, True)


@pytest.mark.parametrize(
    ("task_id", "grace", "expected"),
    [
        ("n1p", 0, Grade.PENDING),
        ("n1w", 0, Grade.WARMING),
        ("n1h", 0, Grade.HEALTHY),
        ("n1u", 0, Grade.UNHEALTHY),
        ("n1u", 500, Grade.UNHEALTHY),
        ("n1u", 501, Grade.WARMING),
    ],
)
def test_grades_and_the_grace_period(task_id: str, grace: float, expected: Grade):
    assert grade(task(task_id), NOW, grace) is expected


def test_a_task_that_fails_its_checks_before_it_runs_is_unhealthy():
    assert grade(task("n1p", health_status="UNHEALTHY"), NOW, 0) is Grade.UNHEALTHY

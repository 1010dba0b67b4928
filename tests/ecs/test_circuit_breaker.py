"""Failing tasks: how they are counted, slowed down and given up; alone, and in a simulated service."""

from __future__ import annotations

import msgspec
import pytest
from tests.ecs.simulation import GOOD, START, Behaviour, Simulation
from tests.ecs.test_deployments import deployment, service

from kecs.ecs import circuit_breaker, deployments, scheduler
from kecs.ecs.lifecycle import FAILED_HEALTH_CHECKS
from kecs.ecs.model import Task

CRASHES = Behaviour(exits_at=0.3)
"""Ends before it listens."""
CRASHES_LATE = Behaviour(exits_at=0.9)
"""Ends after RUNNING, before it counts as healthy."""
CANNOT_START = Behaviour(failure="CannotStartContainerError: no command")
SICK = Behaviour(health_check=True, healthy_at=99.0, sick_at=2.0)
ROLLBACK = {"enable": True, "rollback": True}
SICK_STOP = {"stop_code": "ServiceSchedulerInitiated", "stopped_reason": FAILED_HEALTH_CHECKS}
FAILED = "ECS deployment circuit breaker: tasks failed to start."


def task(task_id: str = "t", **members: object) -> Task:
    known = {
        "region": "r", "cluster": "c", "id": task_id, "group": "service:web", "task_definition": "web:1",
        "family": "web", "revision": 1, "containers": [], "created_at": START, "started_by": "ecs-svc/1",
    }  # fmt: skip
    return Task(**(known | members))


def failed(task_id: str, at: float) -> Task:
    return task(task_id, desired_status="STOPPED", stop_code="TaskFailedToStart", stopping_at=at)


@pytest.mark.parametrize(
    ("configuration", "desired", "expected"),
    [
        (None, 0, 3), (None, 1, 3), (None, 6, 3), (None, 7, 4), (None, 25, 13), (None, 400, 200),
        (None, 401, 200),
        ({"type": "BOUNDED_PERCENT", "value": 20}, 20, 4), ({"type": "BOUNDED_PERCENT", "value": 1}, 20, 3),
        ({"type": "UNBOUNDED_PERCENT", "value": 50}, 2, 1),
        ({"type": "UNBOUNDED_PERCENT", "value": 29}, 100, 29),
        ({"type": "UNBOUNDED_PERCENT", "value": 100}, 1000, 1000), ({"type": "UNBOUNDED_PERCENT"}, 0, 1),
        ({"type": "COUNT", "value": 7}, 1, 7), ({"type": "COUNT", "value": 1}, 500, 1),
    ],
)  # fmt: skip
def test_threshold(configuration: dict[str, object] | None, desired: int, expected: int):
    breaker = {"enable": True} | ({"thresholdConfiguration": configuration} if configuration else {})

    found = circuit_breaker.threshold(
        service(deployment_configuration={"deploymentCircuitBreaker": breaker}), desired
    )

    assert found == expected


@pytest.mark.parametrize(
    ("failures", "desired", "seconds"),
    [(0, 1, 0), (1, 1, 0), (2, 1, 1), (3, 1, 2), (4, 1, 4), (7, 1, 32), (8, 1, 60), (9, 1, 60), (500, 1, 60),
     (4, 4, 0), (5, 4, 1), (8, 4, 1), (9, 4, 2), (1, 0, 0), (2, 0, 1)],
)  # fmt: skip
def test_delay_at_once_first_then_doubling_up_to_a_minute(failures: int, desired: int, seconds: float):
    assert circuit_breaker.delay(failures, desired) == seconds


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ({"stop_code": "TaskFailedToStart"}, True),
        ({"stop_code": "EssentialContainerExited"}, True),
        ({"stop_code": "EssentialContainerExited", "healthy_at": START}, False),
        (SICK_STOP | {"last_status": "STOPPED"}, True),
        (SICK_STOP | {"last_status": "STOPPING"}, False),
        (SICK_STOP | {"last_status": "STOPPED", "stopped_reason": "Scaling activity initiated"}, False),
        ({"stop_code": "UserInitiated"}, False),
        ({"stop_code": "InfrastructureHealth"}, False),
        ({"stop_code": None, "desired_status": "RUNNING"}, False),
    ],
)
def test_which_ends_are_failures(members: dict[str, object], expected: bool):
    assert circuit_breaker.has_failed(task(**({"desired_status": "STOPPED"} | members))) is expected


def test_failures_are_counted_once_in_the_order_of_time_and_a_healthy_task_sets_them_back():
    healthy = task("h", last_status="RUNNING", healthy_at=START + 2.5)
    tasks = [failed("c", START + 3), failed("b", START + 2), failed("a", START + 1), healthy]

    once = circuit_breaker.counted(deployment(1), tasks, START + 4, desired=1, resets=True)
    again = circuit_breaker.counted(once, tasks, START + 5, desired=1, resets=True)
    never = circuit_breaker.counted(deployment(1), tasks, START + 4, desired=1, resets=False)

    assert (once.failed_tasks, once.counted_failures) == (1, ["a", "b", "c"])
    assert again is once
    assert never.failed_tasks == 3


def test_a_task_that_will_be_healthy_later_sets_nothing_back_yet():
    tasks = [failed("a", START + 1), task("h", last_status="RUNNING", healthy_at=START + 9)]

    found = circuit_breaker.counted(deployment(1), tasks, START + 4, desired=1, resets=True)

    assert found.failed_tasks == 1


def test_tasks_of_other_deployments_do_not_count():
    other = msgspec.structs.replace(failed("a", START), started_by="ecs-svc/2")

    assert circuit_breaker.counted(deployment(1), [other], START, desired=1, resets=True) == deployment(1)


def test_forgotten_failures_are_dropped_from_the_list_and_not_from_the_count():
    one = circuit_breaker.counted(deployment(1), [failed("a", START)], START, desired=1, resets=True)
    two = circuit_breaker.counted(one, [failed("b", START + 1)], START + 1, desired=1, resets=True)

    assert (two.failed_tasks, two.counted_failures) == (2, ["b"])


@pytest.mark.parametrize(
    "bad", [CRASHES, CRASHES_LATE, CANNOT_START, SICK], ids=["crashes", "late", "cannot", "sick"]
)
@pytest.mark.parametrize("desired", [1, 2, 5])
def test_a_failing_update_is_rolled_back_to_the_old_revision(bad: Behaviour, desired: int):
    simulation = Simulation(desired=desired, breaker=ROLLBACK)
    simulation.run_until(simulation.stable)
    first = simulation.primary().id
    simulation.least_healthy = desired

    second = simulation.deploy(bad)
    simulation.run_until(simulation.stable)

    back = simulation.primary()
    assert back.id not in {first, second}
    assert back.is_rollback
    assert back.rollout_state_reason == f"ECS deployment {back.id} completed."
    assert simulation.service.task_definition == "web:1"
    assert simulation.revisions() == {"web:1": desired}
    ended = {item.id: item for item in simulation.service.history}
    assert (ended[second].rollout_state, ended[second].rollout_state_reason) == ("FAILED", FAILED)
    assert not ended[second].was_stable
    said = simulation.messages()
    assert f"(deployment {second}) deployment failed: tasks failed to start." in said
    assert f"rolling back to deployment {first}." in said
    assert simulation.least_healthy == desired, "the old tasks served all the time"


def test_the_rollback_says_where_it_goes_while_it_is_in_progress():
    simulation = Simulation(breaker=ROLLBACK)
    simulation.run_until(simulation.stable)
    first = simulation.primary().id
    second = simulation.deploy(CRASHES)
    simulation.run_until(lambda: simulation.primary().id != second)

    assert simulation.primary().rollout_state == "IN_PROGRESS"
    reason = f"ECS deployment circuit breaker: rolling back to deploymentId {first}."
    assert simulation.primary().rollout_state_reason == reason
    given_up = deployments.find(simulation.service, second)
    assert given_up is not None
    assert given_up.rollout_state == "FAILED"


def test_without_rollback_a_failed_deployment_stays_and_starts_nothing_more():
    simulation = Simulation(breaker={"enable": True, "rollback": False})
    simulation.run_until(simulation.stable)
    simulation.deploy(CRASHES)
    simulation.run(60)
    started = simulation.started

    simulation.run(600)

    assert simulation.started == started == 2 + 4
    assert simulation.primary().rollout_state == "FAILED"
    assert simulation.primary().rollout_state_reason == FAILED
    assert simulation.revisions() == {"web:1": 2}, "the old revision serves on"
    assert simulation.wake_at is None

    simulation.deploy(GOOD)
    simulation.run_until(simulation.stable)

    assert simulation.revisions() == {"web:3": 2}


def test_a_first_deployment_has_nothing_to_go_back_to():
    simulation = Simulation(desired=1, breaker=ROLLBACK, behaviour=CANNOT_START)
    simulation.run(600)

    assert simulation.primary().rollout_state == "FAILED"
    assert len(simulation.service.deployments) == 1
    assert simulation.started == 3
    assert simulation.wake_at is None, "it waits for nothing"
    assert not any("rolling back" in message for message in simulation.messages())


def test_a_rollback_that_fails_too_ends():
    """The old revision has lost what it needs as well: no endless rolling back."""
    simulation = Simulation(desired=1, breaker=ROLLBACK)
    simulation.run_until(simulation.stable)
    simulation.behaviours["web:1"] = Behaviour(exits_at=30.0)
    simulation.deploy(CRASHES)
    simulation.behaviours["web:1"] = CANNOT_START
    simulation.run(1000)

    assert simulation.primary().is_rollback
    assert simulation.primary().rollout_state == "FAILED"
    assert sum("rolling back" in message for message in simulation.messages()) == 1


def test_a_rollback_skips_deployments_that_never_were_stable():
    simulation = Simulation(breaker=ROLLBACK)
    simulation.run_until(simulation.stable)
    for _ in range(3):
        simulation.deploy(Behaviour(listens_at=20.0))
    simulation.deploy(CRASHES)
    simulation.run_until(simulation.stable)

    assert simulation.service.task_definition == "web:1"


def test_no_breaker_tries_for_ever_but_slower_and_says_so():
    simulation = Simulation(desired=1, behaviour=CRASHES)
    simulation.run(120)
    first = simulation.started
    simulation.run(600)

    assert simulation.primary().rollout_state == "IN_PROGRESS"
    assert 7 <= first <= 9, "0, 0, 1, 2, 4, 8, 16, 32, 60 seconds apart"
    assert 8 <= simulation.started - first <= 11, "one a minute"
    assert (
        sum(text == "is unable to consistently start tasks successfully." for text in simulation.messages())
        == 1
    )


def test_old_failures_are_no_news_once_the_service_is_steady():
    simulation = Simulation(desired=1, behaviour=CRASHES)
    simulation.run(20)
    simulation.scale(0)
    simulation.plan()

    assert simulation.messages()[0] == "has reached a steady state."
    assert sum("unable" in message for message in simulation.messages()) == 1


def test_inconsistent_starts_are_an_event_from_the_third_round_on():
    simulation = Simulation(desired=1, behaviour=CRASHES)
    said = []
    for failures in (1, 2, 3):
        simulation.run_until(lambda wanted=failures: simulation.primary().failed_tasks == wanted)
        said.append(any("unable" in message for message in simulation.messages()))

    assert said == [False, False, True]


def test_a_healthy_task_sets_failed_tasks_back_and_ends_the_throttle():
    simulation = Simulation(desired=1, behaviour=CRASHES)
    simulation.run(20)
    assert simulation.primary().failed_tasks >= 5
    simulation.behaviours["web:1"] = GOOD
    simulation.run_until(simulation.stable)

    assert simulation.primary().failed_tasks == 0
    assert simulation.primary().next_start_at == 0


@pytest.mark.parametrize(("resets", "state"), [(True, "COMPLETED"), (False, "FAILED")])
def test_reset_on_healthy_task(resets: bool, state: str):
    """Two failures, a healthy task, one failure more: three in all, never three in a row."""
    simulation = Simulation(
        desired=2,
        breaker={"enable": True, "rollback": False, "resetOnHealthyTask": resets},
        behaviour=CRASHES,
    )
    simulation.run_until(lambda: simulation.primary().failed_tasks == 2)
    simulation.behaviours["web:1"] = GOOD
    one, other = (task.id for task in simulation.live())
    simulation.overrides[other] = Behaviour(listens_at=3.0, exits_at=3.5)
    simulation.run(60)

    assert simulation.tasks[one].last_status == "RUNNING"
    assert simulation.primary().rollout_state == state


def test_a_completed_deployment_is_no_longer_watched():
    """Tasks that fail after COMPLETED are replaced for ever; the deployment does not FAIL."""
    simulation = Simulation(desired=1, breaker=ROLLBACK)
    simulation.run_until(simulation.stable)
    simulation.behaviours["web:1"] = CRASHES
    simulation.overrides[simulation.live()[0].id] = Behaviour(exits_at=10.0)
    simulation.run(60)

    assert simulation.primary().rollout_state == "COMPLETED"
    assert simulation.primary().failed_tasks > 3
    simulation.behaviours["web:1"] = GOOD
    simulation.run_until(lambda: simulation.service.steady)
    assert simulation.messages()[0] == "has reached a steady state."


def test_a_task_that_cannot_be_made_counts_and_is_tried_again_later():
    simulation = Simulation(desired=1, breaker={"enable": True})
    newest = simulation.primary()
    found = simulation.service

    found = scheduler.could_not_place(found, newest.id, "no port is left", START, simulation.new_id)
    throttled = scheduler.plan(found, [], START, simulation.knobs, simulation.new_id)
    later = scheduler.plan(found, [], START + 1, simulation.knobs, simulation.new_id)

    assert found.events[0].message == "(service web) was unable to place a task. Reason: no port is left."
    assert (throttled.start, throttled.wake_at) == ((), START + 1)
    assert len(later.start) == 1
    for _ in range(2):
        found = scheduler.could_not_place(found, newest.id, "no port is left", START, simulation.new_id)
    ended = scheduler.plan(found, [], START + 9, simulation.knobs, simulation.new_id)
    assert ended.service.deployments[0].rollout_state == "FAILED"
    assert scheduler.could_not_place(found, "ecs-svc/0", "x", START, simulation.new_id) == found

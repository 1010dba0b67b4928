"""Whole stories of a service on a fake clock; `Simulation` checks the standing promises at every plan."""

from __future__ import annotations

import pytest
from tests.ecs.simulation import GOOD, Behaviour, Simulation

from kecs.ecs import deployments, lifecycle, scheduler
from kecs.ecs.context import Knobs
from kecs.ecs.lifecycle import TaskObservation

CHECKED = Behaviour(health_check=True, healthy_at=3.0)
STEADY = "has reached a steady state."
UNABLE = (
    "was unable to stop or start tasks during a deployment because of the service deployment configuration."
)


def settled(**members: object) -> Simulation:
    simulation = Simulation(**members)
    simulation.run_until(simulation.stable)
    return simulation


def test_a_new_service_comes_up_and_says_so():
    simulation = Simulation(desired=3)
    first = simulation.primary()
    assert (first.rollout_state, len(simulation.live())) == ("IN_PROGRESS", 3)
    assert all(task.started_by == first.id for task in simulation.live())

    simulation.run(10)

    ids = " ".join(f"(task {task.id})" for task in simulation.live())
    assert simulation.messages() == [
        STEADY,
        f"(deployment {first.id}) deployment completed.",
        f"has started 3 tasks: {ids}.",
    ]
    done = simulation.primary()
    assert (done.rollout_state, done.was_stable) == ("COMPLETED", True)
    assert done.rollout_state_reason == f"ECS deployment {first.id} completed."
    assert simulation.stable()
    assert simulation.wake_at is None


def test_it_is_stable_when_its_tasks_count_as_healthy_and_no_earlier():
    simulation = Simulation(desired=1, knobs=Knobs(healthy_after=40.0))
    simulation.run(30)
    assert simulation.primary().rollout_state == "IN_PROGRESS"
    assert simulation.live()[0].last_status == "RUNNING"
    assert simulation.wake_at == simulation.live()[0].healthy_at

    simulation.run(20)

    assert simulation.primary().rollout_state == "COMPLETED"


@pytest.mark.parametrize("behaviour", [GOOD, CHECKED], ids=["unchecked", "checked"])
@pytest.mark.parametrize(
    ("desired", "minimum", "maximum"),
    [(1, 100, 200), (2, 100, 200), (4, 100, 125), (4, 50, 100), (4, 75, 150), (3, 0, 100), (10, 90, 110)],
)
def test_a_rolling_update_replaces_every_task(behaviour: Behaviour, desired: int, minimum: int, maximum: int):
    simulation = settled(desired=desired, minimum=minimum, maximum=maximum, behaviour=behaviour)
    old = simulation.primary().id
    simulation.least_healthy = desired

    fresh = simulation.deploy(behaviour)
    assert len(simulation.service.deployments) == 2
    simulation.run_until(simulation.stable)

    assert simulation.revisions() == {"web:2": desired}
    assert simulation.primary().id == fresh
    assert simulation.least_healthy >= -(-desired * minimum // 100)
    ended = simulation.service.history[0]
    assert (ended.id, ended.status, ended.rollout_state) == (old, "INACTIVE", "COMPLETED")
    reason = f"Scaling activity initiated by (deployment {fresh})"
    assert simulation.reasons() == {("ServiceSchedulerInitiated", reason)}
    assert all(task.last_status == "STOPPED" for task in simulation.tasks.values() if task.started_by == old)
    assert simulation.started == 2 * desired


def test_completed_waits_until_the_old_tasks_are_stopped():
    """The older deployment stays in the list as long as one of its tasks still drains or stops."""
    simulation = settled(drain=5.0)
    simulation.deploy()
    simulation.run_until(lambda: simulation.revisions() == {"web:2": 2})

    assert simulation.primary().rollout_state == "IN_PROGRESS"
    assert [item.status for item in simulation.service.deployments] == ["PRIMARY", "ACTIVE"]
    assert simulation.service.deployments[1].desired_count == 0

    simulation.run_until(simulation.stable)
    assert all(task.last_status == "STOPPED" for task in simulation.tasks.values() if task.revision == 1)


def test_updates_in_quick_succession_end_with_the_last_one():
    simulation = settled()
    simulation.least_healthy = 2
    for _ in range(5):
        simulation.deploy()
        simulation.run(0.2)
    assert len(simulation.service.deployments) > 2

    simulation.run_until(simulation.stable)

    assert simulation.revisions() == {"web:6": 2}
    assert simulation.least_healthy == 2
    # Newest end first: the one that was stable served longest.
    assert [item.task_definition for item in simulation.service.history if item.was_stable] == ["web:1"]
    assert len(simulation.service.history) == 5


def test_desired_count_alone_is_no_deployment():
    simulation = settled()
    before = simulation.primary().id
    for desired in (5, 1, 0, 2):
        simulation.scale(desired)
        assert simulation.primary().desired_count == desired
        assert not simulation.service.steady
        simulation.run_until(lambda: simulation.service.steady)
        assert simulation.revisions() == ({"web:1": desired} if desired else {})
        assert simulation.messages()[0] == STEADY

    assert simulation.primary().id == before
    assert sum("deployment completed" in message for message in simulation.messages()) == 1


def test_scaling_in_keeps_the_oldest_tasks():
    simulation = settled(desired=2)
    kept = {task.id for task in simulation.live()}
    simulation.scale(4)
    simulation.run_until(lambda: simulation.service.steady)
    simulation.scale(2)

    assert {task.id for task in simulation.live()} == kept


def test_a_service_of_no_tasks_is_complete_at_once():
    simulation = Simulation(desired=0)

    assert simulation.stable()
    assert simulation.messages()[0] == STEADY


def test_min_100_max_100_cannot_move_and_says_so_once():
    simulation = settled(minimum=100, maximum=100)
    simulation.deploy()
    simulation.run(3600)
    simulation.plan()

    assert simulation.revisions() == {"web:1": 2}
    assert simulation.primary().rollout_state == "IN_PROGRESS"
    assert sum(message.startswith(UNABLE) for message in simulation.messages()) == 1

    configuration = {"minimumHealthyPercent": 50, "maximumPercent": 100}
    simulation.service = scheduler.replace(simulation.service, deployment_configuration=configuration)
    simulation.plan()
    simulation.run_until(simulation.stable)
    assert simulation.revisions() == {"web:2": 2}


def test_a_crashed_task_is_replaced_at_once_and_steadiness_is_said_again():
    simulation = settled()
    first, other = simulation.live()
    simulation.overrides[first.id] = Behaviour(exits_at=simulation.now - simulation.begun[first.id] + 5)
    simulation.run_until(lambda: simulation.tasks[first.id].desired_status == "STOPPED")

    assert len(simulation.live()) == 2
    assert simulation.tasks[other.id].last_status == "RUNNING"
    simulation.run_until(lambda: simulation.service.steady)
    assert simulation.messages().count(STEADY) == 2
    assert simulation.reasons() == {("EssentialContainerExited", "Essential container in task exited")}
    assert simulation.primary().failed_tasks == 0


def test_a_task_that_finishes_well_is_replaced_without_delay_for_ever():
    simulation = Simulation(desired=1, behaviour=Behaviour(exits_at=5.0, exit_code=0))
    simulation.run(60)

    assert simulation.started >= 10
    assert simulation.primary().failed_tasks == 0
    assert not any("unable" in message for message in simulation.messages())


def test_a_task_stopped_by_the_user_is_replaced_and_is_no_failure():
    simulation = settled(breaker={"enable": True})
    for _ in range(5):
        simulation.stop_task(simulation.live()[0].id)
        assert len(simulation.live()) == 2
    simulation.run_until(lambda: simulation.service.steady)

    assert simulation.primary().rollout_state == "COMPLETED"
    assert simulation.primary().failed_tasks == 0


def test_an_unhealthy_task_is_stopped_when_its_replacement_is_healthy():
    simulation = settled(behaviour=CHECKED)
    sick = simulation.live()[0].id
    simulation.overrides[sick] = Behaviour(health_check=True, healthy_at=1.0, sick_at=20.0)
    simulation.run_until(lambda: simulation.tasks[sick].health_status == "UNHEALTHY")
    assert simulation.tasks[sick].desired_status == "RUNNING"
    assert len(simulation.live()) == 3

    simulation.run_until(lambda: simulation.service.steady)

    assert simulation.tasks[sick].last_status == "STOPPED"
    assert simulation.reasons() == {("ServiceSchedulerInitiated", "Task failed container health checks")}
    assert f"(task {sick}) failed container health checks." in simulation.messages()


def test_unhealthy_tasks_go_one_by_one_where_there_is_no_room():
    simulation = settled(minimum=100, maximum=100, behaviour=CHECKED)
    for task in simulation.live():
        simulation.overrides[task.id] = Behaviour(health_check=True, sick_at=20.0)
    simulation.run_until(lambda: len(simulation.reasons()) > 0)
    assert simulation.started == 3

    simulation.run_until(lambda: simulation.service.steady)
    assert simulation.started == 4


def test_an_unhealthy_task_is_left_alone_during_its_grace_period():
    ill = Behaviour(health_check=True, healthy_at=9.0, sick_at=2.0)
    simulation = Simulation(desired=1, behaviour=ill, health_check_grace_period_seconds=60)
    simulation.run(55)
    assert simulation.started == 1

    simulation.run(10)

    assert simulation.started >= 2


def test_a_deleted_service_stops_everything_and_ends_inactive():
    simulation = settled()
    simulation.deploy()
    simulation.run(0.7)
    assert len(simulation.live()) == 4
    simulation.delete()
    assert not simulation.live()
    assert simulation.service.status == "DRAINING"
    assert simulation.primary().desired_count == 0
    reason = f"Scaling activity initiated by (deployment {simulation.primary().id})"
    assert simulation.reasons() == {("ServiceSchedulerInitiated", reason)}

    simulation.run(30)

    assert (simulation.service.status, simulation.service.deployments) == ("INACTIVE", [])
    assert [item.status for item in simulation.service.history] == ["INACTIVE", "INACTIVE"]
    assert all(task.last_status == "STOPPED" for task in simulation.tasks.values())


def test_a_deleted_service_without_tasks_is_inactive_at_once():
    simulation = Simulation(desired=0)
    simulation.delete()

    assert simulation.service.status == "INACTIVE"


def test_a_daemon_is_one_task_and_its_update_stops_the_old_one_first():
    simulation = settled(desired=0, minimum=None, maximum=None, scheduling_strategy="DAEMON")
    assert simulation.revisions() == {"web:1": 1}
    simulation.deploy()
    alive = []
    simulation.run_until(lambda: bool(alive.append(len(simulation._unfinished()))) or simulation.stable())

    assert simulation.revisions() == {"web:2": 1}
    assert max(alive) == 1


def test_lost_tasks_are_replaced_and_speak_against_nobody():
    simulation = Simulation(breaker={"enable": True})
    for _ in range(5):
        for task in simulation.live():
            simulation.put(
                lifecycle.observe(task, TaskObservation(lost=True), simulation.now, simulation.knobs)
            )
        simulation.plan()
    simulation.run_until(simulation.stable)

    assert simulation.primary().rollout_state == "COMPLETED"


def test_tasks_of_an_earlier_service_of_the_same_name_are_not_taken_over():
    simulation = settled()
    stranger = simulation.live()[0]
    simulation.put(scheduler.replace(stranger, started_by="ecs-svc/0"))
    simulation.plan()
    simulation.run_until(lambda: simulation.service.steady)

    assert simulation.tasks[stranger.id].last_status == "STOPPED"
    assert simulation.revisions() == {"web:1": 2}


def test_another_deployment_controller_is_not_ours_to_schedule():
    simulation = Simulation()
    service = scheduler.replace(simulation.service, deployments=[], deployment_controller="EXTERNAL")

    found = scheduler.plan(service, [], simulation.now, simulation.knobs, simulation.new_id)

    assert found == scheduler.Plan(service=service)


def test_a_waiting_throttle_is_woken_up_from():
    simulation = Simulation(desired=1, behaviour=Behaviour(failure="CannotStartContainerError: x"))
    simulation.run_until(lambda: simulation.primary().next_start_at > simulation.now)

    assert not simulation.live()
    assert simulation.wake_at == simulation.primary().next_start_at


def test_running_and_desired_agree_only_with_one_deployment():
    """botocore's `services_stable` must not be satisfied in the middle of a roll."""
    simulation = settled()
    simulation.deploy()
    early = []
    while not simulation.stable():
        running, _ = deployments.counts(simulation.tasks.values())
        early.append(len(simulation.service.deployments) == 1 and running == 2)
        assert simulation.step(simulation.now + 100)

    assert not any(early[:-1])

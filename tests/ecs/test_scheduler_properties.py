"""Whatever users and tasks do in whatever order: the promises hold, and in the end all is as asked."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.ecs.simulation import GOOD, Behaviour, Simulation

behaviours = st.builds(
    Behaviour,
    runs_at=st.sampled_from([0.1, 1.0]),
    listens_at=st.sampled_from([0.2, 2.0, 90.0]),
    exits_at=st.sampled_from([None, None, 0.05, 0.15, 2.5, 20.0]),
    exit_code=st.sampled_from([0, 1]),
    failure=st.sampled_from([None, None, None, "CannotStartContainerError: x"]),
    health_check=st.booleans(),
    healthy_at=st.sampled_from([0.5, 4.0, 500.0]),
    sick_at=st.sampled_from([None, None, 1.0, 6.0]),
    stop_takes=st.sampled_from([0.01, 0.3, 30.0]),
)
deeds = st.lists(
    st.one_of(
        st.tuples(st.just("deploy"), behaviours | st.just(GOOD)),
        st.tuples(st.just("scale"), st.integers(0, 6)),
        st.tuples(st.just("wait"), st.sampled_from([0.1, 1.0, 7.0, 60.0])),
        st.tuples(st.just("stop"), st.integers(0, 5)),
        st.tuples(st.just("kill"), st.integers(0, 5)),
    ),
    max_size=8,
)
percents = st.sampled_from([(100, 200), (50, 200), (50, 100), (0, 100), (75, 150), (100, 134)])


def play(simulation: Simulation, deed: str, what: object) -> None:
    live = simulation.live()
    match deed, what:
        case "deploy", Behaviour():
            simulation.deploy(what)
        case "scale", int():
            simulation.scale(what)
        case "wait", float():
            simulation.run(what)
        case "stop", int() if live:
            simulation.stop_task(live[what % len(live)].id)
        case "kill", int() if live:
            task = live[what % len(live)]
            age = simulation.now - simulation.begun[task.id]
            simulation.overrides[task.id] = Behaviour(exits_at=age + 0.01)
            simulation.run(0.02)


@settings(max_examples=60, deadline=None)
@given(behaviours, st.integers(0, 5), percents, deeds)
def test_a_good_deployment_always_arrives(first: Behaviour, desired: int, percent: tuple[int, int], story):
    simulation = Simulation(desired=desired, minimum=percent[0], maximum=percent[1], behaviour=first)
    for deed, what in story:
        play(simulation, deed, what)

    simulation.deploy(GOOD)
    # A task of an older deployment may take 90 s to be RUNNING and 30 s to stop.
    simulation.run_until(lambda: simulation.stable() or is_stuck(simulation), seconds=2000)

    if not is_stuck(simulation):
        assert simulation.healthy() == simulation.service.desired_count
        assert simulation.revisions().keys() <= {simulation.service.task_definition}
        assert simulation.messages()[0] == "has reached a steady state."
        simulation.run(100)
        assert simulation.stable()
        assert simulation.wake_at is None


def is_stuck(simulation: Simulation) -> bool:
    """Tell whether the percentages leave no step: only where they round to the desired count itself."""
    newest = simulation.messages()[0]
    if "unable to stop or start" not in newest:
        return False
    minimum = simulation.service.deployment_configuration["minimumHealthyPercent"]
    maximum = simulation.service.deployment_configuration["maximumPercent"]
    desired = simulation.service.desired_count
    assert -(-desired * minimum // 100) == desired * maximum // 100 == desired
    return True


@settings(max_examples=60, deadline=None)
@given(behaviours, st.integers(1, 5), percents, deeds, st.booleans())
def test_the_circuit_breaker_always_comes_to_an_end(
    first: Behaviour, desired: int, percent: tuple[int, int], story, rollback: bool
):
    """A revision that cannot start ends FAILED, or the service lands on a revision that was stable once."""
    simulation = Simulation(
        desired=desired,
        minimum=percent[0],
        maximum=percent[1],
        behaviour=first,
        breaker={"enable": True, "rollback": rollback},
    )
    for deed, what in story:
        play(simulation, deed, what)
    stable = {item.task_definition for item in [*simulation.service.deployments, *simulation.service.history]
              if item.was_stable}  # fmt: skip
    simulation.scale(max(1, simulation.service.desired_count))
    last = simulation.deploy(Behaviour(failure="CannotStartContainerError: x"))

    simulation.run(3000)

    primary = simulation.primary()
    stuck = any("unable to stop or start" in message for message in simulation.messages())
    if primary.id == last:
        assert primary.rollout_state == "FAILED" or stuck
        assert stuck or not (rollback and stable)
    else:
        assert rollback
        assert primary.is_rollback
        assert primary.task_definition in stable
    started = simulation.started
    if primary.rollout_state == "FAILED":
        simulation.run(3000)
        assert simulation.started == started


@settings(max_examples=30, deadline=None)
@given(behaviours, st.integers(0, 5), deeds)
def test_a_deleted_service_always_ends(first: Behaviour, desired: int, story):
    simulation = Simulation(desired=desired, behaviour=first)
    for deed, what in story:
        play(simulation, deed, what)

    simulation.delete()
    simulation.run(60)

    assert simulation.service.status == "INACTIVE"
    assert all(task.last_status == "STOPPED" for task in simulation.tasks.values())

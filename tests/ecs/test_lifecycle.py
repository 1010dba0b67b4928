"""The life of a task: its table, each thing that may be seen of it, and what holds for every sequence."""

from __future__ import annotations

import itertools

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kecs.ecs import lifecycle
from kecs.ecs.context import Knobs
from kecs.ecs.lifecycle import NEXT, ORDER, ContainerObservation, TaskObservation
from kecs.ecs.model import Container, Task, TaskPort

NOW = 1_000_000.0
KNOBS = Knobs()
PORT = 29999
ENI = {"id": "a", "type": "ElasticNetworkInterface", "status": "PRECREATED", "details": []}


def container(name: str = "web", **members: object) -> Container:
    return Container(name=name, id=name, image="image", **members)


def task(*containers: Container, ports: list[TaskPort] | None = None, **members: object) -> Task:
    known: dict[str, object] = {
        "region": "r", "cluster": "c", "id": "t", "group": "family:web", "task_definition": "web:1",
        "family": "web", "revision": 1, "created_at": NOW, "attachments": [ENI],
    }  # fmt: skip
    port = TaskPort(container="web", container_port=80, host_port=PORT)
    return Task(
        containers=list(containers) or [container()],
        ports=[port] if ports is None else ports,
        **(known | members),
    )


def seen(name: str = "web", status: str = "RUNNING", **members: object) -> ContainerObservation:
    return ContainerObservation(name=name, status=status, **members)


def running(*, port: int | None = PORT, host: str = "127.0.0.1", **members: object) -> TaskObservation:
    listening = [] if port is None else [(host, port)]
    return TaskObservation(containers=[seen(listening=listening, started_at=NOW, **members)])


def observe(row: Task, *observations: TaskObservation, at: float = NOW, knobs: Knobs = KNOBS) -> Task:
    for item in observations:
        row = lifecycle.observe(row, item, at, knobs)
    return row


PENDING = TaskObservation(containers=[seen(status="PENDING")])
EXITED = TaskObservation(containers=[seen(status="STOPPED", exit_code=3)])
ENDED = TaskObservation(containers=[seen(status="STOPPED", exit_code=0)], ended=True)
UP = observe(task(), running())


def test_the_table_leads_only_forward_and_always_to_stopped():
    for status, following in NEXT.items():
        assert all(ORDER[after] > ORDER[status] for after in following)
        assert following or status == "STOPPED"


@pytest.mark.parametrize("start", NEXT)
@pytest.mark.parametrize("goal", NEXT)
def test_every_goal_ahead_is_reached_and_none_behind(start: str, goal: str):
    row = lifecycle.advance(task(last_status=start), goal, NOW + 1)  # type: ignore[arg-type]

    assert row.last_status == max(start, goal, key=ORDER.__getitem__)


def test_the_way_up_notes_each_status_and_the_network_interface():
    row, found = task(), []
    for at, goal in enumerate(["PENDING", "ACTIVATING", "RUNNING"], start=1):
        row = lifecycle.advance(row, goal, NOW + at)  # type: ignore[arg-type]
        found.append((row.last_status, row.attachments[0]["status"], row.version))

    assert found == [("PENDING", "ATTACHING", 2), ("ACTIVATING", "ATTACHED", 3), ("RUNNING", "ATTACHED", 4)]
    assert (row.connectivity_at, row.pull_started_at, row.started_at) == (NOW + 2, NOW + 2, NOW + 3)


def test_other_attachments_are_left_alone():
    other = {"id": "b", "type": "Service Connect", "status": "ATTACHED"}

    row = lifecycle.advance(task(attachments=[ENI, other]), "STOPPED", NOW)

    assert [item["status"] for item in row.attachments] == ["DELETED", "ATTACHED"]


def test_a_task_that_never_started_is_stopped_without_ever_having_been_pulled_or_run():
    row = lifecycle.advance(task(), "STOPPED", NOW + 1)

    assert (row.pull_started_at, row.connectivity_at, row.started_at, row.execution_stopped_at) == (None,) * 4
    assert (row.stopping_at, row.stopped_at) == (NOW + 1, NOW + 1)


def test_running_is_when_it_listens():
    row = observe(task(), PENDING)
    assert (row.last_status, row.pull_stopped_at) == ("ACTIVATING", None)

    row = observe(row, running(port=None), at=NOW + 1)
    assert (row.last_status, row.pull_stopped_at) == ("ACTIVATING", NOW + 1)
    assert row.containers[0].last_status == "RUNNING"

    row = observe(row, running(port=3000), at=NOW + 2)
    assert (row.last_status, row.containers[0].listening) == ("ACTIVATING", [3000])

    row = observe(row, running(), at=NOW + 3)
    assert (row.last_status, row.started_at, row.ports[0].ready) == ("RUNNING", NOW + 3, True)


def test_a_first_observation_may_skip_everything_before_running():
    row = observe(task(), running(), at=NOW + 3)

    assert (row.last_status, row.started_at, row.pull_started_at) == ("RUNNING", NOW + 3, NOW + 3)
    assert (row.attachments[0]["status"], row.version) == ("ATTACHED", 2)


def test_ready_timeout_makes_it_running_but_its_port_not_ready():
    row = observe(task(), running(port=3000), at=NOW + 2)
    assert lifecycle.next_wake(row, NOW + 2, KNOBS) == NOW + KNOBS.ready_timeout

    early = lifecycle.tick(row, NOW + KNOBS.ready_timeout - 0.01, KNOBS)
    late = lifecycle.tick(row, NOW + KNOBS.ready_timeout, KNOBS)

    assert early == row
    assert (late.last_status, late.ports[0].ready) == ("RUNNING", False)
    assert not lifecycle.endpoint_ready(late, late.ports[0])


def test_the_time_out_begins_when_the_last_container_runs():
    row = task(container(), container("side", essential=False))
    both = [seen(started_at=NOW), seen("side", started_at=NOW + 7)]

    assert lifecycle.next_wake(observe(row, running(port=None)), NOW, KNOBS) is None
    row = observe(row, TaskObservation(containers=both), at=NOW + 7)
    assert lifecycle.next_wake(row, NOW + 7, KNOBS) == NOW + 7 + KNOBS.ready_timeout


def tcp(name: str, port: int) -> TaskPort:
    return TaskPort(container=name, container_port=port, host_port=port)


@pytest.mark.parametrize(
    ("containers", "ports", "observed", "expected"),
    [
        # No port mappings: RUNNING when it runs.
        ([container()], [], [seen()], "RUNNING"),
        # One of two ports is enough.
        ([container()], [tcp("web", 1), tcp("web", 2)], [seen(listening=[("::1", 2)])], "RUNNING"),
        # Every essential container with ports must listen.
        ([container(), container("api")], [tcp("web", 1), tcp("api", 2)],
         [seen(listening=[("::1", 1)]), seen("api")], "ACTIVATING"),
        # A container that is not essential need not listen, but it must run.
        ([container(), container("side", essential=False)], [tcp("web", 1), tcp("side", 2)],
         [seen(listening=[("::1", 1)]), seen("side")], "RUNNING"),
        ([container(), container("side", essential=False)], [tcp("web", 1)],
         [seen(listening=[("::1", 1)]), seen("side", "PENDING")], "ACTIVATING"),
        # A finished one counts, whether it ran (COMPLETE) or could not start.
        ([container(), container("init", essential=False)], [tcp("web", 1)],
         [seen(listening=[("::1", 1)]), seen("init", "STOPPED", exit_code=0)], "RUNNING"),
        ([container(), container("init", essential=False)], [tcp("web", 1)],
         [seen(listening=[("::1", 1)]), seen("init", "STOPPED", reason="CannotStart")], "RUNNING"),
        # UDP shows no listener.
        ([container()], [TaskPort(container="web", container_port=53, protocol="udp", host_port=53)],
         [seen()], "RUNNING"),
        # A container that the runtime does not speak of yet.
        ([container(), container("api")], [], [seen()], "ACTIVATING"),
    ],
)  # fmt: skip
def test_when_a_task_is_running(containers, ports, observed, expected: str):
    row = observe(task(*containers, ports=ports), TaskObservation(containers=observed))

    assert row.last_status == expected


def test_a_port_is_ready_while_something_listens_and_keeps_the_host_that_answers():
    row = observe(task(), running(host="::1"))
    assert (row.ports[0].ready, row.ports[0].host) == (True, "::1")

    both = TaskObservation(containers=[seen(listening=[("127.0.0.1", PORT), ("::1", PORT)])])
    assert observe(row, both).ports[0].host == "::1"
    assert observe(task(), both).ports[0].host == "127.0.0.1"

    gone = observe(row, running(port=None), at=NOW + 1)
    assert (gone.last_status, gone.ports[0].ready) == ("RUNNING", False)


def test_a_udp_port_is_ready_while_the_task_runs():
    port = TaskPort(container="web", container_port=53, protocol="udp", host_port=53)
    two = task(container(), container("side", essential=False), ports=[port])
    row = observe(two, TaskObservation(containers=[seen(), seen("side", "PENDING")]))
    assert not row.ports[0].ready

    row = observe(row, TaskObservation(containers=[seen(), seen("side")]))
    assert row.ports[0].ready

    assert not observe(row, ENDED).ports[0].ready


def test_a_port_without_a_host_port_is_looked_for_as_it_is():
    row = task(ports=[TaskPort(container="web", container_port=80)])

    assert observe(row, running(port=80)).last_status == "RUNNING"


def test_a_healthy_task_without_a_check_counts_after_a_while():
    row = observe(task(), running(), knobs=Knobs(healthy_after=4.0, time_scale=0.5))

    assert row.healthy_at == NOW + 2
    assert lifecycle.next_wake(row, NOW, KNOBS) == NOW + 2
    assert lifecycle.next_wake(row, NOW + 2, KNOBS) is None
    assert not lifecycle.task_is_healthy(row, NOW + 1.9)
    assert lifecycle.task_is_healthy(row, NOW + 2)
    assert row.health_status == "UNKNOWN"


def test_a_health_check_decides_when_there_is_one():
    row = observe(task(container(has_health_check=True)), running())
    assert (row.last_status, row.health_status, row.healthy_at) == ("RUNNING", "UNKNOWN", None)

    row = observe(row, running(health="HEALTHY"), at=NOW + 5)
    assert (row.health_status, row.healthy_at) == ("HEALTHY", NOW + 5)
    assert lifecycle.task_is_healthy(row, NOW + 5)

    # After a restart of the control plane its checks begin anew.
    row = observe(row, running(health="UNKNOWN"), at=NOW + 6)
    assert lifecycle.task_is_healthy(row, NOW + 6)

    row = observe(row, running(health="UNHEALTHY"), at=NOW + 7)
    assert (row.last_status, row.health_status, row.healthy_at) == ("RUNNING", "UNHEALTHY", None)
    assert not lifecycle.task_is_healthy(row, NOW + 99)


def test_health_seen_before_running_counts_from_running_on():
    row = observe(task(container(has_health_check=True)), running(port=None, health="HEALTHY"))
    assert (row.last_status, row.healthy_at) == ("ACTIVATING", None)

    assert observe(row, running(health="HEALTHY"), at=NOW + 1).healthy_at == NOW + 1


@pytest.mark.parametrize(
    ("health", "expected"),
    [
        ({"a": "HEALTHY", "b": "HEALTHY"}, "HEALTHY"),
        ({"a": "HEALTHY", "b": "UNKNOWN"}, "UNKNOWN"),
        ({"a": "UNKNOWN", "b": "UNHEALTHY"}, "UNHEALTHY"),
        ({"a": "HEALTHY", "b": "HEALTHY", "side": "UNHEALTHY"}, "HEALTHY"),
        ({"a": "HEALTHY", "b": "HEALTHY", "unchecked": "UNHEALTHY"}, "HEALTHY"),
    ],
)
def test_the_health_of_a_task_is_that_of_its_essential_checked_containers(
    health: dict[str, str], expected: str
):
    row = task(
        container("a", has_health_check=True),
        container("b", has_health_check=True),
        container("side", has_health_check=True, essential=False),
        container("unchecked"),
        ports=[],
    )
    observed = [seen(name, health=health.get(name, "UNKNOWN")) for name in ("a", "b", "side", "unchecked")]

    row = observe(row, TaskObservation(containers=observed))

    assert row.health_status == expected
    assert row.containers[3].health_status == "UNKNOWN"


def test_a_container_without_a_check_reports_unknown_whatever_the_runtime_says():
    assert observe(task(), running(health="HEALTHY")).containers[0].health_status == "UNKNOWN"


def test_an_essential_container_that_exits_ends_the_task():
    exit_seen = TaskObservation(containers=[seen(status="STOPPED", exit_code=3, finished_at=NOW + 4)])

    row = observe(UP, exit_seen, at=NOW + 5)

    assert (row.last_status, row.desired_status) == ("STOPPING", "STOPPED")
    assert (row.stop_code, row.stopped_reason) == (
        "EssentialContainerExited",
        "Essential container in task exited",
    )
    assert (row.execution_stopped_at, row.stopping_at, row.stopped_at) == (NOW + 4, NOW + 5, None)
    assert (row.containers[0].exit_code, row.ports[0].ready) == (3, False)
    assert lifecycle.is_draining(row)

    row = observe(row, ENDED, at=NOW + 6)
    assert (row.last_status, row.stopped_at, row.attachments[0]["status"]) == ("STOPPED", NOW + 6, "DELETED")
    assert row.containers[0].exit_code == 3, "the first exit code is the true one"


def test_a_container_that_is_not_essential_may_exit():
    row = task(container(), container("side", essential=False))
    row = observe(row, TaskObservation(containers=[*running().containers, seen("side")]))

    row = observe(
        row, TaskObservation(containers=[*running().containers, seen("side", "STOPPED", exit_code=1)])
    )

    assert (row.last_status, row.desired_status, row.execution_stopped_at) == ("RUNNING", "RUNNING", None)
    assert row.containers[1].exit_code == 1


def test_a_short_job_was_running_when_it_began_even_if_nobody_saw_it():
    done = seen(status="STOPPED", exit_code=0, started_at=NOW + 1, finished_at=NOW + 2)

    row = observe(task(ports=[]), TaskObservation(containers=[done], ended=True), at=NOW + 5)

    assert (row.last_status, row.stop_code) == ("STOPPED", "EssentialContainerExited")
    assert (row.started_at, row.execution_stopped_at, row.stopped_at) == (NOW + 1, NOW + 2, NOW + 5)


def test_nothing_of_a_task_began_before_the_task():
    """A kubelet says when in whole seconds, by its own clock."""
    done = seen(status="STOPPED", exit_code=0, started_at=NOW - 0.5, finished_at=NOW - 0.5)

    row = observe(task(ports=[]), TaskObservation(containers=[done], ended=True), at=NOW + 1)

    assert (row.created_at, row.started_at, row.execution_stopped_at) == (NOW, NOW, NOW)


def test_an_end_seen_late_is_not_before_the_task_was_running():
    row = observe(task(ports=[]), running(), at=NOW + 3)

    done = seen(status="STOPPED", exit_code=0, started_at=NOW, finished_at=NOW + 2)
    row = observe(row, TaskObservation(containers=[done], ended=True), at=NOW + 4)

    assert (row.started_at, row.execution_stopped_at) == (NOW + 3, NOW + 3)


def test_containers_that_never_ran_together_were_never_a_running_task():
    first = seen("a", "STOPPED", exit_code=0, started_at=NOW + 1, finished_at=NOW + 2)
    second = seen("b", started_at=NOW + 3)

    row = observe(
        task(container("a"), container("b"), ports=[]),
        TaskObservation(containers=[first, second]),
        at=NOW + 4,
    )

    assert (row.last_status, row.started_at, row.execution_stopped_at) == ("STOPPING", None, NOW + 2)


def test_what_died_before_it_listened_never_was_running():
    row = observe(task(), running(port=None), EXITED)

    assert (row.last_status, row.started_at, row.stop_code) == ("STOPPING", None, "EssentialContainerExited")
    assert row.execution_stopped_at == NOW


@pytest.mark.parametrize(
    ("observation", "reason"),
    [
        (TaskObservation(failure="ResourceInitializationError: no secret"),
         "ResourceInitializationError: no secret"),
        (TaskObservation(containers=[seen(status="STOPPED", reason="CannotStartContainerError: no command")]),
         "CannotStartContainerError: no command"),
        (TaskObservation(containers=[seen(status="STOPPED")]), "Task failed to start"),
        (TaskObservation(ended=True), "Task failed to start"),
        (TaskObservation(port_taken=29999, ended=True),
         "ResourceInitializationError: port 29999 was taken by another program"),
    ],
)  # fmt: skip
def test_a_failure_to_start(observation: TaskObservation, reason: str):
    row = observe(task(), observation)

    assert (row.stop_code, row.stopped_reason) == ("TaskFailedToStart", reason)
    assert (row.started_at, row.execution_stopped_at, row.desired_status) == (None, None, "STOPPED")
    assert row.last_status == ("STOPPED" if observation.ended else "STOPPING")


def test_the_reason_of_a_container_is_kept_with_it():
    failed = TaskObservation(containers=[seen(status="STOPPED", reason="CannotStartContainerError: x")])

    assert observe(task(), failed).containers[0].reason == "CannotStartContainerError: x"


def test_a_failure_after_running_is_no_failure_to_start():
    row = observe(UP, TaskObservation(failure="OutOfMemoryError: killed", ended=True))

    assert (row.stop_code, row.stopped_reason) == ("EssentialContainerExited", "OutOfMemoryError: killed")


def test_a_lost_task_is_stopped_and_says_so():
    row = observe(UP, TaskObservation(lost=True), at=NOW + 9)

    assert (row.last_status, row.stop_code) == ("STOPPED", "InfrastructureHealth")
    assert row.stopped_reason == lifecycle.LOST
    assert (row.containers[0].last_status, row.containers[0].exit_code) == ("STOPPED", None)
    assert observe(UP, TaskObservation(lost=True, failure="the shim died")).stopped_reason == "the shim died"


def test_a_planned_stop_waits_in_deactivating_until_the_forwards_let_go():
    row = lifecycle.request_stop(UP, "UserInitiated", "Task stopped by user", NOW + 1)
    assert (row.last_status, row.desired_status, row.stopping_at) == ("DEACTIVATING", "STOPPED", NOW + 1)
    assert (row.stop_code, row.stopped_reason) == ("UserInitiated", "Task stopped by user")
    assert lifecycle.is_draining(row)
    assert lifecycle.endpoint_ready(row, row.ports[0])

    again = observe(row, running(), at=NOW + 2)
    assert (again.last_status, again.ports[0].ready) == ("DEACTIVATING", True)

    row = lifecycle.begin_stopping(row, NOW + 3)
    assert (row.last_status, row.stopping_at) == ("STOPPING", NOW + 1)

    row = observe(row, ENDED, at=NOW + 4)
    assert (row.last_status, row.stop_code, row.stopped_at) == ("STOPPED", "UserInitiated", NOW + 4)
    assert row.execution_stopped_at == NOW + 4


def test_a_task_that_dies_while_it_drains_has_nothing_to_wait_for():
    row = observe(lifecycle.request_stop(UP, "UserInitiated", "why", NOW), EXITED)

    assert (row.last_status, row.stop_code, row.stopped_reason) == ("STOPPING", "UserInitiated", "why")


@pytest.mark.parametrize("status", ["PROVISIONING", "PENDING", "ACTIVATING"])
def test_a_task_that_serves_nobody_yet_is_stopped_at_once(status: str):
    row = lifecycle.request_stop(task(last_status=status), "UserInitiated", "why", NOW)

    assert (row.last_status, row.started_at, row.stopping_at) == ("STOPPING", None, NOW)


def test_a_task_that_serves_before_it_is_running_drains_too():
    two = task(container(), container("api"), ports=[tcp("web", PORT), tcp("api", 1)])
    row = observe(two, TaskObservation(containers=[*running().containers, seen("api")]))
    assert row.last_status == "ACTIVATING"

    row = lifecycle.request_stop(row, "UserInitiated", "why", NOW)

    assert (row.last_status, row.started_at) == ("DEACTIVATING", None)


def test_the_first_to_ask_for_a_stop_gives_the_reason():
    first = lifecycle.request_stop(UP, "ServiceSchedulerInitiated", "scaling", NOW)

    assert lifecycle.request_stop(first, "UserInitiated", "me too", NOW + 1) is first
    assert observe(first, ENDED).stopped_reason == "scaling"


def test_nothing_begins_to_stop_unasked():
    assert lifecycle.begin_stopping(UP, NOW) is UP


def test_a_task_that_stops_before_it_counted_as_healthy_never_did():
    soon = lifecycle.request_stop(UP, "UserInitiated", "why", NOW + 0.5)
    late = lifecycle.request_stop(UP, "UserInitiated", "why", NOW + 1.5)

    assert soon.healthy_at is None
    assert late.healthy_at == NOW + 1
    assert not lifecycle.task_is_healthy(late, NOW + 2)


def test_version_grows_with_each_change_and_only_then():
    row = observe(task(), running())
    assert row.version == 2
    assert observe(row, running(), at=NOW + 50) is row
    assert lifecycle.tick(row, NOW + 50, KNOBS) is row
    assert lifecycle.request_stop(row, "UserInitiated", "why", NOW).version == 3


def test_late_observations_of_a_container_are_ignored():
    side = container("side", essential=False)
    row = observe(task(container(), side), TaskObservation(containers=[seen("side", "STOPPED", exit_code=1)]))

    late = TaskObservation(containers=[seen("side", "RUNNING", listening=[("127.0.0.1", PORT)])])

    assert observe(row, late).containers[1] == row.containers[1]
    assert not observe(row, late).ports[0].ready
    assert observe(UP, PENDING).containers[0].last_status == "RUNNING"


def test_runtime_id_is_kept():
    row = observe(task(), running(runtime_id="pid-7"))

    assert observe(row, ENDED).containers[0].runtime_id == "pid-7"


@pytest.mark.parametrize("observation", [PENDING, running(), EXITED, ENDED, TaskObservation(lost=True)])
def test_nothing_changes_a_stopped_task(observation: TaskObservation):
    row = observe(UP, ENDED)

    assert observe(row, observation, at=NOW + 9) is row
    assert lifecycle.tick(row, NOW + 99, KNOBS) is row
    assert lifecycle.request_stop(row, "UserInitiated", "why", NOW) is row
    assert lifecycle.begin_stopping(row, NOW) is row
    assert lifecycle.next_wake(row, NOW, KNOBS) is None
    assert not any(lifecycle.endpoint_ready(row, port) for port in row.ports)


def test_a_task_that_is_run_anew_begins_its_containers_again():
    tried = observe(task(), running(port=None, runtime_id="one", health="UNHEALTHY"))

    row = lifecycle.begin_again(tried)

    assert row.containers == task().containers
    assert (row.last_status, row.version) == ("ACTIVATING", tried.version + 1)
    assert lifecycle.next_wake(row, NOW, KNOBS) is None, "the time-out begins with the second start"
    again = observe(row, running(runtime_id="two"), at=NOW + 60)
    assert (again.last_status, again.containers[0].runtime_id) == ("RUNNING", "two")


@pytest.mark.parametrize("row", [UP, lifecycle.request_stop(task(), "UserInitiated", "why", NOW)])
def test_a_task_that_was_running_or_is_stopping_is_not_run_anew(row: Task):
    assert lifecycle.begin_again(row) is row


containers_seen = st.lists(
    st.builds(
        ContainerObservation,
        name=st.sampled_from(["web", "side", "stranger"]),
        status=st.sampled_from(["PENDING", "RUNNING", "STOPPED"]),
        exit_code=st.none() | st.integers(0, 255),
        reason=st.none() | st.just("CannotStartContainerError: x"),
        health=st.sampled_from(["HEALTHY", "UNHEALTHY", "UNKNOWN"]),
        listening=st.lists(st.sampled_from([("127.0.0.1", PORT), ("::1", PORT), ("::1", 5)]), max_size=2),
        started_at=st.none() | st.floats(NOW - 5, NOW + 50),
        finished_at=st.none() | st.floats(NOW - 5, NOW + 50),
    ),
    max_size=3,
)
observations = st.builds(
    TaskObservation,
    containers=containers_seen,
    ended=st.booleans() | st.just(False),
    failure=st.none() | st.just("ResourceInitializationError: x"),
    lost=st.booleans(),
    port_taken=st.none() | st.just(PORT),
)
quiet = st.builds(TaskObservation, containers=containers_seen)
deeds = st.lists(
    quiet | observations | st.sampled_from(["stop", "begin", "tick", "PENDING", "ACTIVATING"]), max_size=12
)


@given(deeds, st.lists(st.floats(0, 20), min_size=13, max_size=13), st.booleans(), st.booleans())
def test_any_sequence_leads_forward_and_the_end_is_final(deeds, pauses, checked: bool, essential: bool):
    """Whatever is seen and asked: never backwards, times in order, STOPPED once it ended."""
    row = task(
        container(has_health_check=checked), container("side", essential=essential, has_health_check=True)
    )
    now = NOW
    over = False
    for deed, pause in zip(deeds, pauses, strict=False):
        now += pause
        before = row
        row = _done(row, deed, now)
        over = over or (isinstance(deed, TaskObservation) and (deed.ended or deed.lost))
        _check_step(before, row)
        assert (row.last_status == "STOPPED") == over
    final = observe(row, TaskObservation(ended=True), at=now + 1)
    _check_step(row, final)
    assert final.last_status == "STOPPED"
    assert final.stop_code is not None
    assert final.stopped_reason


def _done(row: Task, deed: object, now: float) -> Task:
    match deed:
        case TaskObservation():
            return lifecycle.observe(row, deed, now, KNOBS)
        case "stop":
            return lifecycle.request_stop(row, "UserInitiated", "Task stopped by user", now)
        case "begin":
            return lifecycle.begin_stopping(row, now)
        case "tick":
            return lifecycle.tick(row, now, KNOBS)
        case _:
            return lifecycle.advance(row, str(deed), now)  # type: ignore[arg-type]


def _check_step(before: Task, row: Task) -> None:
    """What holds of every change of a task."""
    assert ORDER[row.last_status] >= ORDER[before.last_status]
    changed = msgspec.structs.replace(row, version=before.version) != before
    assert row.version == before.version + changed
    assert not (before.desired_status == "STOPPED" and row.desired_status == "RUNNING")
    if before.stop_code is not None:
        assert (row.stop_code, row.stopped_reason) == (before.stop_code, before.stopped_reason)
    assert (row.desired_status == "STOPPED") == (row.stop_code is not None)
    if ORDER[row.last_status] > ORDER["RUNNING"]:
        assert row.desired_status == "STOPPED"
    for name in ("started_at", "stopping_at", "stopped_at", "execution_stopped_at", "pull_started_at"):
        known = getattr(before, name)
        assert known is None or getattr(row, name) == known, f"{name} changed afterwards"
    for first, later in itertools.pairwise(
        [at for at in (row.created_at, row.stopping_at, row.stopped_at) if at is not None]
    ):
        assert first <= later
    assert row.started_at is None or row.created_at <= row.started_at
    if row.started_at is not None and row.execution_stopped_at is not None:
        assert row.started_at <= row.execution_stopped_at
    assert (row.stopped_at is not None) == (row.last_status == "STOPPED")
    if row.last_status == "STOPPED":
        assert all(item.last_status == "STOPPED" for item in row.containers)
        assert not any(port.ready for port in row.ports)
    order = {"PENDING": 0, "RUNNING": 1, "STOPPED": 2}
    for old, new in zip(before.containers, row.containers, strict=True):
        assert order[new.last_status] >= order[old.last_status]
        assert old.exit_code is None or new.exit_code == old.exit_code


POD = {"namespace": "n", "pod": "web-t", "network_mode": "awsvpc"}


def test_a_port_of_a_pod_is_looked_for_by_its_container_port():
    """With a literal hostPort it is the node that listens there; the pod listens on its own port."""
    for host_port in (0, 8080):
        port = TaskPort(container="web", container_port=80, host_port=host_port)
        row = observe(task(ports=[port], **POD), running(port=80, host="10.42.0.7"))

        assert (row.last_status, row.ports[0].ready, row.ports[0].host) == ("RUNNING", True, "10.42.0.7")
        assert not observe(task(ports=[port], **POD), running(port=8080)).ports[0].ready


LEAVING = msgspec.structs.replace(running(), leaving="Its pod was deleted")


def test_a_task_that_somebody_else_ends_drains_while_it_serves():
    """It leaves the forwards as at a planned stop, keeps the first reason, and ends by what is seen later."""
    row = observe(UP, LEAVING, at=NOW + 1)
    assert (row.last_status, row.desired_status) == ("DEACTIVATING", "STOPPED")
    assert (row.stop_code, row.stopped_reason) == ("InfrastructureHealth", "Its pod was deleted")
    assert lifecycle.is_draining(row)
    assert row.ports[0].ready

    gone = observe(row, LEAVING, ENDED, at=NOW + 6)
    assert (gone.last_status, gone.stopped_reason) == ("STOPPED", "Its pod was deleted")
    assert observe(UP, msgspec.structs.replace(ENDED, leaving="Its pod was deleted")).last_status == "STOPPED"


def test_a_task_that_somebody_else_ends_before_it_serves_only_stops():
    row = observe(task(), msgspec.structs.replace(PENDING, leaving="Its pod was deleted"))
    assert (row.last_status, row.stopped_reason) == ("STOPPING", "Its pod was deleted")


def test_a_planned_stop_keeps_its_own_reason_when_the_runtime_sees_it_leave():
    asked = lifecycle.request_stop(UP, "UserInitiated", "because", NOW)
    row = observe(asked, LEAVING)
    assert (row.last_status, row.stop_code, row.stopped_reason) == (
        "DEACTIVATING",
        "UserInitiated",
        "because",
    )


def test_a_task_without_a_place_is_pending_and_says_why_until_it_has_one():
    row = observe(task(), msgspec.structs.replace(PENDING, placed=False))
    assert (row.last_status, row.waiting) == ("PENDING", None)
    row = observe(row, msgspec.structs.replace(PENDING, placed=False, waiting="0/1 nodes are available"))
    assert (row.last_status, row.waiting) == ("PENDING", "0/1 nodes are available")

    row = observe(row, PENDING)
    assert (row.last_status, row.waiting) == ("ACTIVATING", None)

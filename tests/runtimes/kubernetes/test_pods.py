"""From Pods as a real kubelet reported them (`recorded/`) to what ECS sees of their tasks.

The recordings are of Kubernetes 1.35 with containerd, made by `kubectl get pod -o json` and cut down to the
members that are read.
"""

import copy
import json
import math
from pathlib import Path

import msgspec
import pytest
from tests.runtimes.kubernetes.definitions import OWNER, task_of

from kecs.runtimes.base import ContainerObserved, TaskObserved
from kecs.runtimes.kubernetes import manifests, pods, reasons

RECORDED = Path(__file__).parent / "recorded"


def recorded(name):
    return json.loads((RECORDED / f"{name}.json").read_text())


def seen(name, container="web", at=0.0):
    """Return what is seen of a container of a recording, `at` seconds of the epoch."""
    return next(one for one in pods.observe(recorded(name), at).containers if one.name == container)


CONTAINERS = {
    ("serves", "web"): ("RUNNING", None, None),
    ("exit-3", "web"): ("STOPPED", 3, None),
    ("out-of-memory", "web"): ("STOPPED", 137, "OutOfMemoryError: Container killed due to memory usage"),
    ("first-pull-failed", "web"): ("PENDING", None, None),
    ("pull-answered", "web"): (
        "STOPPED",
        None,
        (
            'CannotPullContainerError: failed to resolve reference "127.0.0.1:5055/absent:1": '
            "127.0.0.1:5055/absent:1: not found"
        ),
    ),
    ("deleted-before-it-ran", "web"): ("STOPPED", None, None),
    ("pull-backed-off", "web"): (
        "STOPPED",
        None,
        (
            'CannotPullContainerError: failed to resolve reference "kecs.test/absent:1": failed to do '
            'request: Head "https://kecs.test/v2/absent/manifests/1": no such host'
        ),
    ),
    ("invalid-image-name", "web"): (
        "STOPPED",
        None,
        (
            'CannotPullContainerError: Failed to apply default image tag "kecs.test/Absent:1": couldn\'t '
            'parse image name "kecs.test/Absent:1": invalid reference format: repository name (Absent) must '
            "be lowercase"
        ),
    ),
    ("start-error", "web"): (
        "STOPPED",
        None,
        (
            "CannotStartContainerError: failed to create containerd task: failed to create shim task: OCI "
            "runtime create failed: runc create failed: unable to start container process: exec: "
            '"/not/there": '
            "stat /not/there: no such file or directory: unknown"
        ),
    ),
    ("secret-missing", "web"): (
        "STOPPED",
        None,
        'CannotCreateContainerError: secret "web-00000000000000000000000000000013" not found',
    ),
    ("unschedulable", "web"): ("PENDING", None, None),
    ("init-container-failed", "migrate"): ("STOPPED", 4, None),
    ("init-container-failed", "web"): (
        "STOPPED",
        None,
        (
            "CannotStartContainerError: dependency graph: failed to resolve container ordering dependency "
            "[migrate] for target [web] as dependency did not exit successfully"
        ),
    ),
    ("sidecar-ended-and-runs-again", "db"): ("STOPPED", 5, None),
    ("sidecar-ended-and-runs-again", "web"): ("RUNNING", None, None),
    ("waits-for-a-healthy-sidecar", "db"): ("RUNNING", None, None),
    ("waits-for-a-healthy-sidecar", "web"): ("PENDING", None, None),
    ("non-essential-ended", "web"): ("RUNNING", None, None),
    ("non-essential-ended", "once"): ("STOPPED", 0, None),
    ("non-essential-cannot-pull", "web"): ("RUNNING", None, None),
    ("evicted", "web"): ("STOPPED", 137, None),
    ("sysctl-refused", "web"): ("STOPPED", None, None),
}


@pytest.mark.parametrize("case", CONTAINERS, ids=lambda case: "/".join(case))
def test_a_container_is_seen_as_ecs_would_see_it(case):
    one = seen(*case)

    assert (one.status, one.exit_code, one.reason) == CONTAINERS[case]


TASKS = {
    "serves": (False, None, None, None),
    "exit-3": (True, None, None, None),
    "out-of-memory": (True, None, None, None),
    "start-error": (True, None, None, None),
    "init-container-failed": (True, None, None, None),
    "pull-backed-off": (False, None, None, None),
    "sidecar-ended-and-runs-again": (False, None, None, None),
    "unschedulable": (
        False,
        None,
        None,
        (
            "0/1 nodes are available: 1 Insufficient memory. no new claims to deallocate, preemption: 0/1 "
            "nodes are available: 1 Preemption is not helpful for scheduling."
        ),
    ),
    "evicted": (
        True,
        None,
        (
            "Task was stopped: its pod was evicted: Pod ephemeral local storage usage exceeds the total "
            "limit of containers 1Mi."
        ),
        None,
    ),
    "sysctl-refused": (
        True,
        (
            "ResourceInitializationError: its node refused the task's pod: SysctlForbidden: Pod was "
            'rejected: forbidden sysctl: "net.core.somaxconn" not allowlisted'
        ),
        None,
        None,
    ),
}


@pytest.mark.parametrize("name", TASKS)
def test_a_task_is_seen_as_a_whole(name):
    observed = pods.observe(recorded(name), 0.0)

    assert (observed.ended, observed.failure, observed.leaving, observed.waiting) == TASKS[name]
    assert len(observed.task_id) == 32


def test_what_a_container_has_that_ran():
    one = seen("exit-3")

    assert one.runtime_id is not None
    assert len(one.runtime_id) == 12
    assert one.finished_at - one.started_at == 1.0


def test_a_container_that_never_ran_has_no_times():
    one = seen("start-error")

    assert (one.started_at, one.exit_code) == (None, None)


def test_an_end_that_the_kubelet_makes_up_leaves_what_was_known():
    pod = recorded("deleted-before-it-ran")

    def after(**was):
        before = TaskObserved(task_id="", containers=[ContainerObserved(name="web", **was)])
        return pods.observe(pod, 0.0, before).containers[0]

    could_not = after(status="STOPPED", reason="CannotPullContainerError: no such host")
    assert (could_not.reason, could_not.exit_code) == ("CannotPullContainerError: no such host", None)
    ran = after(status="RUNNING", started_at=5.0, listening=[("10.0.0.7", 80)])
    assert (ran.status, ran.started_at, ran.exit_code, ran.listening) == ("STOPPED", 5.0, None, [])
    assert ran.reason == (
        "ContainerStatusUnknown: The container could not be located when the pod was terminated"
    )


LISTENING = {
    ("serves", "web"): [("10.244.1.2", 8080)],
    ("does-not-listen", "web"): [],
    ("healthy", "web"): [("10.244.1.11", 8080)],
    # It listens, whatever its health: that is another probe.
    ("health-check-failed", "web"): [("10.244.1.11", 8080)],
    ("waits-for-a-healthy-sidecar", "db"): [],
    ("sidecar-healthy", "db"): [("10.244.1.13", 5432)],
    ("sidecar-healthy", "web"): [("10.244.1.13", 8080)],
    # The Pod is not ready then, but this container is.
    ("non-essential-ended", "web"): [("10.244.1.17", 8080)],
    ("exit-3", "web"): [],
}


@pytest.mark.parametrize("case", LISTENING, ids=lambda case: "/".join(case))
def test_a_container_listens_when_its_probe_says_so(case):
    assert seen(*case).listening == LISTENING[case]


def test_a_container_that_is_not_essential_listens_while_it_runs():
    task = task_of({}, {"name": "side", "essential": False, "portMappings": [{"containerPort": 81}]})
    pod = manifests.pod(task, OWNER, sleep_action=True)
    pod["status"] = running(web={"ready": True}, side={"ready": True})
    pending = copy.deepcopy(pod)
    pending["status"]["containerStatuses"][1]["state"] = {"waiting": {"reason": "ContainerCreating"}}

    assert pods.observe(pod, 0.0).containers[1].listening == [("10.0.0.7", 81)]
    assert pods.observe(pending, 0.0).containers[1].listening == []


def test_udp_ports_are_not_listened_on():
    pod = manifests.pod(
        task_of({"portMappings": [{"containerPort": 53, "protocol": "udp"}]}), OWNER, sleep_action=True
    )
    pod["status"] = running(web={"ready": True})

    assert pods.observe(pod, 0.0).containers[0].listening == []


def running(**containers):
    """The status of a Pod whose containers run since the beginning of 2026."""
    return {
        "phase": "Running",
        "podIP": "10.0.0.7",
        "containerStatuses": [
            {"name": name, "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}}} | members
            for name, members in containers.items()
        ],
    }


def test_health_is_unknown_then_healthy():
    assert seen("serves").health == "UNKNOWN"  # it has no check
    assert seen("does-not-listen").health == "UNKNOWN"
    assert seen("healthy").health == "HEALTHY"


def test_a_check_that_fails_after_it_had_passed_makes_it_unhealthy():
    before = pods.observe(recorded("healthy"), 0.0)

    assert pods.observe(recorded("health-check-failed"), 0.0, before).containers[0].health == "UNHEALTHY"
    again = pods.observe(recorded("health-check-failed"), 0.0)
    assert again.containers[0].health == "UNKNOWN"  # without memory, until its time is over


def test_one_that_was_never_healthy_is_unhealthy_when_its_time_is_over():
    pod = recorded("does-not-listen")  # interval 5, one try, no start period
    began = seen("does-not-listen").started_at

    assert pods.observe(pod, began + 4.9).containers[0].health == "UNKNOWN"
    assert pods.next_look(pod, began + 4.9) == began + 5
    assert pods.observe(pod, began + 5).containers[0].health == "UNHEALTHY"
    assert pods.next_look(pod, began + 5) is None


def test_the_start_period_and_all_retries_count():
    check = {"command": ["CMD", "x"], "interval": 10, "retries": 3, "startPeriod": 60}
    pod = manifests.pod(task_of({"healthCheck": check}), OWNER, sleep_action=True)
    pod["status"] = running(web={"ready": False})
    began = pods.observe(pod, 0.0).containers[0].started_at

    assert pods.next_look(pod, began) == began + 60 + 30


def test_a_pod_without_deadlines_needs_no_second_look():
    assert pods.next_look(recorded("serves"), 0.0) is None
    assert pods.next_look(recorded("healthy"), 0.0) is None


def test_those_that_wait_give_up_after_the_start_timeout():
    pod = recorded("start-timeout")  # db has 3 seconds
    began = seen("start-timeout", "db").started_at
    waiting, late = (
        next(one for one in pods.observe(pod, began + at).containers if one.name == "web")
        for at in (2.9, 3.0)
    )

    assert (waiting.status, waiting.reason) == ("PENDING", None)
    assert pods.next_look(pod, began + 2.9) == began + 3
    assert (late.status, late.reason) == (
        "STOPPED",
        (
            "CannotStartContainerError: dependency graph: container ordering dependency [db] for target "
            "[web] has timed out"
        ),
    )


def test_a_start_timeout_is_over_once_the_dependency_is_healthy():
    pod = recorded("sidecar-healthy")
    notes = json.loads(pod["metadata"]["annotations"]["kecs.dev/containers"])
    notes[0]["startTimeout"] = 1
    pod["metadata"]["annotations"]["kecs.dev/containers"] = json.dumps(notes)

    assert [one.status for one in pods.observe(pod, math.inf).containers] == ["RUNNING", "RUNNING"]


def blocked(condition, **state):
    """Return what is seen of `web`, which waits for `first`, whose state this is."""
    first = {
        "name": "first",
        "essential": condition in ("START", "HEALTHY"),
        "healthCheck": {"command": ["CMD", "x"]},
    }
    web = {"dependsOn": [{"containerName": "first", "condition": condition}]}
    pod = manifests.pod(task_of(web, first), OWNER, sleep_action=True)
    pod["status"] = {
        "phase": "Pending",
        "initContainerStatuses": [{"name": "first", "ready": False, "state": state}],
        "containerStatuses": [{"name": "web", "state": {"waiting": {"reason": "PodInitializing"}}}],
    }
    return next(one for one in pods.observe(pod, 0.0).containers if one.name == "web")


def ended(code):
    return {"exitCode": code, "startedAt": "2026-01-01T00:00:00Z", "finishedAt": "2026-01-01T00:00:01Z"}


CANNOT_PULL = {"waiting": {"reason": "InvalidImageName"}}


@pytest.mark.parametrize(
    ("condition", "state", "why"),
    [
        ("COMPLETE", {"terminated": ended(0)}, None),
        ("SUCCESS", {"terminated": ended(0)}, None),
        ("SUCCESS", {"running": {"startedAt": "2026-01-01T00:00:00Z"}}, None),
        ("SUCCESS", {"terminated": ended(2)}, "as dependency did not exit successfully"),
        ("COMPLETE", {"terminated": ended(2)}, "it exited with 2, and on Kubernetes it must with 0"),
        ("SUCCESS", CANNOT_PULL, "as dependency did not exit successfully"),
        ("COMPLETE", CANNOT_PULL, "as dependency stopped before COMPLETE"),
        ("START", CANNOT_PULL, "as dependency stopped before START"),
        ("START", {"terminated": ended(2)}, None),
        ("HEALTHY", {"terminated": ended(0)}, "as dependency stopped before HEALTHY"),
    ],
)
def test_what_waits_for_what_cannot_come_is_stopped_and_says_so(condition, state, why):
    one = blocked(condition, **state)

    if why is None:
        assert (one.status, one.reason) == ("PENDING", None)
    else:
        assert one.status == "STOPPED"
        assert one.reason.startswith("CannotStartContainerError: dependency graph: failed to resolve ")
        assert why in one.reason


@pytest.mark.parametrize(
    ("reason", "message", "expected"),
    [
        ("ContainerCreating", "", None),
        ("PodInitializing", "", None),
        ("CrashLoopBackOff", "back-off 10s", None),
        ("ErrImagePull", "dial tcp: i/o timeout", None),
        ("ErrImagePull", "pull access denied", "CannotPullContainerError: pull access denied"),
        ("ErrImagePull", "401 Unauthorized", "CannotPullContainerError: 401 Unauthorized"),
        (
            "ErrImageNeverPull",
            "Container image is not present",
            "CannotPullContainerError: Container image is not present",
        ),
        ("ImagePullBackOff", "", "CannotPullContainerError: ImagePullBackOff"),
        (
            "ImagePullBackOff",
            (
                'Back-off pulling image "a:1": ErrImagePull: rpc error: code = NotFound desc = failed to '
                'pull and unpack image "docker.io/library/a:1": failed to resolve reference: not found'
            ),
            "CannotPullContainerError: failed to resolve reference: not found",
        ),
        ("ImagePullBackOff", 'Back-off pulling image "a:1"', "CannotPullContainerError: ImagePullBackOff"),
        ("CreateContainerError", "no command specified", "CannotCreateContainerError: no command specified"),
        ("RunContainerError", "exec: x", "CannotStartContainerError: exec: x"),
        # A busy node, or one whose containerd starts anew, tries again and succeeds.
        ("CreateContainerError", "context deadline exceeded", None),
        ("CreateContainerError", 'failed to reserve container name "web_0"', None),
        ("RunContainerError", "dial unix containerd.sock: connect: connection refused", None),
        ("CreateContainerConfigError", "failed to sync secret cache: timed out", None),
    ],
)
def test_a_container_waits_for_good_or_for_now(reason, message, expected):
    assert reasons.waiting({"reason": reason, "message": message}) == expected


TRIED = "Docker on this machine has no image web:1 to import"


@pytest.mark.parametrize(
    ("waiting", "expected"),
    [
        (
            {"reason": "ErrImagePull", "message": "pull access denied"},
            f"CannotPullContainerError: pull access denied ({TRIED})",
        ),
        ({"reason": "RunContainerError", "message": "exec: x"}, "CannotStartContainerError: exec: x"),
    ],
)
def test_what_was_tried_for_an_image_is_told_when_it_cannot_be_pulled(waiting, expected):
    task = task_of({"name": "web"}, {"name": "other", "essential": False})
    web, other = task.containers
    task = msgspec.structs.replace(task, containers=[msgspec.structs.replace(web, image_tried=TRIED), other])
    pod = json.loads(json.dumps(manifests.pod(task, OWNER, sleep_action=True)))
    pod["status"] = {
        "phase": "Pending",
        "containerStatuses": [
            {"name": "web", "state": {"waiting": waiting}},
            {"name": "other", "state": {"waiting": {"reason": "ErrImagePull", "message": "not found"}}},
        ],
    }

    found = {one.name: one.reason for one in pods.observe(pod, 0.0).containers}

    assert found == {"web": expected, "other": "CannotPullContainerError: not found"}


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("Evicted", "Task was stopped: its pod was evicted: why"),
        ("Preempting", "Task was stopped: its pod made room for a critical one: why"),
        ("NodeShutdown", "Task was stopped: its node shuts down: why"),
        ("Terminated", "Task was stopped: its node shuts down: why"),
        ("NodeLost", "Task was lost: its node does not answer: why"),
        ("DeadlineExceeded", "Task was stopped: its pod was active for longer than its deadline: why"),
    ],
)
def test_what_the_cluster_did_to_a_pod_is_told_apart_from_what_the_task_did(reason, expected):
    status = {"phase": "Failed", "reason": reason, "message": "why"}

    assert (reasons.of_disruption(status), reasons.of_refusal(status)) == (expected, None)


@pytest.mark.parametrize("reason", ["OutOfcpu", "NodeAffinity", "UnexpectedAdmissionError"])
def test_a_pod_that_its_node_refused_never_started(reason):
    status = {"phase": "Failed", "reason": reason, "message": "why"}

    assert reasons.of_disruption(status) is None
    assert reasons.of_refusal(status) == (
        f"ResourceInitializationError: its node refused the task's pod: {reason}: why"
    )


def test_a_pod_that_failed_by_its_containers_alone_has_no_reason_of_its_own():
    status = {"phase": "Failed"}

    assert (reasons.of_disruption(status), reasons.of_refusal(status)) == (None, None)


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        (None, "Task was stopped: its pod was deleted"),
        (
            "EvictionByEvictionAPI",
            "Task was stopped: its pod was evicted from its node, which is being drained",
        ),
        ("DeletionByTaintManager", "Task was lost: its node is not ready or does not answer"),
        ("PreemptionByScheduler", "Task was stopped: its pod made room for one of higher priority"),
        ("SomethingNew", "Task was stopped: its pod was deleted"),
    ],
)
def test_a_pod_that_another_deletes_says_who(reason, expected):
    pod = recorded("deleted-by-another")
    if reason is not None:
        pod["status"]["conditions"].append({"type": "DisruptionTarget", "status": "True", "reason": reason})

    assert pods.why_leaving(pod) == expected


def test_an_evicted_pod_has_not_ended_while_something_of_it_runs():
    pod = recorded("serves")
    pod["status"] |= {"phase": "Failed", "reason": "Evicted"}
    observed = pods.observe(pod, 0.0)

    assert not observed.ended
    assert observed.leaving == "Task was stopped: its pod was evicted"


LAST = TaskObserved(
    task_id="t",
    containers=[
        ContainerObserved(name="web", status="RUNNING", listening=[("10.0.0.7", 80)], started_at=1.0)
    ],
)


def test_a_pod_that_kecs_had_deleted_is_simply_gone():
    observed = pods.gone("t", LAST, stopping=True)

    assert (observed.ended, observed.leaving, observed.failure) == (True, None, None)
    assert (observed.containers[0].status, observed.containers[0].listening) == ("STOPPED", [])


def test_a_pod_that_another_deleted_is_said_to_be():
    assert pods.gone("t", LAST, stopping=False).leaving == "Task was stopped: its pod was deleted"


def test_a_pod_that_had_ended_before_it_was_deleted_keeps_its_own_end():
    final = pods.observe(recorded("exit-3"), 0.0)

    assert pods.gone(final.task_id, final, stopping=False) == final


def test_a_pod_that_was_never_seen_is_gone_all_the_same():
    observed = pods.gone("t", None, stopping=False)

    assert (observed.task_id, observed.ended, observed.containers) == ("t", True, [])


def test_a_pods_secret_is_known_by_its_use():
    assert pods.has_secret(recorded("secret-missing"))
    assert not pods.has_secret(recorded("serves"))


def test_a_pod_whose_notes_were_taken_away_is_still_seen():
    pod = recorded("serves")
    del pod["metadata"]["annotations"]

    assert [(one.name, one.status) for one in pods.observe(pod, 0.0).containers] == [("web", "RUNNING")]


def test_containers_have_the_names_that_ecs_knows():
    pod = manifests.pod(task_of({"name": "Web_1"}), OWNER, sleep_action=True)
    container = pod["spec"]["containers"][0]["name"]
    pod["status"] = running(**{container: {"ready": True}})

    assert container != "Web_1"
    assert [(one.name, one.status) for one in pods.observe(pod, 0.0).containers] == [("Web_1", "RUNNING")]

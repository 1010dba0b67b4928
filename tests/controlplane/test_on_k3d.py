"""The real control plane as a process on a scripted k3d and API server: a stop ends tasks, a drain too."""

from __future__ import annotations

import os
import signal
import threading

import pytest
from tests.cluster.harness.certificates import Authority, of_client
from tests.controlplane.test_on_a_cluster import NODE, every, run_pod, web
from tests.k3d.scripted import ScriptedK3d
from tests.kube.scripted import ScriptedApi
from tests.process.harness import KECS, NETWORK, Home, until
from tests.sockets import free_port

SERVER = "k3d-kecs-default-server-0"


@pytest.fixture
def api(tmp_path):
    pair = Authority(tmp_path / "ca")
    with ScriptedApi(tls=pair.server("kube", "127.0.0.1")) as server:
        server.put(NODE)
        server.user = of_client(pair.client("admin", "system:masters"))
        server.authority = pair.pair.certificate
        yield server


@pytest.fixture
def k3d(api, tmp_path):
    with ScriptedK3d(tmp_path / "k3d", listen=True) as one:
        (tmp_path / "api").mkdir()
        one.use_api(api.kubeconfig(tmp_path / "api", api.user, api.authority))
        yield one


@pytest.fixture
def kubelet(api):
    """Run every pod, and let go of those that were deleted; set the event to do nothing any more."""
    away, over = threading.Event(), threading.Event()

    def work() -> None:
        while not over.wait(0.05):
            for pod in every(api, "Pod") if not away.is_set() else ():
                if pod["metadata"].get("deletionTimestamp"):
                    api.remove("Pod", pod["metadata"]["namespace"], pod["metadata"]["name"])
                elif not pod.get("status", {}).get("containerStatuses"):
                    run_pod(api, pod)

    thread = threading.Thread(target=work)
    thread.start()
    yield away
    over.set()
    thread.join()


@pytest.fixture
def home(k3d, kubelet, tmp_path):
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    one = Home(PATH=f"{k3d.bin}:{KECS.parent}:{os.environ['PATH']}", TMPDIR=str(temporary))
    one.run("start", "--port", str(free_port()), "--runtime", "k3d", "--node-ports", "5")
    yield one
    one.close()
    assert k3d.users_kubeconfig.read_text() == "# the user's own\n"


def running(home):
    return [task for task in home.json("ps")["tasks"] if task["lastStatus"] == "RUNNING"]


def a_task_and_a_service(home):
    """Run a service of two tasks and a standalone task; return the ARN of that one."""
    web(home, count=2)
    made = home.aws().run_task(taskDefinition="web", networkConfiguration=NETWORK)
    until(lambda: len(running(home)) == 3, "all are RUNNING")
    return made["tasks"][0]["taskArn"]


def described(home, arn):
    [task] = home.aws().describe_tasks(tasks=[arn])["tasks"]
    return task


def test_a_stop_ends_and_records_the_tasks_and_the_next_start_begins_the_service_again(home, api, k3d):
    arn = a_task_and_a_service(home)
    before = {task["taskId"] for task in running(home)}

    told = home.run("stop").stderr
    assert "stopped 3 of 3 tasks" in told
    assert "stopping the cluster `kecs-default`" in told
    assert "go on" not in told
    assert every(api, "Pod") == []
    assert k3d.containers() == {SERVER: "exited"}

    home.run("start")
    until(lambda: len(running(home)) == 2, "the service has its tasks")
    assert not {task["taskId"] for task in running(home)} & before
    task = described(home, arn)
    assert (task["lastStatus"], task["stopCode"], task["stoppedReason"]) == (
        "STOPPED",
        "UserInitiated",
        "Task stopped by kecs stop",
    )


def test_a_stop_without_a_control_plane_ends_and_records_the_tasks(home, api, k3d):
    arn = a_task_and_a_service(home)
    os.kill(home.pid("controlplane"), signal.SIGKILL)
    home.run("stop")
    assert every(api, "Pod") == []
    assert k3d.containers() == {SERVER: "exited"}
    home.run("start")
    assert described(home, arn)["stoppedReason"] == "Task stopped by kecs stop"


def test_tasks_that_went_with_a_drain_nobody_saw_say_so(home, api, k3d):
    """As when this machine was shut down: both daemons are gone, Docker stops k3d, which drains the node."""
    arn = a_task_and_a_service(home)
    os.kill(home.pid("controlplane"), signal.SIGKILL)
    for pod in every(api, "Pod"):
        api.remove("Pod", pod["metadata"]["namespace"], pod["metadata"]["name"])
    k3d.run("cluster", "stop", "kecs-default")
    home.run("start")
    until(lambda: len(running(home)) == 2, "the service has its tasks")
    task = until(lambda: (it := described(home, arn))["lastStatus"] == "STOPPED" and it, "it is STOPPED")
    assert task["stopCode"] == "InfrastructureHealth"
    assert "as k3d does whenever its cluster or Docker stops" in task["stoppedReason"]


def test_a_drain_of_the_node_is_the_reason_of_what_it_ends(home, api):
    arn = a_task_and_a_service(home)
    api.put(NODE | {"spec": {"unschedulable": True}})
    [pod] = [
        each for each in every(api, "Pod") if arn.endswith(each["metadata"]["labels"]["kecs.dev/task-id"])
    ]
    place = pod["metadata"]["namespace"], pod["metadata"]["name"]
    api._call(lambda: api.objects.delete("Pod", *place, {}))
    task = until(lambda: (it := described(home, arn))["lastStatus"] == "STOPPED" and it, "it is STOPPED")
    assert "while its node was drained, as k3d does" in task["stoppedReason"]


def test_a_stop_does_not_wait_for_a_cluster_that_was_killed(home, k3d, kubelet):
    a_task_and_a_service(home)
    kubelet.set()
    k3d.run("kill", SERVER, program="docker")
    done = home.run("stop", timeout=60)
    assert "the cluster does not answer: what runs on it ends with it" in done.stderr
    assert k3d.containers() == {SERVER: "exited"}
    assert home.run("status", code=5).stdout == "default  stopped\n"

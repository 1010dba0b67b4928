"""The real control plane as a process on a scripted API server: pods, node ports, stops, crashes."""

from __future__ import annotations

import os
import signal

import pytest
from tests.kube.scripted import Answer, ScriptedApi
from tests.process.harness import NETWORK, PRIVATE, Home, until

NODE = {
    "kind": "Node",
    "apiVersion": "v1",
    "metadata": {"name": "one"},
    "status": {
        "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
        "conditions": [{"type": "Ready", "status": "True"}],
    },
}


@pytest.fixture
def api():
    with ScriptedApi() as server:
        server.put(NODE)
        yield server


@pytest.fixture
def home(api):
    one = Home()
    one.start("--runtime", "kubernetes", "--kubeconfig", str(api.kubeconfig(one.path)))
    yield one
    one.close()


def every(api, kind):
    found = api.objects.select(kind, None, "")
    return [each for each in found if "kecs.dev/instance-id" in each["metadata"].get("labels", {})]


def one_of(api, kind):
    return until(lambda: every(api, kind), f"there is a {kind}")[0]


def run_pod(api, pod):
    """Let a pod run and pass its probe, as a kubelet does."""
    names = [each["name"] for each in pod["spec"]["containers"]]
    running = {"running": {"startedAt": "2026-01-01T00:00:01Z"}}
    api.put(
        pod
        | {
            "spec": pod["spec"] | {"nodeName": "one"},
            "status": {
                "phase": "Running",
                "podIP": "10.0.0.7",
                "conditions": [
                    {"type": kind, "status": "True", "lastTransitionTime": "2026-01-01T00:00:01Z"}
                    for kind in ("PodScheduled", "Initialized", "ContainersReady", "Ready")
                ],
                "containerStatuses": [
                    {
                        "name": name, "ready": True, "started": True, "state": running, "image": "web:1",
                        "imageID": "web@sha256:1", "containerID": f"containerd://{name}", "restartCount": 0,
                    }
                    for name in names
                ],
            },
        }
    )  # fmt: skip


def web(home, count=1, **changes):
    home.register(container={"image": "web:1"})
    home.service(count=count, **changes)


def task_of(home):
    [task] = home.json("ps")["tasks"]
    return task


def test_a_service_is_a_pod_with_a_node_port_and_its_task_runs_when_the_probe_passes(home, api):
    web(home)
    pod, service = one_of(api, "Pod"), one_of(api, "Service")
    [port] = service["spec"]["ports"]
    assert service["spec"]["type"] == "NodePort"
    assert 30000 <= port["nodePort"] <= 32767
    run_pod(api, pod)
    until(lambda: task_of(home)["lastStatus"] == "RUNNING", "it is RUNNING")

    task = task_of(home)
    assert (task["namespace"], task["pod"]) == (pod["metadata"]["namespace"], pod["metadata"]["name"])
    assert task["ports"][0]["nodePort"] == port["nodePort"]
    assert f"80 on node port {port['nodePort']}" in home.run("ps").stdout
    told = home.run("explain", "service", "web").stdout
    assert f"port 80/tcp has node port {port['nodePort']} on 127.0.0.1" in told
    told = home.run("explain", "task", task["taskId"]).stdout
    assert f"its pod is {task['namespace']}/{task['pod']}" in told
    assert "a tunnel to the pod reaches port 80" in told


def test_a_stop_leaves_everything_and_the_next_start_takes_it_up(home, api):
    web(home)
    run_pod(api, one_of(api, "Pod"))
    until(lambda: task_of(home)["lastStatus"] == "RUNNING", "it is RUNNING")
    before = task_of(home)
    there = {kind: every(api, kind) for kind in ("Pod", "Service", "Namespace")}

    assert "stay on the cluster" in home.run("stop").stderr
    assert {kind: every(api, kind) for kind in there} == there
    home.run("start")
    until(lambda: home.json("status")["cluster"]["connected"], "the cluster is known")
    assert task_of(home) == before
    assert {kind: every(api, kind) for kind in there} == there, "nothing was made anew"


def test_a_control_plane_that_comes_back_while_the_cluster_is_away_waits_for_it(home, api):
    web(home)
    run_pod(api, one_of(api, "Pod"))
    until(lambda: task_of(home)["lastStatus"] == "RUNNING", "it is RUNNING")
    task_id = task_of(home)["taskId"]
    api.stop()
    os.kill(home.json("status")["pid"], signal.SIGKILL)

    document = until(lambda: status_of_the_next(home), "another control plane answers")
    assert document["cluster"]["connected"] is False
    assert "nothing listens" in document["cluster"]["detail"]
    shown = home.run("status").stdout
    assert "unreachable since" in shown
    assert "the cluster cannot be reached since" in home.run("explain", "service", "web").stdout
    home.aws().update_service(service="web", desiredCount=2)

    api.start()
    until(lambda: home.json("status")["cluster"]["connected"], "the cluster is back")
    until(lambda: len(every(api, "Pod")) == 2, "what was asked for meanwhile is done")
    mine = next(task for task in home.json("ps")["tasks"] if task["taskId"] == task_id)
    assert mine["lastStatus"] == "RUNNING", "its task was never touched"


def test_a_task_whose_pod_was_made_without_an_answer_can_be_stopped(home, api):
    api.deny("get", "pods")  # as the smallest role does
    api.answer_next(Answer(done=True, drop="reset"), times=1000, method="PATCH", plural="pods")
    home.register(container={"image": "web:1", "secrets": [{"name": "TOKEN", "valueFrom": "token"}]})
    home.run("secrets", "set", "token", "s3cret")
    [task] = home.aws().run_task(taskDefinition="web", networkConfiguration=NETWORK)["tasks"]
    one_of(api, "Pod")
    home.aws().stop_task(task=task["taskArn"])

    def stopped():
        [seen] = home.aws().describe_tasks(tasks=[task["taskArn"]])["tasks"]
        return seen if seen["lastStatus"] == "STOPPED" else None

    assert until(stopped, "it is STOPPED")["stopCode"] == "UserInitiated"
    assert every(api, "Pod") == every(api, "Secret") == []


def test_a_task_waits_for_a_new_login_which_is_taken_up_by_what_runs(home, api):
    login(home, api, "t1")
    until(lambda: home.json("status")["cluster"]["connected"], "the cluster is known")
    api.tokens = {"t2"}
    web(home)
    detail = until(lambda: home.json("status")["cluster"]["detail"], "the status says why", seconds=20)
    assert "does not accept the token in the kubeconfig of context" in detail
    assert "log in to the cluster again" in home.run("explain", "service", "web").stdout
    assert task_of(home)["lastStatus"] == "PENDING"
    task_id = task_of(home)["taskId"]

    login(home, api, "t2")
    one_of(api, "Pod")
    assert task_of(home)["taskId"] == task_id, "it has only waited"
    until(lambda: home.json("status")["cluster"]["connected"], "the cluster is back")


def login(home, api, token):
    """Write a token into the kubeconfig, and let the server take no other."""
    api.kubeconfig(home.path, {"token": token})
    api.tokens = {token}


def status_of_the_next(home):
    document = home.json("status")
    return document if document["cluster"]["lostAt"] else None


def test_a_control_plane_does_nothing_on_another_cluster(home, api):
    web(home)
    run_pod(api, one_of(api, "Pod"))
    until(lambda: task_of(home)["lastStatus"] == "RUNNING", "it is RUNNING")
    os.kill(home.json("status")["pid"], signal.SIGKILL)
    for each in (*every(api, "Namespace"), {"metadata": {"name": "kube-system"}}):
        api.remove("Namespace", None, each["metadata"]["name"])
    api.put({"kind": "Namespace", "metadata": {"name": "kube-system"}})
    home.run("status", code=None)
    log = home.path / "instances/default/controlplane.log"
    until(lambda: "leads to another cluster" in log.read_text(), "it says why it ends")
    assert every(api, "Pod") == every(api, "Namespace") == []
    home.run("destroy", "--yes", "--force")


def test_switching_the_flag_switches_the_type_of_the_service(home, api):
    web(home)
    before = one_of(api, "Service")["spec"]["ports"][0]["nodePort"]
    home.aws().update_service(service="web", networkConfiguration=PRIVATE)
    until(lambda: one_of(api, "Service")["spec"]["type"] == "ClusterIP", "it has no node port")
    home.aws().update_service(service="web", networkConfiguration=NETWORK)
    until(lambda: one_of(api, "Service")["spec"]["type"] == "NodePort", "it has one again")
    assert one_of(api, "Service")["spec"]["ports"][0]["nodePort"] == before


def test_a_pod_without_a_place_is_told_once(home, api):
    web(home)
    pod = one_of(api, "Pod")
    for number in (1, 2):
        unschedulable = {
            "type": "PodScheduled", "status": "False", "reason": "Unschedulable",
            "message": f"0/{number} nodes are available: {number} Insufficient cpu.",
        }  # fmt: skip
        api.put(pod | {"status": {"phase": "Pending", "conditions": [unschedulable]}})
        until(lambda number=number: f"0/{number}" in (task_of(home)["waiting"] or ""), "it is told")

    events = [event["message"] for event in home.describe()["events"]]
    said = [message for message in events if "unable to place a task because" in message]
    assert len(said) == 1
    assert "has no place to run yet: 0/2 nodes" in home.run("explain", "service", "web").stdout
    assert "describe pod" in home.run("explain", "service", "web").stdout
    assert "Insufficient cpu" in home.run("ps").stdout

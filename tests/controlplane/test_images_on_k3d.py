"""The real control plane on a scripted k3d: a task whose image only Docker has, as a person sees it."""

from __future__ import annotations

import os

import pytest
from tests.cluster.harness.certificates import Authority, of_client
from tests.controlplane.test_on_a_cluster import NODE, every, run_pod
from tests.k3d.scripted import SECRETS, ScriptedK3d
from tests.kube.scripted import ScriptedApi
from tests.process.harness import NETWORK, Home, until

ID = "sha256:" + "c" * 64
IMPORT = ("image", "import", "myapp:dev")


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("pki") / "ca")


@pytest.fixture
def api(authority):
    with ScriptedApi(tls=authority.server("kube", "127.0.0.1")) as server:
        server.put(NODE)
        yield server


@pytest.fixture
def docker(tmp_path, api, authority):
    with ScriptedK3d(tmp_path / "k3d", listen=True) as one:
        (tmp_path / "api").mkdir()
        user = of_client(authority.client("admin", "system:masters"))
        one.use_api(api.kubeconfig(tmp_path / "api", user, authority.pair.certificate))
        one.configure(images={"myapp:dev": ID})
        yield one


@pytest.fixture
def home(docker):
    one = Home(PATH=f"{docker.bin}:{os.environ['PATH']}", KECS_RUNTIME="k3d")
    yield one
    one.close()


def pods(api):
    return every(api, "Pod")


def pod(api):
    return until(lambda: pods(api), "there is a pod")[0]


def refuse(api, pod, message):
    """Let the kubelet fail to pull the image of a pod's one container."""
    waiting = {"reason": "ErrImagePull", "message": message}
    status = {"phase": "Pending", "containerStatuses": [{"name": "web", "state": {"waiting": waiting}}]}
    api.put(pod | {"spec": pod["spec"] | {"nodeName": "one"}, "status": status})


def run_task(home):
    """Run a task of its own; its ARN."""
    ran = home.aws().run_task(cluster="default", taskDefinition="web", networkConfiguration=NETWORK)
    return ran["tasks"][0]["taskArn"]


def messages(home):
    [row] = home.aws().describe_services(cluster="default", services=["web"])["services"]
    return [event["message"] for event in row["events"]]


def test_a_service_waits_for_its_image_and_says_so_everywhere(home, docker, api):
    home.start("--node-ports", "3")
    docker.hold("import:importing")
    home.register(container={"image": "myapp:dev"})
    home.service(count=2)
    docker.wait_held("import:importing")
    waiting = "image myapp:dev is being imported from Docker into the cluster"
    until(lambda: home.run("ps").stdout.count(waiting) == 2, "both tasks wait")
    assert f"has not started yet: {waiting}" in home.run("explain", "service", "web").stdout
    assert any("is importing image myapp:dev" in text for text in messages(home))
    assert pods(api) == []
    docker.release("import:importing")
    until(lambda: len(pods(api)) == 2, "both pods are made")
    for each in pods(api):
        [container] = each["spec"]["containers"]
        assert (container["image"], container["imagePullPolicy"]) == ("myapp:dev", "IfNotPresent")
        run_pod(api, each)
    until(lambda: {one["lastStatus"] for one in home.json("ps")["tasks"]} == {"RUNNING"}, "both run")
    assert waiting not in home.run("ps").stdout
    assert len([text for text in messages(home) if "has imported image myapp:dev" in text]) == 1
    assert len(docker.calls(*IMPORT)) == 1
    log = home.run("logs", "--daemon", "controlplane").stdout
    assert "importing image myapp:dev (cccccccccccc) from Docker into the cluster" in log
    assert not any(secret in log for secret in SECRETS)


def test_an_image_that_nobody_has_stops_the_task_and_tells_what_was_tried(home, docker, api):
    home.start("--node-ports", "3")
    home.register(container={"image": "nosuch:dev"})
    arn = run_task(home)
    refuse(api, pod(api), "pull access denied")
    stopped = until(
        lambda: [one for one in home.json("ps", "--stopped")["tasks"] if one["stoppedReason"]], "it stops"
    )
    reason = (
        "CannotPullContainerError: pull access denied "
        "(Docker on this machine has no image nosuch:dev to import)"
    )
    assert stopped[0]["stoppedReason"] == reason
    told = home.run("explain", "task", arn).stdout
    assert reason in told
    assert "`kecs image import IMAGE`" in told
    assert docker.calls("image", "import") == []


def test_an_import_that_fails_leaves_the_image_to_the_kubelet_and_tells_what_was_tried(home, docker, api):
    docker.faults(import_refused=["tools-node", "direct", "hand"])
    home.start("--node-ports", "3")
    home.register(container={"image": "myapp:dev"})
    home.service(count=1)
    refuse(api, pod(api), "pull access denied")
    stopped = until(
        lambda: [one for one in home.json("ps", "--stopped")["tasks"] if one["stoppedReason"]], "it stops"
    )
    reason = stopped[0]["stoppedReason"]
    assert reason.startswith(
        "CannotPullContainerError: pull access denied (importing it from Docker on this "
    )
    assert "mode tools-node" in reason
    assert any("could not import image myapp:dev" in text for text in messages(home))
    until(lambda: len(docker.calls(*IMPORT)) == 2, "both ways of k3d were tried")
    docker.faults()
    home.run("image", "import", "myapp:dev")
    assert len(docker.calls(*IMPORT)) == 3, "by hand, and not by each new task"


def test_never_means_never_and_a_task_that_fails_says_so(home, docker, api):
    home.start("--node-ports", "3", "--import", "never")
    home.register(container={"image": "myapp:dev"})
    run_task(home)
    refuse(api, pod(api), "not found")
    stopped = until(
        lambda: [one for one in home.json("ps", "--stopped")["tasks"] if one["stoppedReason"]], "it stops"
    )
    assert stopped[0]["stoppedReason"] == (
        "CannotPullContainerError: not found (images of Docker on this machine are not imported "
        "(`--import never`))"
    )
    assert docker.calls("image", "import") == []


def test_a_stop_does_not_wait_for_an_import_that_hangs(home, docker, api):
    docker.faults(import_hangs=["tools-node"])
    home.start("--node-ports", "3")
    docker.hold("import:importing")
    home.register(container={"image": "myapp:dev"})
    run_task(home)
    [pid] = docker.wait_held("import:importing")
    docker.release("import:importing")
    home.run("stop", timeout=50)
    assert not docker._is_ours(pid)
    assert set(docker.containers().values()) == {"exited"}, docker.containers()

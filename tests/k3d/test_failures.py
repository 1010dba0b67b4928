"""What a person sees when Docker or k3d fail, hang or lie; and what is left behind."""

from __future__ import annotations

import re
import time

import pytest
from tests.k3d.clusters import Stage

from kecs.errors import ExitCode, KecsError
from kecs.k3d import cluster as module
from kecs.k3d import wanted
from kecs.k3d.failures import DockerDown, docker_down, port_taken
from kecs.k3d.images import import_image, local_id
from kecs.k3d.run import LogLine, Said, TookTooLong


@pytest.fixture
def stage(scripted, tmp_path):
    return Stage(scripted, tmp_path / "instance", load_balancer=True)


@pytest.fixture
def made(stage):
    stage.create()
    return stage


COMMANDS = {
    "nodes": lambda stage: stage.cluster.nodes(),
    "state": lambda stage: stage.cluster.state(),
    "owner": lambda stage: stage.cluster.owner(),
    "create": lambda stage: stage.create(),
    "start": lambda stage: stage.cluster.start(),
    "stop": lambda stage: stage.cluster.stop(),
    "delete": lambda stage: stage.cluster.delete(),
    "kubeconfig": lambda stage: stage.cluster.kubeconfig(1234),
    "edit": lambda stage: stage.cluster.k3d(*stage.edit("127.0.0.1:18088:30081")),
    "import": lambda stage: import_image(stage.cluster, "myapp:dev"),
    "local image": lambda stage: local_id(stage.tools, "myapp:dev"),
}


@pytest.mark.parametrize("what", COMMANDS)
@pytest.mark.parametrize("fault", ["docker_down", "docker_denied"])
def test_docker_does_not_answer(made, what, fault):
    """Whatever k3d makes of it: `No nodes found`, `nothing to delete` with exit code 0."""
    before = made.k3d.state["containers"]
    made.k3d.faults(**{fault: True})
    with pytest.raises(DockerDown) as caught:
        COMMANDS[what](made)
    error = caught.value
    assert error.exit_code == ExitCode.UNREACHABLE
    if fault == "docker_down":
        assert error.message == (
            "Docker does not answer: Cannot connect to the Docker daemon at unix:///var/run/docker.sock."
            " Is the docker daemon running?"
        )
        assert "start Docker" in error.hint
    else:
        assert "permission denied while trying to connect" in error.message
        assert "usermod -aG docker" in error.hint
    made.k3d.faults()
    assert made.k3d.state["containers"] == before
    assert made.cluster.state()[0] == "running"


def test_docker_goes_down_in_a_create(stage):
    stage.k3d.hold("create:nodes-created")
    import threading

    def break_it():
        stage.k3d.wait_held("create:nodes-created")
        stage.k3d.faults(docker_down=True)
        stage.k3d.release("create:nodes-created")

    thread = threading.Thread(target=break_it)
    thread.start()
    with pytest.raises(DockerDown):
        stage.create()
    thread.join()
    assert any("not all of it could be removed: Docker does not answer" in note for note in stage.notes)
    stage.k3d.faults()
    assert stage.cluster.state()[0] == "half-made"
    stage.cluster.delete()
    assert stage.k3d.is_empty()


def test_a_create_runs_into_k3ds_time_out(stage, monkeypatch):
    monkeypatch.setattr(wanted, "PHASE", 4)
    with pytest.raises(KecsError) as caught:
        stage.create()
    assert caught.value.message == (
        f"creating the k3d cluster `{stage.name}` failed: Failed Cluster Start: Failed to add one or more"
        f" helper nodes: Node {stage.balancer} failed to get ready: error waiting for log line"
        f" `start worker processes` from node '{stage.balancer}': stopped returning log lines:"
        " context deadline exceeded"
    )
    assert stage.k3d.is_empty()


def test_a_create_that_never_ends(stage, monkeypatch):
    monkeypatch.setattr(module, "CREATE", 0.5)
    stage.k3d.faults(hang=["k3d cluster create"])
    begin = time.monotonic()
    with pytest.raises(TookTooLong) as caught:
        stage.create()
    assert time.monotonic() - begin < 10
    assert caught.value.exit_code == ExitCode.UNREACHABLE
    assert caught.value.message.startswith(
        f"`k3d cluster create {stage.name} …` did not end within 0.5 s and was ended"
    )
    assert stage.k3d.is_empty()
    assert stage.cluster.state()[0] == "absent"


def test_a_roll_back_that_fails_is_done_by_docker(stage):
    port = stage.wanted.node_ports[0]
    stage.k3d.faults(taken=[port], rollback_fails=True)
    with pytest.raises(KecsError, match=f"port {port} is taken"):
        stage.create()
    assert stage.k3d.is_empty()


def test_a_node_does_not_start(made):
    made.k3d.run("kill", made.server, program="docker")
    made.k3d.faults(unstartable=[made.server])
    with pytest.raises(KecsError) as caught:
        made.cluster.start()
    assert "OCI runtime error" in caught.value.message
    assert f"`k3d cluster start {made.name}`" in caught.value.hint


def test_a_stop_that_fails(made):
    made.k3d.faults(stop_fails=True)
    with pytest.raises(KecsError, match=f"failed to stop cluster '{made.name}'"):
        made.cluster.stop()


def test_a_stop_that_never_ends(made, monkeypatch):
    monkeypatch.setattr(module, "STOP", 0.4)
    made.k3d.faults(hang=["k3d cluster stop"])
    with pytest.raises(TookTooLong, match=f"`k3d cluster stop {made.name}` did not end within 0.4 s"):
        made.cluster.stop()


# Deleting ------------------------------------------------------------------------------------------------


def test_a_delete_that_says_0_and_deletes_nothing(made):
    made.k3d.faults(delete_lies=True)
    made.cluster.delete()
    assert made.k3d.is_empty()


@pytest.mark.parametrize("what", ["network", "volume"])
def test_a_delete_that_leaves_something(made, what):
    made.k3d.faults(delete_leaves=[what])
    made.cluster.delete()
    assert made.k3d.is_empty()


def test_a_container_that_cannot_be_removed(made):
    made.k3d.faults(undeletable=[made.server])
    with pytest.raises(KecsError) as caught:
        made.cluster.delete()
    message, hint = caught.value.message, caught.value.hint
    assert f"is not wholly deleted; there is still container {made.server}" in message
    assert "did not receive an exit event" in message
    assert f"`docker rm -f -v {made.server}`" in hint
    made.k3d.faults()
    made.cluster.delete()
    assert made.k3d.is_empty()


def test_a_network_that_cannot_be_removed_is_named_by_its_id(made):
    made.k3d.faults(undeletable_network=True)
    with pytest.raises(KecsError) as caught:
        made.cluster.delete()
    [identity] = made.k3d.state["networks"]
    assert f"there is still network {identity[:12]}: " in caught.value.message
    assert "device busy" in caught.value.message
    assert f"`docker network rm {identity[:12]}`" in caught.value.hint
    with pytest.raises(KecsError, match="of an earlier k3d cluster") as caught:
        made.create()
    assert caught.value.exit_code == ExitCode.CONFLICT
    made.k3d.faults()
    made.create()


def test_another_cluster_whose_name_begins_the_same_is_left_alone(made, tmp_path):
    other = Stage(made.k3d, tmp_path / "other")
    other.name = f"{made.name}-b"
    other.wanted = type(other.wanted)(**{**other.wanted.__dict__, "name": other.name})
    other.cluster = other.another()
    other.create()
    made.cluster.delete()
    assert other.cluster.state()[0] == "running"
    assert list(made.k3d.state["networks"].values()) == [f"k3d-{other.name}"]
    assert made.k3d.state["volumes"] == [f"k3d-{other.name}-images"]


def test_a_registry_that_was_made_with_the_cluster_is_left_to_k3d(made):
    labels = ("--label", "app=k3d", "--label", f"k3d.cluster={made.name}", "--label", "k3d.role=registry")
    made.k3d.faults(delete_lies=True)
    made.k3d.run("create", "--name", "k3d-registry", *labels, "registry:3", program="docker")
    made.cluster.delete()
    assert list(made.k3d.containers()) == ["k3d-registry"]


@pytest.mark.parametrize(
    "words",
    [
        "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?",
        "failed to connect to the docker API at unix:///var/run/docker.sock; check if the path is correct",
        "error during connect: Get http://%2F%2F.%2Fpipe: open //./pipe/docker_engine: not found",
    ],
)
def test_ways_in_which_docker_is_told_to_be_down(words):
    said = Said(0, "", f'time="t" level=error msg="Failed to get nodes: {words}"\n', 0.1, ())
    assert docker_down(said).message == f"Docker does not answer: {words}"
    assert docker_down(Said(0, "", "No clusters found", 0.1, ())) is None


@pytest.mark.parametrize(
    ("text", "port"),
    [
        ("Bind for 127.0.0.1:30010 failed: port is already allocated", 30010),
        ("Error starting userland proxy: listen tcp4 127.0.0.1:18090: bind: address already in use", 18090),
        ("failed to bind host port for 127.0.0.1:30000:172.18.0.2:30000/tcp: address already in use", 30000),
        ("failed to bind host port 127.0.0.1:30001/tcp: address already in use", 30001),
        (
            "Ports are not available: exposing port TCP 127.0.0.1:5000: address already in use",
            5000,
        ),
        ("Bind for 0.0.0.0:8080 failed: port is already allocated", 8080),
        ("Failed to parse port spec '127.0.0.1:18091': invalid hostPort: 127.0.0.1", None),
        ("dial tcp 127.0.0.1:6443: connection refused", None),
    ],
)
def test_ports_that_docker_could_not_publish(text, port):
    """In the words of several Dockers: 20.10, newer ones, Docker Desktop."""
    assert port_taken(Said(1, "", "", 0.1, (LogLine("error", f"Failed Cluster Start: {text}"),))) == port


# Answers that are none -----------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["", "null", "{}", '[{"name": "x"}]', "Incorrect Usage", '[{"name": 1'])
def test_a_list_of_nodes_that_is_none(made, text):
    made.k3d.faults(node_list_says=text or " ")
    with pytest.raises(KecsError, match="`k3d node list -o json` cannot be understood") as caught:
        made.cluster.state()
    assert caught.value.exit_code == ExitCode.UNREACHABLE


def test_a_kubeconfig_that_is_not_written_yet(made):
    made.k3d.faults(kubeconfig_late=2)
    assert "client-key-data" in made.cluster.kubeconfig(1234)
    assert len(made.k3d.calls("kubeconfig", "get")) == 3


def test_a_kubeconfig_that_never_comes(made):
    made.k3d.faults(kubeconfig_late=1000)
    with pytest.raises(KecsError) as caught:
        made.cluster.kubeconfig(1234, limit=0.1)
    assert re.fullmatch(f"asking k3d for the kubeconfig of `{made.name}` failed: .*", caught.value.message)
    assert f"`k3d kubeconfig get {made.name}`" in caught.value.hint


def test_a_kubeconfig_of_a_stopped_cluster(made):
    made.cluster.stop()
    assert "https://127.0.0.1:1234" in made.cluster.kubeconfig(1234)


def test_a_kubeconfig_of_no_cluster(stage):
    with pytest.raises(KecsError, match="No nodes found for given cluster"):
        stage.cluster.kubeconfig(1234)

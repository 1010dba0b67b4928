"""The life of a cluster: created, asked, stopped, started, deleted; on the scripted or a real k3d."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import threading

import pytest
import yaml
from tests.k3d.clusters import INSTANCE, Stage

from kecs.errors import ExitCode, KecsError
from kecs.k3d.cluster import LABEL
from kecs.k3d.failures import PortTaken


@pytest.fixture
def stage(k3d, tmp_path):
    return Stage(k3d, tmp_path / "instance")


@pytest.fixture
def balanced(k3d, tmp_path):
    return Stage(k3d, tmp_path / "instance", load_balancer=True)


def test_a_life_without_a_load_balancer(stage):
    assert stage.cluster.state() == ("absent", "there is no such cluster")
    assert stage.cluster.owner() is None
    stage.create()
    assert stage.k3d.containers() == {stage.server: "running"}
    assert stage.cluster.state() == ("running", f"server {stage.server} running")
    assert stage.cluster.owner() == INSTANCE
    published = {(port, port) for port in stage.wanted.node_ports} | {(stage.wanted.api_port, 6443)}
    assert set(stage.k3d.ports(stage.server)) == {("127.0.0.1", *pair) for pair in published}
    stage.cluster.stop()
    assert stage.cluster.state() == ("stopped", f"server {stage.server} exited")
    stage.cluster.stop()
    stage.cluster.start()
    assert stage.cluster.state()[0] == "running"
    stage.cluster.delete()
    assert stage.k3d.is_empty()
    assert stage.cluster.state()[0] == "absent"
    stage.cluster.delete()


def test_a_load_balancer_publishes_the_api_a_second_time(balanced):
    balanced.create()
    api, second = balanced.wanted.api_port, balanced.wanted.balancer_api_port
    assert ("127.0.0.1", api, 6443) in balanced.k3d.ports(balanced.server)
    assert ("127.0.0.1", second, 6443) in balanced.k3d.ports(balanced.balancer)
    assert balanced.cluster.state()[0] == "running"
    kubeconfig = yaml.safe_load(balanced.cluster.kubeconfig(api))
    assert kubeconfig["clusters"][0]["cluster"]["server"] == f"https://127.0.0.1:{api}"
    assert kubeconfig["users"][0]["user"]["client-key-data"]
    [port] = [each for node in balanced.cluster.nodes() for each in node.ports if each.host_port == second]
    assert (port.address, port.container_port, port.protocol) == ("127.0.0.1", 6443, "tcp")


def test_what_is_asked_of_k3d(scripted, tmp_path):
    more = {"agents": 2, "image": "rancher/k3s:v1.33.1-k3s1", "k3s_args": ("--debug@server:*",)}
    stage = Stage(scripted, tmp_path / "instance", registries=("k3d-registry:5000",), **more)
    stage.create()
    [words] = scripted.calls("cluster", "create")
    pairs = list(itertools.pairwise(words))
    assert "--no-lb" in words
    assert ("--agents", "2") in pairs
    assert ("--image", "rancher/k3s:v1.33.1-k3s1") in pairs
    assert ("--registry-use", "k3d-registry:5000") in pairs
    assert ("--runtime-label", f"{LABEL}={INSTANCE}@server:*") in pairs
    arguments = [word for option, word in pairs if option == "--k3s-arg"]
    assert arguments == ["--disable=traefik@server:*", "--disable=servicelb@server:*", "--debug@server:*"]
    roles = sorted(node.role for node in stage.cluster.nodes())
    assert roles == ["agent", "agent", "server"]
    assert stage.cluster.state()[0] == "running"


def test_no_node_ports_and_one_node_port(scripted, tmp_path):
    from dataclasses import replace

    stage = Stage(scripted, tmp_path / "instance")
    first = stage.wanted.node_ports[0]
    for block, expected in ((range(0), set()), (range(first, first + 1), {first})):
        stage.cluster.create(replace(stage.wanted, node_ports=block))
        hosts = {host for _, host, container in scripted.ports(stage.server) if container != 6443}
        assert hosts == expected
        stage.cluster.delete()


def test_the_users_kubeconfig_and_temporary_folder_stay_as_they_were(stage, tmp_path):
    before = stage.k3d.users_kubeconfig.read_bytes()
    stage.k3d.environment["TMPDIR"] = str(tmp_path / "tmp")
    (tmp_path / "tmp").mkdir()
    stage = Stage(stage.k3d, stage.folder)
    stage.create()
    stage.cluster.stop()
    stage.cluster.start()
    stage.cluster.delete()
    assert stage.k3d.users_kubeconfig.read_bytes() == before
    assert list((tmp_path / "tmp").iterdir()) == []


def test_temporary_folders_of_calls_are_removed(scripted, tmp_path):
    from pathlib import Path

    stage = Stage(scripted, tmp_path / "instance")
    stage.create()
    folders = {each["TMPDIR"] for each in scripted.environments()}
    assert len(folders) == len(scripted.environments())  # one for each call
    assert not any(Path(folder).exists() for folder in folders)
    assert {each["LOG_COLORS"] for each in scripted.environments()} == {"false"}


def test_progress_is_noted(stage):
    stage.create()
    assert f"Created network 'k3d-{stage.name}'" in stage.notes
    assert not any("KUBECONFIG" in note or "You can now use it" in note for note in stage.notes)


def test_a_cluster_of_that_name_that_is_not_ours(stage):
    stage.k3d.run("cluster", "create", stage.name, "--no-lb", "--api-port", "127.0.0.1:random")
    before = stage.k3d.containers()
    assert stage.cluster.owner() is None
    with pytest.raises(KecsError, match=f"a k3d cluster `{stage.name}` exists already") as caught:
        stage.create()
    assert caught.value.exit_code == ExitCode.CONFLICT
    assert f"`k3d cluster delete {stage.name}`" in caught.value.hint
    assert stage.k3d.containers() == before
    assert stage.cluster.owner() is None


@pytest.mark.parametrize("name", ["kecs-" + "a" * 28, "kecs_a", "Kecs-a", "kecs-", "-kecs"])
def test_names_that_k3d_does_not_take(scripted, tmp_path, name):
    from dataclasses import replace

    stage = Stage(scripted, tmp_path / "instance")
    with pytest.raises(KecsError, match="cannot name a k3d cluster") as caught:
        stage.cluster.create(replace(stage.wanted, name=name))
    assert caught.value.exit_code == ExitCode.USAGE
    assert scripted.calls() == []


def test_a_longest_instance_name_fits(scripted, tmp_path):
    from kecs.k3d.cluster import check_name

    check_name("kecs-" + "a" * 27)


def test_starting_what_is_not_there(stage):
    with pytest.raises(KecsError, match="there is no k3d cluster") as caught:
        stage.cluster.start()
    assert caught.value.exit_code == ExitCode.NOT_FOUND
    stage.cluster.stop()


def test_start_on_a_running_cluster_changes_nothing(scripted, tmp_path):
    stage = Stage(scripted, tmp_path / "instance")
    stage.create()
    stage.cluster.start()
    assert scripted.calls("cluster", "start") == []


def test_a_pod_that_does_not_stop(scripted, tmp_path):
    stage = Stage(scripted, tmp_path / "instance")
    stage.create()
    scripted.faults(stubborn_pod=True)
    stage.cluster.stop()
    assert stage.cluster.state()[0] == "stopped"
    stage.cluster.start()
    assert stage.cluster.state()[0] == "running"


@pytest.mark.parametrize("part", ["server", "balancer"])
def test_a_killed_container_is_started_again(balanced, part):
    balanced.create()
    victim = getattr(balanced, part)
    balanced.k3d.run("kill", victim, program="docker")
    state, detail = balanced.cluster.state()
    assert state == "broken"
    assert f"{victim} exited" in detail
    balanced.cluster.start()
    assert balanced.cluster.state()[0] == "running"
    assert set(balanced.k3d.containers()) == {balanced.server, balanced.balancer}


# Ports ---------------------------------------------------------------------------------------------------


def test_a_node_port_is_taken(k3d, tmp_path):
    stage = Stage(k3d, tmp_path / "instance")
    port = stage.wanted.node_ports[1]
    k3d.take(port)
    with pytest.raises(PortTaken) as caught:
        stage.create()
    assert (caught.value.port, caught.value.exit_code) == (port, ExitCode.CONFLICT)
    assert f"port {port} is taken" in caught.value.message
    assert "--node-ports" in caught.value.hint
    assert k3d.is_empty()
    k3d.give_back()
    stage.create()


def test_the_port_of_the_api_is_held_by_another_container(k3d, tmp_path):
    one, two = Stage(k3d, tmp_path / "one"), Stage(k3d, tmp_path / "two")
    two.name = f"{one.name}-b"
    two.cluster = two.another()
    one.create()
    from dataclasses import replace

    with pytest.raises(PortTaken) as caught:
        two.cluster.create(replace(two.wanted, name=two.name, api_port=one.wanted.api_port))
    assert caught.value.port == one.wanted.api_port
    assert "docker ps" in caught.value.hint
    assert list(k3d.containers()) == [one.server]
    assert two.cluster.state()[0] == "absent"


def test_the_balancers_port_is_found_taken_only_when_the_server_is_up(k3d, tmp_path):
    stage = Stage(k3d, tmp_path / "instance", load_balancer=True)
    k3d.take(stage.wanted.balancer_api_port)
    with pytest.raises(PortTaken) as caught:
        stage.create()
    assert caught.value.port == stage.wanted.balancer_api_port
    assert k3d.is_empty()


def test_a_port_was_taken_while_the_cluster_was_stopped(k3d, tmp_path):
    stage = Stage(k3d, tmp_path / "instance")
    stage.create()
    stage.cluster.stop()
    port = stage.wanted.node_ports[0]
    k3d.take(port)
    with pytest.raises(PortTaken) as caught:
        stage.cluster.start()
    assert (caught.value.port, caught.value.exit_code) == (port, ExitCode.CONFLICT)
    assert "a cluster keeps its ports" in caught.value.hint
    assert stage.cluster.state()[0] == "stopped"
    k3d.give_back()
    stage.cluster.start()


# Creates that break off ----------------------------------------------------------------------------------


@pytest.mark.parametrize("step", ["create:network-made", "create:nodes-created", "up:server-started"])
def test_ctrl_c_in_a_create_leaves_nothing(k3d, tmp_path, step):
    if not k3d.can_reach(step):
        pytest.skip(f"a real k3d cannot be met at {step}")
    stage = Stage(k3d, tmp_path / "instance")
    k3d.hold(step)

    def interrupt():
        k3d.wait_held(step)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        stage.create()
    thread.join()
    assert k3d.is_empty()
    assert stage.cluster.state()[0] == "absent"
    k3d.release(step)
    stage.create()
    assert stage.cluster.state()[0] == "running"


def killed_while_creating(stage, step):
    """Kill a KECS, and the k3d that it started, while k3d is at `step` of a create."""
    code = (
        "import sys, pickle; from pathlib import Path; from kecs.k3d.cluster import K3dCluster\n"
        "tools, name, folder, wanted = pickle.loads(bytes.fromhex(sys.argv[1]))\n"
        "K3dCluster(tools(), name, folder).create(wanted)"
    )
    import pickle
    from functools import partial

    from kecs.k3d.tools import find

    words = pickle.dumps((partial(find, stage.k3d.environment), stage.name, stage.folder, stage.wanted)).hex()
    stage.k3d.hold(step)
    process = subprocess.Popen([sys.executable, "-c", code, words])
    pids = stage.k3d.wait_held(step)
    process.kill()
    process.wait()
    return pids


@pytest.mark.parametrize(
    "step", ["create:network-made", "create:nodes-created", "up:server-started", "up:balancer-started"]
)
def test_a_create_that_was_killed_is_noticed_and_cleaned(k3d, tmp_path, step):
    if not k3d.can_reach(step):
        pytest.skip(f"a real k3d cannot be met at {step}")
    stage = Stage(k3d, tmp_path / "instance", load_balancer=True)
    [pid] = killed_while_creating(stage, step)
    state, detail = stage.cluster.state()
    assert (state, detail) == ("half-made", "it is being created")  # k3d still runs, and holds the lock
    os.kill(pid, signal.SIGKILL)
    k3d.release(step)
    with stage.cluster.locked():
        state, detail = stage.cluster.state()
    assert state == "half-made"
    assert "creation broke off" in detail
    assert stage.cluster.owner() == INSTANCE
    if stage.cluster.nodes():
        with pytest.raises(KecsError, match="was never finished") as caught:
            stage.cluster.start()
        assert caught.value.exit_code == ExitCode.CONFLICT
        with pytest.raises(KecsError, match="exists already"):
            stage.create()
    stage.cluster.delete()
    assert k3d.is_empty()
    stage.create()
    assert stage.cluster.state()[0] == "running"


def test_a_create_without_a_balancer_that_was_killed_looks_whole_to_k3d_but_not_to_us(k3d, tmp_path):
    stage = Stage(k3d, tmp_path / "instance")
    [pid] = killed_while_creating(stage, "up:server-started")
    os.kill(pid, signal.SIGKILL)
    with stage.cluster.locked():
        assert k3d.containers() == {stage.server: "running"}
        assert stage.cluster.state()[0] == "half-made"


def test_a_second_create_waits_for_the_k3d_that_a_killed_one_left(scripted, tmp_path):
    stage = Stage(scripted, tmp_path / "instance")
    killed_while_creating(stage, "up:server-started")
    thread = threading.Timer(0.3, scripted.release, ["up:server-started"])
    thread.start()
    with pytest.raises(KecsError, match="exists already"):
        stage.another().create(stage.wanted)
    thread.join()
    assert any("another command is working on the k3d cluster" in note for note in stage.notes)
    assert len(scripted.calls("cluster", "create")) == 1


def test_two_creates_at_once_are_one_after_another(scripted, tmp_path):
    stage = Stage(scripted, tmp_path / "instance")
    outcomes = []

    def create(cluster):
        try:
            cluster.create(stage.wanted)
            outcomes.append("made")
        except KecsError as error:
            outcomes.append(error.exit_code)

    threads = [threading.Thread(target=create, args=(stage.another(),)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes, key=str) == [ExitCode.CONFLICT, "made"]
    assert stage.cluster.state()[0] == "running"
    assert list(scripted.state["networks"].values()) == [f"k3d-{stage.name}"]


def test_two_networks_of_one_name_are_removed_before_a_create(scripted, tmp_path):
    stage = Stage(scripted, tmp_path / "instance")
    scripted.hold("create:network-looked")
    scripted.hold("create:network-made")
    words = ("cluster", "create", stage.name, "--no-lb", "--api-port", "127.0.0.1:random")
    both = [scripted.spawn(*words) for _ in range(2)]
    scripted.wait_held("create:network-looked", 2)
    scripted.release("create:network-looked")
    scripted.wait_held("create:network-made", 2)
    scripted.release("create:network-made")
    for process in both:
        process.communicate(timeout=20)
    assert len(scripted.state["networks"]) == 2
    stage.create()
    assert stage.cluster.state()[0] == "running"
    assert list(scripted.state["networks"].values()) == [f"k3d-{stage.name}"]

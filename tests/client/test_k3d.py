"""The life of an instance on a scripted k3d, with a scripted API server as its cluster's."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path

import msgspec
import pytest
from tests.client.fakes import SCRIPT, at_once, until
from tests.cluster.harness.certificates import Authority, of_client
from tests.k3d.scripted import SECRETS, ScriptedK3d
from tests.kube.scripted import ScriptedApi

from kecs.client import instance as instances
from kecs.client import k3d as clusters
from kecs.client import k3d_ports, k3d_start, lifetime
from kecs.client.agent import is_up
from kecs.client.wishes import Wishes
from kecs.errors import ExitCode, KecsError
from kecs.paths import InstancePaths, check_instance_name

SERVER = "k3d-kecs-default-server-0"
BALANCER = "k3d-kecs-default-serverlb"
API_PORTS = range(10000 + os.getpid() % 500 * 20, 20000)
NODE_PORTS = range(30000 + os.getpid() % 200 * 10, 32768)
"""Where ports are looked for: elsewhere than in another run of these tests."""


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("pki") / "ca")


@pytest.fixture
def api(authority):
    with ScriptedApi(tls=authority.server("kube", "127.0.0.1")) as server:
        yield server


@pytest.fixture
def k3d(tmp_path, api, authority, monkeypatch):
    with ScriptedK3d(tmp_path / "k3d", listen=True) as one:
        (tmp_path / "api").mkdir()
        user = of_client(authority.client("admin", "system:masters"))
        one.use_api(api.kubeconfig(tmp_path / "api", user, authority.pair.certificate))
        monkeypatch.setattr(k3d_ports, "API_PORTS", API_PORTS)
        monkeypatch.setattr(k3d_ports, "NODE_PORTS", NODE_PORTS)
        monkeypatch.setenv("PATH", f"{one.bin}:{os.environ['PATH']}")
        monkeypatch.setenv("HOME", one.environment["HOME"])
        yield one


class World:
    """An instance, its home and its k3d; `notes` is what a person was told."""

    def __init__(self, home, k3d) -> None:
        self.home, self.k3d, self.paths = home, k3d, home.paths
        self.notes: list[str] = []

    def start(self, name="default", **wishes):
        given = {"runtime": "k3d", "node_ports": "3", "environment": dict(os.environ), "directory": "/tmp"}
        paths = InstancePaths(self.home.path, name)
        return lifetime.start(paths, Wishes(**(given | wishes)), self.notes.append).instance

    def again(self, **wishes):
        """Start it without a word of what it is."""
        return self.start(**({"runtime": None, "node_ports": None} | wishes))

    def stop(self):
        return lifetime.stop(self.paths, self.notes.append)

    def destroy(self, **options):
        lifetime.destroy(self.paths, self.notes.append, **options)

    @property
    def kept(self):
        return instances.require(self.paths)

    def somebody(self, *words, program="k3d"):
        """Have a person run a program."""
        done = self.k3d.run(*words, program=program)
        assert done.returncode == 0, done.stderr
        self.k3d.users_kubeconfig.write_text("# the user's own\n")  # k3d by itself edits it

    def is_gone(self):
        """Nothing is left, on the disk or in Docker."""
        return not self.paths.root.exists() and self.k3d.is_empty() and self.home.alive() == []


@pytest.fixture
def world(home, k3d):
    one = World(home, k3d)
    yield one
    told = "\n".join(one.notes)
    assert not [secret for secret in SECRETS if secret in told]
    assert k3d.users_kubeconfig.read_text() == "# the user's own\n"
    assert k3d.overlaps() == 0


def test_the_first_start_makes_a_cluster_without_load_balancer_and_keeps_how_it_is_reached(world, api):
    made = world.start()

    assert (made.runtime, made.auto, made.desired) == ("k3d", None, "running")
    assert made.k3d == instances.K3d(cluster="kecs-default", api_port=made.k3d.api_port, created=True)
    assert made.published is not None
    assert len(k3d_ports.read(made.published)) == 3
    namespace = api.objects.select("Namespace", None, "")
    uid = next(n["metadata"]["uid"] for n in namespace if n["metadata"]["name"] == "kube-system")
    assert made.kubernetes == instances.Kubernetes(
        kubeconfig=str(world.paths.kubeconfig), context="k3d-kecs-default", cluster_uid=uid
    )
    assert stat.S_IMODE(world.paths.kubeconfig.stat().st_mode) == 0o600
    assert f"https://127.0.0.1:{made.k3d.api_port}" in world.paths.kubeconfig.read_text()
    assert world.k3d.containers() == {SERVER: "running"}
    [words] = world.k3d.calls("cluster", "create")
    assert {"--disable=traefik@server:*", "--disable=servicelb@server:*", "--no-lb"} <= set(words)
    assert not any(each["KUBECONFIG"] == str(world.k3d.users_kubeconfig) for each in world.k3d.environments())
    assert is_up(str(world.paths.controlplane_socket))
    assert "creating the cluster `kecs-default`" in "\n".join(world.notes)


def test_what_a_person_wants_of_the_cluster_is_passed_on_and_kept(world):
    made = world.start(
        load_balancer=True,
        agents=1,
        k3s_image="rancher/k3s:v1.31.5-k3s1",
        k3s_args=("--disable=metrics-server@server:*",),
        registries=("k3d-mine:5000",),
        import_images="never",
        environment=dict(os.environ) | {"DOCKER_HOST": "unix:///mine.sock"},
    )

    k3d = made.k3d
    assert (k3d.load_balancer, k3d.agents, k3d.image) == (True, 1, "rancher/k3s:v1.31.5-k3s1")
    assert (k3d.k3s_args, k3d.registries) == (("--disable=metrics-server@server:*",), ("k3d-mine:5000",))
    assert (k3d.import_images, k3d.docker) == ("never", {"DOCKER_HOST": "unix:///mine.sock"})
    assert k3d.balancer_api_port not in (None, k3d.api_port)
    [words] = world.k3d.calls("cluster", "create")
    for wanted in ("rancher/k3s:v1.31.5-k3s1", "--disable=metrics-server@server:*", "k3d-mine:5000"):
        assert wanted in words
    assert f"https://127.0.0.1:{k3d.api_port}" in world.paths.kubeconfig.read_text(), "not the balancer's"
    assert set(world.k3d.containers()) == {SERVER, BALANCER, "k3d-kecs-default-agent-0"}

    world.stop()
    world.again()
    hosts = {each["DOCKER_HOST"] for each in world.k3d.environments()[-5:]}
    assert hosts == {"unix:///mine.sock"}, "it is looked for in the Docker where it is"


@pytest.mark.parametrize(
    ("wishes", "says"),
    [
        ({"runtime": "local"}, "runtime `k3d`, not `local`"),
        ({"load_balancer": True}, "load-balancer off, not on"),
        ({"agents": 2}, "agents `0`, not `2`"),
        ({"k3s_image": "other"}, "k3s-image none, not `other`"),
        ({"k3s_args": ("--a@server:*",)}, "k3s-arg none, not `--a@server:*`"),
        ({"registries": ("r",)}, "registry none, not `r`"),
        ({"node_ports": "4"}, "not `4`"),
        ({"node_ports": "32000-32002"}, "not `32000-32002`"),
        ({"kubeconfig": "/other"}, "kubeconfig none, not `/other`"),
    ],
)
@pytest.mark.parametrize("running", [True, False])
def test_what_contradicts_the_cluster_is_a_conflict(world, wishes, says, running):
    chosen = instances.Kubernetes(kubeconfig="/k", context="k3d-kecs-default", cluster_uid="u")
    world.home.instance(
        runtime="k3d",
        kubernetes=chosen,
        k3d=instances.K3d(cluster="kecs-default", api_port=6443, created=True),
        published="30000-30002",
        desired="running" if running else "stopped",
    )
    before = world.paths.instance_file.read_bytes()
    with pytest.raises(KecsError) as caught:
        world.again(**wishes)
    assert caught.value.exit_code == ExitCode.CONFLICT
    assert says in caught.value.message
    assert "--instance NAME" in caught.value.hint
    assert world.paths.instance_file.read_bytes() == before
    assert world.k3d.calls() == []


def test_images_may_be_imported_or_not_from_the_next_start_on(world):
    world.start()
    with pytest.raises(KecsError, match="import `auto`, not `never`") as caught:
        world.again(import_images="never")
    assert caught.value.exit_code == ExitCode.CONFLICT
    world.stop()
    assert world.again(import_images="never").k3d.import_images == "never"
    assert world.again(node_ports="3", runtime="auto", agents=0).k3d.import_images == "never"


def test_a_start_of_a_running_instance_says_so_and_touches_no_cluster(world):
    world.start()
    world.k3d.forget_calls()
    outcome = lifetime.start(
        world.paths, Wishes(environment=dict(os.environ), directory="/"), world.notes.append
    )
    assert outcome.already
    assert {tuple(words[:2]) for words in world.k3d.calls()} <= {("version",), ("node", "list")}


def test_stop_ends_the_tasks_then_stops_the_cluster_and_start_brings_both_back(world):
    made = world.start(load_balancer=True)
    assert world.stop() is True
    assert world.notes.index("ending 3 tasks") < world.notes.index("stopping the cluster `kecs-default`")
    assert set(world.k3d.containers().values()) == {"exited"}
    assert (world.kept.desired, world.kept.ended) == ("stopped", True)
    assert world.stop() is False

    again = world.again()
    assert set(world.k3d.containers().values()) == {"running"}
    assert msgspec.structs.replace(again, environment={}) == msgspec.structs.replace(
        made, environment={}, ended=False
    )
    assert len(world.k3d.calls("cluster", "create")) == 1


def test_stop_stops_a_cluster_that_somebody_started(world):
    world.start()
    world.stop()
    world.somebody("cluster", "start", "kecs-default")
    assert world.stop() is True
    assert world.k3d.containers() == {SERVER: "exited"}


def test_stop_without_a_control_plane_ends_the_tasks_while_the_cluster_runs(world):
    world.start()
    world.paths.database.touch()
    kill_the_control_plane(world)
    assert world.stop() is True
    assert (world.paths.root / "tasks-ended").exists()
    assert world.k3d.containers() == {SERVER: "exited"}


def test_stop_without_a_control_plane_and_cluster_has_no_tasks_to_end(world):
    world.start()
    world.paths.database.touch()
    kill_the_control_plane(world)
    world.somebody("kill", SERVER, program="docker")
    assert world.stop() is True
    assert not (world.paths.root / "tasks-ended").exists()


def kill_the_control_plane(world):
    pid = int(world.paths.controlplane_pid.read_text())
    os.kill(pid, signal.SIGKILL)
    until(lambda: pid not in world.home.alive(), "it is dead")


def test_stop_while_docker_is_down_ends_the_daemons_says_so_and_can_be_repeated(world):
    world.start()
    world.k3d.faults(docker_down=True)
    with pytest.raises(KecsError, match="`kecs-default` could not be stopped: Docker") as caught:
        world.stop()
    assert caught.value.exit_code == ExitCode.UNREACHABLE
    assert "run `kecs stop` again" in caught.value.hint
    assert world.home.alive() == []
    assert (world.kept.desired, world.kept.ended) == ("stopped", False)

    world.k3d.faults()
    assert world.stop() is True
    assert world.k3d.containers() == {SERVER: "exited"}


@pytest.mark.parametrize("killed", [SERVER, BALANCER])
def test_start_repairs_what_was_killed_while_the_instance_runs(world, killed):
    world.start(load_balancer=True)
    world.somebody("kill", killed, program="docker")
    world.again()
    assert set(world.k3d.containers().values()) == {"running"}
    assert any("repairing the cluster `kecs-default`" in note and killed in note for note in world.notes)
    assert world.home.starts("controlplane") == 1


def test_start_makes_a_cluster_anew_that_somebody_deleted(world):
    made = world.start()
    world.stop()
    world.paths.database.write_text("kept")
    world.somebody("cluster", "delete", "kecs-default")
    again = world.again()
    assert world.k3d.containers() == {SERVER: "running"}
    assert (again.id, again.k3d, again.published) == (made.id, made.k3d, made.published)
    assert world.paths.database.read_text() == "kept"
    assert "the cluster `kecs-default` is gone: making it anew" in world.notes


def test_an_anew_made_cluster_that_is_interrupted_keeps_what_the_instance_knows(world):
    world.start()
    world.stop()
    world.paths.database.write_text("kept")
    world.somebody("cluster", "delete", "kecs-default")
    world.k3d.faults(server_slow=300.0)
    with pytest.raises(KecsError):
        world.again()
    assert world.kept.desired == "stopped"
    assert world.paths.database.read_text() == "kept"
    world.k3d.faults()
    assert world.again().k3d.created is True
    assert world.paths.database.read_text() == "kept"


def test_destroy_leaves_nothing(world):
    world.start(load_balancer=True, agents=1)
    world.destroy()
    assert world.is_gone()
    assert world.k3d.calls("cluster", "stop") == [], "it is deleted as it runs"


def test_destroy_of_a_stopped_instance_leaves_nothing(world):
    world.start()
    world.stop()
    world.destroy()
    assert world.is_gone()


def test_a_delete_that_deletes_nothing_is_seen_and_done_by_docker(world):
    world.start()
    world.k3d.faults(delete_lies=True)
    world.destroy()
    assert world.is_gone()


def test_what_cannot_be_deleted_keeps_the_folder_and_is_named(world):
    world.start()
    world.k3d.faults(delete_lies=True, undeletable=[SERVER])
    with pytest.raises(KecsError, match=SERVER) as caught:
        world.destroy()
    assert "docker rm" in caught.value.hint
    assert world.paths.instance_file.exists()
    world.k3d.faults()
    world.destroy()
    assert world.is_gone()


def test_destroy_while_docker_is_down_deletes_nothing_unless_forced(world):
    world.start()
    world.k3d.faults(docker_down=True)
    with pytest.raises(KecsError, match="nothing was deleted: Docker") as caught:
        world.destroy()
    assert caught.value.exit_code == ExitCode.UNREACHABLE
    assert "`kecs destroy --force`" in caught.value.hint
    assert world.kept.desired == "running", "it was not even stopped"
    world.destroy(force=True)
    assert not world.paths.root.exists()
    assert any("`k3d cluster delete kecs-default`" in note for note in world.notes)
    world.k3d.faults()
    assert world.k3d.containers() == {SERVER: "running"}


# What is checked before anything is made


def test_the_longest_name_of_an_instance_is_the_longest_of_a_cluster():
    longest = check_instance_name("a" * 27)
    assert len(clusters.cluster_name(InstancePaths(Path("/"), longest))) == 32
    with pytest.raises(KecsError):
        check_instance_name("a" * 28)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda k3d: (k3d.bin / "k3d").unlink(), "`k3d`"),
        (lambda k3d: (k3d.bin / "docker").unlink(), "`docker`"),
        (lambda k3d: k3d.configure(k3d_version="v4.4.8"), "4.4.8; 5.0 or newer is needed"),
        (lambda k3d: k3d.faults(docker_down=True), "Docker does not answer"),
        (lambda k3d: k3d.faults(docker_denied=True), "denied"),
    ],
)
def test_programs_that_are_missing_old_or_silent_are_named_and_nothing_is_made(world, spoil, says):
    spoil(world.k3d)
    with pytest.raises(KecsError) as caught:
        world.start(environment=world.k3d.environment)
    assert caught.value.exit_code == ExitCode.UNREACHABLE
    assert says in caught.value.message
    assert caught.value.hint
    assert not (world.home.path / "instances").exists()


def test_a_cluster_of_the_name_that_kecs_did_not_make_is_left_alone(world):
    world.somebody("cluster", "create", "kecs-default", "--no-lb")
    with pytest.raises(KecsError, match="`kecs-default` already, which was not made by KECS") as caught:
        world.start()
    assert caught.value.exit_code == ExitCode.CONFLICT
    assert "`k3d cluster delete kecs-default`" in caught.value.hint
    assert not world.paths.root.exists()
    assert world.k3d.containers() == {SERVER: "running"}


def test_the_cluster_of_an_instance_that_was_forgotten_is_left_alone(world):
    made = world.start()
    world.stop()
    world.paths.instance_file.rename(world.home.path / "away")
    with pytest.raises(KecsError, match=f"another instance \\(id {made.id}\\)") as caught:
        world.start()
    assert caught.value.exit_code == ExitCode.CONFLICT
    assert world.k3d.containers() == {SERVER: "exited"}


def test_a_cluster_that_took_the_place_of_ours_is_neither_started_stopped_nor_deleted(world):
    world.start()
    world.stop()
    world.somebody("cluster", "delete", "kecs-default")
    world.somebody("cluster", "create", "kecs-default", "--no-lb")
    for act in (world.again, world.destroy, world.stop):
        with pytest.raises(KecsError, match="was not made by KECS") as caught:
            act()
        assert caught.value.exit_code == ExitCode.CONFLICT
    assert world.k3d.containers() == {SERVER: "running"}
    world.destroy(force=True)
    assert world.k3d.containers() == {SERVER: "running"}


@pytest.mark.parametrize("text", ["nine", "30100-30000", "29999-30001", "32760-32768", "40000"])
def test_what_is_no_block_of_node_ports_is_a_usage_error(world, text):
    with pytest.raises(KecsError, match=text) as caught:
        world.start(node_ports=text)
    assert caught.value.exit_code == ExitCode.USAGE
    assert not world.paths.root.exists()


# A start that fails, is interrupted, or is one of two


def test_a_create_that_fails_leaves_nothing(world):
    world.k3d.faults(server_slow=300.0)
    with pytest.raises(KecsError) as caught:
        world.start()
    assert caught.value.hint
    assert world.is_gone()
    world.k3d.faults()
    assert world.start().k3d.created is True


def test_a_control_plane_that_does_not_start_leaves_nothing_and_its_log(world):
    world.home.daemons_do(controlplane={"trace": "it broke"})
    with pytest.raises(KecsError, match="it broke") as caught:
        world.start()
    assert world.is_gone()
    log = Path(caught.value.hint.split("`")[1])
    assert "it broke" in log.read_text()
    log.unlink()


def test_a_later_start_that_fails_stops_the_cluster_again(world):
    world.start()
    world.stop()
    before = world.paths.instance_file.read_bytes()
    world.home.daemons_do(controlplane={"error": "no", "code": 4})
    with pytest.raises(KecsError, match="no"):
        world.again()
    assert world.k3d.containers() == {SERVER: "exited"}
    assert world.paths.instance_file.read_bytes() == before


def test_an_api_that_never_answers_is_an_error_that_leaves_nothing(world, api, monkeypatch):
    monkeypatch.setattr(k3d_start, "REACH_LIMIT", 0.3)
    api.stop()
    with pytest.raises(KecsError) as caught:
        world.start()
    api.start()
    assert caught.value.exit_code == ExitCode.UNREACHABLE
    assert world.is_gone()


def test_an_api_that_answers_late_is_waited_for(world, api):
    api.stop()
    late = threading.Timer(1.0, api.start)
    late.start()
    assert world.start().kubernetes is not None
    late.join()


STARTER = """
import os, sys
from pathlib import Path
from kecs.client import k3d_ports, launch, lifetime
from kecs.client.wishes import Wishes
from kecs.paths import InstancePaths
script = sys.argv[2]
launch.command = lambda daemon, paths, extra=(): [
    sys.executable, script, daemon, "--home", str(paths.home), "--instance", paths.name, *extra]
k3d_ports.API_PORTS = range(int(sys.argv[3]), 20000)
k3d_ports.NODE_PORTS = range(int(sys.argv[4]), 32768)
wishes = Wishes(runtime="k3d", node_ports="3", environment=dict(os.environ), directory="/")
lifetime.start(InstancePaths(Path(sys.argv[1]), "default"), wishes, lambda note: print(note, flush=True))
"""


@pytest.fixture
def starter(world, tmp_path):
    """Start the instance in a process of its own, which may be killed: so its temporary files are here."""
    started = []
    (tmp_path / "tmp").mkdir()
    environment = {**os.environ, "TMPDIR": str(tmp_path / "tmp")}

    def start():
        words = [sys.executable, "-c", STARTER, str(world.home.path), str(SCRIPT)]
        words += [str(API_PORTS.start), str(NODE_PORTS.start)]
        process = subprocess.Popen(
            words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


STEPS = ["create:network-made", "create:nodes-created", "up:server-started"]


@pytest.mark.parametrize("step", STEPS)
def test_ctrl_c_during_a_first_start_leaves_nothing(world, starter, step):
    world.k3d.hold(step)
    process = starter()
    world.k3d.wait_held(step)
    process.send_signal(signal.SIGINT)
    world.k3d.release(step)
    process.communicate(timeout=60)
    assert process.returncode != 0
    assert world.is_gone()


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("how", ["start", "destroy"])
def test_a_first_start_that_was_killed_is_cleared_by_the_next_command(world, starter, step, how):
    world.k3d.hold(step)
    process = starter()
    [held] = world.k3d.wait_held(step)
    process.kill()
    process.communicate(timeout=60)
    assert clusters.never_was(world.kept)
    os.kill(held, signal.SIGKILL)
    world.k3d.release(step)
    assert not world.is_gone()
    if how == "destroy":
        world.destroy()
        assert world.is_gone()
        return
    made = world.start(node_ports="4")
    assert made.k3d.created
    assert len(k3d_ports.read(made.published)) == 4, "it may be wished anew"
    assert world.k3d.containers() == {SERVER: "running"}
    assert any("whose creation was interrupted" in note for note in world.notes)


def test_stop_of_an_instance_that_was_never_finished_is_no_error(world, starter):
    world.k3d.hold("up:server-started")
    process = starter()
    [held] = world.k3d.wait_held("up:server-started")
    process.kill()
    process.communicate(timeout=60)
    os.kill(held, signal.SIGKILL)
    world.k3d.release("up:server-started")
    assert world.stop() is True
    world.destroy()
    assert world.is_gone()


def test_several_starts_at_once_make_one_cluster_and_one_instance(world):
    assert at_once(lambda: world.start()) == []
    assert len(world.k3d.calls("cluster", "create")) == 1
    assert world.k3d.containers() == {SERVER: "running"}
    until(lambda: len(world.home.alive()) == 1, "one control plane is left")


def test_a_start_that_waits_for_one_that_fails_begins_anew(world, starter):
    world.k3d.hold("up:server-started")
    first = starter()
    world.k3d.wait_held("up:server-started")
    made: list[instances.Instance] = []
    second = threading.Thread(target=lambda: made.append(world.start()))
    second.start()
    until(lambda: any("waiting for it" in note for note in world.notes), "it waits")
    first.send_signal(signal.SIGINT)
    world.k3d.release("up:server-started")
    first.communicate(timeout=60)
    second.join()
    assert made[0].k3d.created
    assert world.k3d.containers() == {SERVER: "running"}


# Ports


def test_instances_share_out_the_node_ports_running_or_not(world):
    first = world.start()
    world.stop()
    second = world.start("two")
    blocks = [k3d_ports.read(each.published) for each in (first, second)]
    assert not set(blocks[0]) & set(blocks[1])
    assert first.k3d.api_port != second.k3d.api_port
    with pytest.raises(KecsError, match="is published by the instance `default`") as caught:
        world.start("three", node_ports=first.published)
    assert caught.value.exit_code == ExitCode.CONFLICT
    lifetime.destroy(InstancePaths(world.home.path, "two"), world.notes.append)


def test_no_node_ports_are_published_when_none_are_wanted(world):
    made = world.start(node_ports="0")
    assert made.published is None
    assert [port for _, _, port in world.k3d.ports(SERVER)] == [6443]


def test_a_port_that_was_taken_meanwhile_is_named_and_nothing_is_left(world):
    made = world.start()
    world.stop()
    taken = k3d_ports.read(made.published)[1]
    world.k3d.faults(taken=[taken])
    with pytest.raises(KecsError, match=str(taken)) as caught:
        world.again()
    assert caught.value.exit_code == ExitCode.CONFLICT
    assert "running" not in world.k3d.containers().values()
    world.k3d.faults()
    world.again()


def test_a_port_that_docker_refuses_gives_way_to_another(world):
    """It could be bound: another container has it, and Docker has no program that listens for it."""
    taken = [API_PORTS.start, NODE_PORTS.start + 1]
    world.k3d.faults(taken=taken)
    made = world.start()
    assert made.k3d.api_port not in taken
    assert not set(k3d_ports.read(made.published)) & set(taken)
    assert len(world.k3d.calls("cluster", "create")) > 1
    assert world.k3d.containers() == {SERVER: "running"}


def test_a_block_that_was_named_and_docker_refuses_is_an_error(world):
    block = f"{NODE_PORTS.start}-{NODE_PORTS.start + 2}"
    world.k3d.faults(taken=[NODE_PORTS.start + 1])
    with pytest.raises(KecsError, match=str(NODE_PORTS.start + 1)) as caught:
        world.start(node_ports=block)
    assert caught.value.exit_code == ExitCode.CONFLICT
    assert world.is_gone()


# Auto


def test_auto_takes_k3d_where_it_answers_and_says_and_keeps_why(world):
    made = world.start(runtime=None, node_ports="3")
    assert (made.runtime, made.auto) == ("k3d", "Docker and k3d answer")
    [told] = [note for note in world.notes if "runtime `k3d`" in note]
    assert "`kecs start --runtime kubernetes|local`" in told
    assert world.kept.auto == made.auto


def test_auto_takes_local_where_docker_does_not_answer(world):
    world.k3d.faults(docker_down=True)
    made = world.start(runtime="auto", node_ports=None)
    assert made.runtime == "local"
    assert "Docker does not answer" in made.auto
    [told] = [note for note in world.notes if "runtime `local`" in note]
    assert "`kecs start --runtime k3d|kubernetes`" in told


def test_auto_does_not_ask_for_an_instance_that_exists(world):
    world.start(runtime="local", node_ports=None)
    world.stop()
    world.again()
    assert world.k3d.calls() == []
    assert world.kept.runtime == "local"


@pytest.mark.parametrize(
    ("wishes", "says"),
    [
        ({"runtime": "local", "load_balancer": True}, "`--load-balancer` is for instances on k3d"),
        ({"runtime": "kubernetes", "agents": 1}, "`--agents` is for instances on k3d"),
        ({"runtime": "k3d", "context": "x"}, "`--context` is for instances on your own cluster"),
        ({"runtime": "local", "node_ports": "100"}, "`--node-ports` is for instances on a cluster"),
        ({"runtime": None, "agents": 1}, "and `auto` chose `local`: "),
    ],
)
def test_options_of_another_runtime_are_usage_errors(world, wishes, says):
    environment = {"PATH": "/nowhere"}
    with pytest.raises(KecsError) as caught:
        world.start(**({"node_ports": None, "environment": environment} | wishes))
    assert caught.value.exit_code == ExitCode.USAGE
    assert says in caught.value.message
    assert not world.paths.root.exists()

"""`kecs doctor`: each check is content where all is well, and finds and answers each trouble provoked."""

from __future__ import annotations

import dataclasses
import os
import resource
import shutil
import signal
import socket
import time
from pathlib import Path

import pytest
import yaml
from tests.client.fakes import row
from tests.kube.scripted import ScriptedApi

from kecs import settings
from kecs.agent.state import Config, NamesEntry, save
from kecs.client import instance as instances
from kecs.client import launch, lifetime
from kecs.client.doctor import clusters, daemons, ports, system
from kecs.client.doctor import home as homes
from kecs.client.doctor.examination import CHECKS, examine
from kecs.client.doctor.machine import Ran, this_machine
from kecs.client.instance import Kubernetes

MINUTE = 60.0


def nobody(_port):
    return None


def a_stranger(_port):
    return "nginx (pid 12)"


@pytest.fixture
def machine(home):
    """This machine, with a home of the test's own, free ports and none of our programs."""
    return dataclasses.replace(
        this_machine(settings.load()),
        environ={"HOME": str(home.path), "KUBECONFIG": str(home.path / "none")},
        descriptors=(1024, 1_048_576),
        find=lambda _name: None,
        run=lambda *_: pytest.fail("nothing is to be run"),
        holder=nobody,
        holder_of_udp=nobody,
    )


def found(check, machine, level):
    """Return the text and the advice of the one finding of this level."""
    [one] = [each for each in check(machine) if each.level == level]
    assert level == "ok" or level == "not used" or one.advice, "each trouble has what to do about it"
    return f"{one.text}\n{one.advice}"


def levels(check, machine):
    return [each.level for each in check(machine)]


# The whole


def test_a_machine_where_all_is_well_has_no_trouble(machine, home):
    home.path.chmod(0o700)
    home.instance(desired="stopped", ended=True)
    home.forwards({"name": "web", "localPort": 20000})
    home.paths.forwards_config.chmod(0o600)
    for finding in examine(machine):
        assert finding.level in ("ok", "not used"), finding
    assert {finding.check for finding in examine(machine)} == set(CHECKS)


def test_a_machine_without_an_instance_has_no_trouble(machine, home):
    assert {finding.level for finding in examine(machine)} == {"ok", "not used"}
    assert {finding.check for finding in examine(machine)} == set(CHECKS)


def test_a_check_that_cannot_look_is_a_finding(machine, monkeypatch):
    def fails(_machine):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setitem(CHECKS, "clock", fails)
    [clock] = [finding for finding in examine(machine) if finding.check == "clock"]
    assert clock.level == "error"
    assert "Permission denied" in clock.text


def test_looking_changes_nothing(machine, home):
    home.instance(desired="stopped", ended=True)
    home.forwards({"name": "web", "localPort": 20000})
    before = {file: file.stat().st_mtime_ns for file in home.path.rglob("*")}
    list(examine(machine))
    assert {file: file.stat().st_mtime_ns for file in home.path.rglob("*")} == before


# Home


@pytest.mark.parametrize(
    ("mode", "level", "says"),
    [
        (0o700, "ok", "is yours alone"),
        (0o755, "warning", "others may look into"),
        (0o777, "error", "others may write to"),
        (0o500, "error", "cannot be written"),
    ],
)
def test_the_mode_of_the_home(machine, home, mode, level, says):
    home.path.chmod(mode)
    told = found(homes.check_home, machine, level)
    assert says in told
    assert level == "ok" or f"`chmod 700 {home.path}`" in told
    home.path.chmod(0o700)


def test_a_home_of_another_user(machine, home):
    assert "sudo chown -R" in found(
        homes.check_home, dataclasses.replace(machine, uid=machine.uid + 1), "error"
    )


def test_a_home_that_is_not_there_or_no_folder(machine, home):
    shutil.rmtree(home.path)
    assert "`kecs start` makes it" in found(homes.check_home, machine, "ok")
    home.path.write_text("a file")
    assert "is not a folder" in found(homes.check_home, machine, "error")
    home.path.unlink()


def test_a_disk_that_is_nearly_full(machine, home):
    home.path.chmod(0o700)
    full = dataclasses.replace(machine, free_bytes=lambda _folder: 5_000_000)
    assert "5 MB are left" in found(homes.check_home, full, "warning")


# Files


def test_files_that_others_may_read(machine, home):
    home.instance(desired="stopped")
    home.paths.secrets_file.write_text("x")
    home.paths.secrets_file.chmod(0o644)
    told = found(homes.check_files, machine, "warning")
    assert "`secrets.yaml`" in told
    assert f"`chmod -R go= {home.paths.root}`" in told


def test_files_of_another_user(machine, home):
    home.instance(desired="stopped")
    told = found(homes.check_files, dataclasses.replace(machine, uid=machine.uid + 1), "error")
    assert "as after `sudo kecs`" in told


def test_an_instance_file_and_settings_that_cannot_be_read(machine, home):
    home.instance(desired="stopped")
    home.paths.instance_file.write_text("{")
    assert str(home.paths.instance_file) in found(homes.check_files, machine, "error")
    home.instance(desired="stopped")
    (home.path / "settings.yaml").write_text("version: 1\nnonsense: 1\n")
    assert "`nonsense`" in found(homes.check_files, machine, "error")


def test_a_home_whose_sockets_would_have_too_long_paths(machine, home):
    long = home.path / ("x" * 100)
    (long / "instances/default").mkdir(parents=True)
    (long / "instances/default/instance.yaml").write_text("{")
    deep = dataclasses.replace(machine, settings=settings.Settings(home=long, instance="default"))
    assert any("bytes" in each.text or "long" in each.text for each in homes.check_files(deep))
    assert levels(homes.check_stale, deep) == ["ok"]


# Stale files


def test_what_a_dead_daemon_left(machine, home):
    home.instance()
    home.paths.agent_pid.write_text("1")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(home.paths.agent_socket))
    told = found(homes.check_stale, machine, "warning")
    assert "the agent of the instance `default` died and left `agent.sock` and `agent.pid`" in told
    assert "`kecs start`" in told


def test_files_that_were_moved_aside_and_half_written_ones(machine, home):
    home.instance(desired="stopped")
    aside = home.paths.forwards / "config.yaml.unreadable-20260101T000000"
    aside.write_text("?")
    assert f"`rm {aside}`" in found(homes.check_stale, machine, "warning")
    aside.unlink()

    half = home.paths.root / f".instance.yaml.{_dead_pid()}.123"
    half.write_text("")
    assert f"`rm {half}`" in found(homes.check_stale, machine, "warning")
    half.rename(half.with_name(f".instance.yaml.{os.getpid()}.123"))
    assert levels(homes.check_stale, machine) == ["ok"], "a writer that lives is at work"


def _dead_pid() -> int:
    """Return the id of a process that has ended."""
    pid = os.spawnlp(os.P_NOWAIT, "true", "true")
    os.waitpid(pid, 0)
    return pid


# Daemons


def test_daemons_that_answer(machine, home):
    home.instance()
    home.forwards({"name": "x"})
    launch.launch("controlplane", home.paths)
    launch.launch("agent", home.paths)
    assert "answer" in found(daemons.check_daemons, machine, "ok")
    assert "nothing has to be done" not in found(ports.check_api_ports, machine, "ok")


def test_daemons_that_do_not_run(machine, home):
    home.instance()
    home.forwards({"name": "x"})
    told = [each.text for each in daemons.check_daemons(machine) if each.level == "error"]
    assert told[0] == "the control plane of the instance `default` does not run"
    assert told[1] == "the agent of the instance `default` does not run"
    home.instance(agent="stopped")
    assert len([each for each in daemons.check_daemons(machine) if each.level == "error"]) == 1


def test_a_daemon_that_runs_although_it_was_stopped(machine, home):
    home.instance()
    launch.launch("agent", home.paths)
    home.instance(desired="stopped")
    assert "`kecs stop`" in found(daemons.check_daemons, machine, "error")


def test_daemons_of_another_version(machine, home):
    home.instance()
    home.daemons_do(agent={"version": "0.0.1"}, controlplane={"status": {"version": "0.0.2"}})
    home.forwards({"name": "x"})
    launch.launch("controlplane", home.paths)
    launch.launch("agent", home.paths)
    told = [each for each in daemons.check_daemons(machine) if each.level == "warning"]
    assert "KECS 0.0.2" in told[0].text
    assert "KECS 0.0.1" in told[1].text
    assert "`kecs port-forward agent restart` replaces it" in told[1].advice


def test_a_daemon_that_hangs(machine, home, monkeypatch):
    monkeypatch.setattr(daemons, "TIMEOUT", 0.2)
    home.instance()
    launch.launch("controlplane", home.paths)
    pid = int(home.paths.controlplane_pid.read_text())
    os.kill(pid, signal.SIGSTOP)
    try:
        told = found(daemons.check_daemons, machine, "error")
    finally:
        os.kill(pid, signal.SIGCONT)
    assert "does not answer" in told
    assert f"kill -9 {pid}" in told


def test_what_a_control_plane_says_of_itself_and_of_its_cluster(machine, home):
    lost = {"context": "work", "server": "https://x", "connected": False, "detail": "no route to host"}
    home.instance()
    home.daemons_do(controlplane={"status": {"warnings": ["a warning"], "cluster": lost}})
    launch.launch("controlplane", home.paths)
    assert "a warning" in found(daemons.check_daemons, machine, "warning")
    told = found(daemons.check_daemons, machine, "error")
    assert "does not reach its cluster: no route to host" in told
    assert "kubectl --context work" in told


# Ports


def test_the_port_of_the_api_is_a_strangers(machine, home):
    taken = dataclasses.replace(machine, holder=a_stranger)
    assert "`kecs start` chooses another" in found(ports.check_api_ports, taken, "warning")
    home.instance(desired="stopped")
    told = found(ports.check_api_ports, taken, "error")
    assert "port 5373 of the instance `default` is taken by nginx (pid 12)" in told
    assert "`kecs start --port N`" in told
    home.instance("other", desired="stopped", api_port=5374)
    assert len([each for each in ports.check_api_ports(taken) if "--instance other" in each.advice]) == 1


def test_a_kept_port_is_a_strangers(machine, home):
    home.instance(desired="stopped")
    home.forwards({"name": "web", "localPort": 20000}, {"name": "gone", "localPort": 20001, "ended": "x"})
    taken = dataclasses.replace(machine, holder=a_stranger)
    told = found(ports.check_kept_ports, taken, "error")
    assert "port 20000 of the forward `web` in the instance `default` is taken by nginx (pid 12)" in told
    assert "1 ports are kept" in found(ports.check_kept_ports, machine, "ok")


def test_a_kept_port_of_udp_is_looked_for_among_those_of_udp(machine, home):
    home.instance(desired="stopped")
    home.forwards({"name": "dns", "localPort": 20000, "protocol": "udp"})
    assert "1 ports are kept" in found(
        ports.check_kept_ports, dataclasses.replace(machine, holder=a_stranger), "ok"
    )
    taken = dataclasses.replace(machine, holder_of_udp=a_stranger)
    told = found(ports.check_kept_ports, taken, "error")
    assert "UDP port 20000 of the forward `dns` in the instance `default` is taken by nginx (pid 12)" in told


def test_the_port_of_the_names_is_kept_too(machine, home):
    home.instance(desired="stopped")
    home.make_folders()
    taken = dataclasses.replace(machine, holder=a_stranger)
    save(home.paths, Config(forwards=[], names=NamesEntry(port=20005, owners=[""])))
    assert "port 20005 of the names" in found(ports.check_kept_ports, taken, "error")
    save(home.paths, Config(forwards=[], names=NamesEntry(port=20005)))
    assert "0 ports are kept" in found(ports.check_kept_ports, taken, "ok"), "nobody wants them"


def test_an_agent_that_runs_says_itself_which_port_it_could_not_get(machine, home):
    home.instance()
    home.forwards({"name": "prod-web", "localPort": 20000})
    failed = row(state="FAILED", reason="port 20000 on 127.0.0.1 is taken by nginx (pid 12)")
    home.daemons_do(agent={"forwards": [failed, row(name="well", id="pf-11111111")]})
    launch.launch("agent", home.paths)
    told = found(ports.check_kept_ports, dataclasses.replace(machine, holder=a_stranger), "error")
    assert "taken by nginx (pid 12)" in told
    assert "`kecs explain forward prod-web`" in told


def test_a_file_of_forwards_of_a_newer_version(machine, home):
    home.instance(desired="stopped")
    home.paths.forwards_config.write_text("version: 99\nforwards: []\n")
    assert "newer KECS" in found(ports.check_kept_ports, machine, "error")


def test_the_holder_of_a_port_of_loopback_is_named():
    real = this_machine(settings.load())
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"(pid {os.getpid()})" in real.holder(port)
    assert real.holder(port) is None
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        assert f"(pid {os.getpid()})" in real.holder_of_udp(port)
    assert real.holder_of_udp(port) is None


# The system


@pytest.mark.parametrize(
    ("hard", "level"), [(1_048_576, "ok"), (resource.RLIM_INFINITY, "ok"), (4096, "warning"), (256, "error")]
)
def test_the_limit_of_open_files(machine, hard, level):
    told = found(system.check_descriptors, dataclasses.replace(machine, descriptors=(256, hard)), level)
    assert level == "ok" or "ulimit -Hn" in told


@pytest.mark.parametrize("variable", system.PROXIES)
def test_a_proxy_that_would_get_what_is_meant_for_kecs(machine, variable):
    proxied = dataclasses.replace(machine, environ={variable: "http://proxy:3128", "NO_PROXY": "corp"})
    told = found(system.check_proxies, proxied, "error")
    assert f"{variable} is set and NO_PROXY does not name 127.0.0.1 and localhost" in told
    assert "`export NO_PROXY=corp,127.0.0.1,localhost no_proxy=corp,127.0.0.1,localhost`" in told


@pytest.mark.parametrize("bypass", ["*", "127.0.0.1,localhost", "localhost, 127.0.0.1,.corp"])
def test_a_proxy_that_leaves_loopback_alone(machine, bypass):
    environ = {"HTTP_PROXY": "http://proxy:3128", "no_proxy": bypass}
    assert levels(system.check_proxies, dataclasses.replace(machine, environ=environ)) == ["ok"]


def test_a_clock_that_was_set_back(machine, home):
    assert "1970" in found(system.check_clock, dataclasses.replace(machine, now=lambda: MINUTE), "error")
    home.instance(created_at=time.time() + 2 * MINUTE)
    assert "timedatectl" in found(system.check_clock, machine, "warning")


# Clusters


@pytest.fixture
def api():
    with ScriptedApi() as server:
        yield server


@pytest.fixture
def on_cluster(home, api, tmp_path):
    """A stopped instance on a cluster that answers."""
    wishes = lifetime.Wishes(
        runtime="kubernetes",
        kubeconfig=str(api.kubeconfig(tmp_path)),
        environment={},
        directory="/tmp",
    )
    made = lifetime.start(home.paths, wishes, lambda _note: None).instance
    lifetime.stop(home.paths, lambda _note: None)
    return made


def test_the_cluster_of_an_instance(machine, home, api, on_cluster, monkeypatch):
    assert "context `kecs-test`" in found(clusters.check_kubeconfig, machine, "ok")
    api.remove("Namespace", None, "kube-system")
    api.put({"kind": "Namespace", "metadata": {"name": "kube-system"}})
    assert "leads to another cluster" in found(clusters.check_kubeconfig, machine, "error")
    monkeypatch.setattr(clusters, "PATIENCE", 0.5)
    api.stop()
    assert found(clusters.check_kubeconfig, machine, "error")
    Path(on_cluster.kubernetes.kubeconfig).unlink()
    assert "does not exist" in found(clusters.check_kubeconfig, machine, "error")


def test_a_context_that_is_gone(machine, home, on_cluster):
    file = Path(on_cluster.kubernetes.kubeconfig)
    document = yaml.safe_load(file.read_text())
    document["contexts"][0]["name"] = "renamed"
    file.write_text(yaml.safe_dump(document))
    assert "renamed" in found(clusters.check_kubeconfig, machine, "error")


def test_a_kubeconfig_that_no_instance_uses(machine, home, api, tmp_path):
    unused = api.kubeconfig(tmp_path)
    environ = {"KUBECONFIG": str(unused)}
    told = found(clusters.check_kubeconfig, dataclasses.replace(machine, environ=environ), "not used")
    assert "`kecs-test`" in told
    unused.write_text("{")
    assert "is not YAML" in found(
        clusters.check_kubeconfig, dataclasses.replace(machine, environ=environ), "warning"
    )


def on(home, context):
    """Write an instance whose cluster has this context."""
    chosen = Kubernetes(kubeconfig="/nowhere", context=context, cluster_uid="u")
    home.instance(desired="stopped", runtime="kubernetes", kubernetes=chosen)
    assert instances.require(home.paths).kubernetes == chosen


def with_program(machine, ran):
    return dataclasses.replace(machine, find=lambda name: f"/usr/bin/{name}", run=lambda *_: ran)


REFUSED = Ran(1, "", "Cannot connect to the Docker daemon at unix:///var/run/docker.sock.\n")
DENIED = Ran(1, "", "permission denied while trying to connect to the Docker daemon socket\n")


def test_docker(machine, home):
    assert "is not installed; no instance needs it" in found(clusters.check_docker, machine, "not used")
    assert "Docker 27.1 answers" in found(
        clusters.check_docker, with_program(machine, Ran(0, "27.1\n", "")), "ok"
    )
    assert "no instance needs it" in found(clusters.check_docker, with_program(machine, REFUSED), "not used")
    on(home, "kind-dev")
    assert "needs it" in found(clusters.check_docker, machine, "error")
    assert "start Docker" in found(clusters.check_docker, with_program(machine, REFUSED), "error")
    assert "usermod -aG docker" in found(clusters.check_docker, with_program(machine, DENIED), "error")


def test_k3d(machine, home):
    assert "no instance needs it" in found(clusters.check_k3d, machine, "not used")
    new = Ran(0, "k3d version v5.8.3\nk3s version v1.31.5-k3s1 (default)\n", "")
    assert "k3d version v5.8.3" in found(clusters.check_k3d, with_program(machine, new), "ok")
    old = with_program(machine, Ran(0, "k3d version v4.4.8\n", ""))
    assert "too old" in found(clusters.check_k3d, old, "warning")
    broken = with_program(machine, Ran(126, "", "exec format error\n"))
    assert "exec format error" in found(clusters.check_k3d, broken, "not used")
    on(home, "k3d-dev")
    assert "https://k3d.io" in found(clusters.check_k3d, machine, "error")


def test_a_program_that_does_not_answer_or_start():
    real = this_machine(settings.load())
    assert real.run(("sleep", "5"), 0.05).code == 124
    assert real.run(("/nowhere/docker",), 1.0).code == 127
    assert real.run(("sh", "-c", "echo out; echo err >&2; exit 3"), 5.0) == Ran(3, "out\n", "err\n")

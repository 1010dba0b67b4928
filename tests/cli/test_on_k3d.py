"""`start`, `status`, `stop`, `destroy`, `doctor` as words on a terminal, with a scripted k3d."""

from __future__ import annotations

import json
import os

import pytest
from tests.k3d.scripted import SECRETS, ScriptedK3d

from kecs.client.instance import K3d, Kubernetes

SERVER = "k3d-kecs-default-server-0"
BALANCER = "k3d-kecs-default-serverlb"
ID = "0123abcd"


@pytest.fixture
def k3d(tmp_path, monkeypatch):
    with ScriptedK3d(tmp_path / "k3d") as one:
        monkeypatch.setenv("PATH", f"{one.bin}:{os.environ['PATH']}")
        monkeypatch.setenv("HOME", one.environment["HOME"])
        yield one


@pytest.fixture
def instance(home, k3d):
    """Write an instance with a cluster that has a load balancer; return what writes it anew."""
    k3d.run("cluster", "create", "kecs-default", "--runtime-label", f"kecs.dev/instance-id={ID}@server:*")

    def write(**members):
        known = {
            "id": ID,
            "runtime": "k3d",
            "kubernetes": Kubernetes(kubeconfig="/k", context="k3d-kecs-default", cluster_uid="u"),
            "k3d": K3d(
                cluster="kecs-default", api_port=6443, load_balancer=True, created=True,
                docker={"DOCKER_HOST": "ssh://me:S3CRET@far"},
            ),
            "published": "30000-30099",
        }  # fmt: skip
        return home.instance(**(known | members))

    write()
    return write


def test_status_tells_the_nodes_and_warns_of_a_dead_one(kecs, k3d, instance):
    ran = kecs("status")
    assert ran.code == 0
    [line] = [line for line in ran.out.splitlines() if line.startswith("k3d")]
    assert line.startswith("k3d            kecs-default  running  ")
    assert f"server {SERVER} running" in line
    assert "warning" not in ran.err

    k3d.run("kill", BALANCER, program="docker")
    ran = kecs("status")
    assert f"load balancer {BALANCER} exited" in ran.out
    assert "warning: its cluster `kecs-default` is broken" in ran.err
    assert "`kecs start` puts that right" in ran.err


def test_status_as_json_has_what_was_chosen_and_what_there_is(kecs, k3d, instance):
    ran = kecs("status", "-o", "json")
    document = json.loads(ran.out)["k3d"]
    assert (document["cluster"], document["state"], document["loadBalancer"]) == (
        "kecs-default",
        "running",
        True,
    )
    assert {node["name"]: node["state"] for node in document["nodes"]} == {
        SERVER: "running",
        BALANCER: "running",
    }
    assert json.loads(ran.out)["published"] == "30000-30099"
    assert not [secret for secret in (*SECRETS, "S3CRET") if secret in ran.out + ran.err]
    listed = kecs("list", "-o", "json").out
    assert "S3CRET" not in listed
    assert json.loads(listed)[0]["k3d"]["agents"] == 0


@pytest.mark.parametrize(
    ("members", "do", "says"),
    [
        ({"desired": "stopped"}, (), "is running: `kecs stop` stops it"),
        ({"desired": "stopped", "kubernetes": None}, (), "was interrupted: `kecs start` begins anew"),
        ({}, ("cluster", "delete", "kecs-default"), "is absent"),
        ({}, ("cluster", "stop", "kecs-default"), "is stopped"),
    ],
)
def test_status_warns_of_a_cluster_that_is_not_as_it_should_be(kecs, k3d, instance, members, do, says):
    instance(**members)
    if do:
        k3d.run(*do)
    assert says in kecs("status").err


def test_status_while_docker_is_down_says_so_and_goes_on(kecs, k3d, instance):
    k3d.faults(docker_down=True)
    ran = kecs("status")
    assert ran.code == 0
    assert "k3d            kecs-default  unknown  Docker does not answer" in ran.out
    assert "tasks 3 running" in ran.out


def test_stop_and_destroy_in_words(kecs, k3d, instance):
    ran = kecs("stop")
    assert ran.code == 0
    assert "stopping the cluster `kecs-default`" in ran.err
    assert "go on" not in ran.err
    assert kecs("stop").err == "the instance `default` was stopped already\n"
    assert "warning" not in kecs("status").err
    assert kecs("destroy", "--yes").code == 0
    assert k3d.is_empty()


def findings(kecs):
    return [row for row in json.loads(kecs("doctor", "-o", "json").out) if row["check"] == "k3d"]


@pytest.mark.parametrize(
    ("members", "do", "level", "says"),
    [
        ({}, (), "ok", "is running"),
        ({}, ("docker", "kill", BALANCER), "error", "`kecs start` repairs it"),
        ({"desired": "stopped"}, (), "warning", "`kecs stop` stops it"),
        ({"desired": "stopped"}, ("k3d", "cluster", "stop", "kecs-default"), "ok", "is stopped"),
        ({"desired": "stopped"}, ("k3d", "cluster", "delete", "kecs-default"), "warning", "makes it anew"),
        ({"kubernetes": None, "desired": "stopped"}, (), "warning", "`kecs destroy` removes what is left"),
    ],
)
def test_doctor_compares_the_cluster_with_what_it_should_be(kecs, k3d, instance, members, do, level, says):
    instance(**members)
    if do:
        k3d.run(*do[1:], program=do[0])
    program, cluster = findings(kecs)
    assert program["level"] == "ok"
    assert cluster["level"] == level
    assert says in f"{cluster['text']} {cluster['advice']}"


def test_doctor_without_docker_names_it_and_the_instance(kecs, k3d, instance):
    k3d.faults(docker_down=True)
    rows = json.loads(kecs("doctor", "-o", "json").out)
    errors = [row["text"] for row in rows if row["level"] == "error"]
    assert any("the cluster of the instance `default` needs it" in text for text in errors)
    assert any("is unknown: Docker does not answer" in text for text in errors)


def test_doctor_does_not_ask_a_cluster_that_is_stopped(kecs, k3d, instance):
    instance(desired="stopped")
    k3d.run("cluster", "stop", "kecs-default")
    rows = json.loads(kecs("doctor", "-o", "json").out)
    [row] = [row for row in rows if row["check"] == "kubeconfig"]
    assert (row["level"], "is stopped with it" in row["text"]) == ("not used", True)


@pytest.mark.parametrize(
    ("words", "says", "hint"),
    [
        (("--runtime", "magic"), "`magic`", "`k3d`"),
        (("--runtime", "local", "--agents", "1"), "`--agents` is for instances on k3d", "`--runtime k3d`"),
        (("--runtime", "local", "--import", "never"), "`--import`", "`--runtime k3d`"),
        (("--runtime", "k3d", "--node-ports", "nine"), "`nine`", "`30000-30099`"),
        (("--runtime", "k3d", "--kubeconfig", "/k"), "`--kubeconfig`", "`--runtime kubernetes`"),
        (("--runtime", "k3d", "--agents", "-1"), "-1", "--help"),
    ],
)
def test_options_that_cannot_be_meant_are_usage_errors_before_any_file_exists(
    fails, home, k3d, words, says, hint
):
    fails(2, "start", *words, says=says, hint=hint)
    assert not (home.path / "instances").exists()
    assert k3d.calls("cluster") == []


def test_the_environment_names_the_runtime_of_new_instances(kecs, fails, home, k3d, monkeypatch):
    monkeypatch.setenv("KECS_RUNTIME", "magic")
    fails(2, "start", says="`magic`", hint="`local`")
    monkeypatch.setenv("KECS_RUNTIME", "auto")
    k3d.faults(docker_down=True)
    ran = kecs("start")
    assert ran.code == 0
    assert (
        "tasks will be processes of this machine (runtime `local`), since Docker does not answer" in ran.err
    )
    assert "`kecs start --runtime k3d|kubernetes`" in ran.err
    monkeypatch.setenv("KECS_RUNTIME", "k3d")
    assert kecs("start").code == 0, "it says nothing of an instance that exists"
    assert "Docker does not answer" in json.loads(kecs("status", "-o", "json").out)["auto"]


def test_the_name_of_an_instance_is_checked_before_anything(fails, home, k3d):
    for name in ("a" * 28, "Bad", "bad_name", "-bad"):
        fails(2, "start", "--runtime", "k3d", "--instance", name, says=f"`{name}`", hint="27")
    assert not (home.path / "instances").exists()
    assert k3d.calls() == []

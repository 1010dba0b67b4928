"""`kecs port-forward export` with a scripted agent: a file that `run` takes."""

from __future__ import annotations

import pytest

from kecs.cli import config_file

KEPT = {
    "forwards": [
        {
            "target": {"type": "service", "cluster": "prod", "service": "web", "region": "us-east-1"},
            "name": "web",
            "localPort": 8080,
            "targetPort": 80,
        },
        {
            "target": {"type": "task", "cluster": "dev", "tags": {"A": "b"}, "region": "eu-west-1"},
            "name": "debug",
            "localPort": 9229,
            "targetPort": "debug",
            "autoReconnect": False,
        },
    ],
    "names": True,
}


@pytest.fixture
def running(home, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    home.instance()
    home.forwards({"name": "web"})
    home.daemons_do(agent={"export": KEPT})
    return home


def test_a_file_is_written_that_says_the_same(kecs, running, tmp_path):
    ran = kecs("port-forward", "export", "-o", "team.yaml")
    assert (ran.code, ran.out) == (0, "")

    spec = config_file.read(tmp_path / "team.yaml", "team.yaml")
    assert spec.names
    assert [(one.name, one.local_port, one.target.region, one.auto_reconnect) for one in spec.forwards] == [
        ("web", 8080, None, True),
        ("debug", 9229, "eu-west-1", False),
    ]
    assert "wrote 2 forwards to `team.yaml`" in ran.err
    assert "`kecs port-forward stop --all` before `kecs port-forward run --config team.yaml`" in ran.err


def test_without_a_file_it_is_printed(kecs, running):
    ran = kecs("pf", "export")
    assert "  name: debug\n" in ran.out or "- name: debug\n" in ran.out
    assert ran.err.splitlines()[-1:] != ["there is no port forward"]


def test_a_file_that_exists_is_replaced_only_by_force(kecs, fails, running, tmp_path):
    (tmp_path / "team.yaml").write_text("mine" * 1000)
    fails(4, "pf", "export", "-o", "team.yaml", says="`team.yaml` exists", hint="--force")
    assert kecs("pf", "export", "-o", "team.yaml", "--force").code == 0
    assert len(config_file.read(tmp_path / "team.yaml", "x").forwards) == 2


def test_what_cannot_be_written_to(fails, running):
    fails(2, "pf", "export", "-o", "no/such/folder", says="cannot be written")


def test_without_forwards_no_agent_is_started(kecs, home):
    home.instance()
    ran = kecs("pf", "export")
    assert "there is no port forward" in ran.err
    assert ran.out.splitlines()[1:] == ["version: '1'", "forwards: []"]
    assert home.alive() == []

"""No token, key or certificate of the cluster in notes, messages, hints or logs, whatever k3d says."""

from __future__ import annotations

import logging

import pytest
from tests.k3d.clusters import Stage
from tests.k3d.scripted import SECRETS
from tests.sockets import free_port

from kecs.errors import KecsError
from kecs.k3d import cluster as module
from kecs.k3d.images import import_image


@pytest.fixture
def stage(scripted, tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    scripted.configure(images={"myapp:dev": "sha256:1234"})
    one = Stage(
        scripted, tmp_path / "instance", load_balancer=True, k3s_args=(f"--token={SECRETS[0]}@server:*",)
    )
    one.k3d.faults(leak=True)
    yield one
    shown = "\n".join([*one.notes, caplog.text, repr(one.tools), repr(one.cluster.__dict__)])
    assert not any(secret in shown for secret in SECRETS)
    assert "Starting node with" in "\n".join(one.notes)  # they were there to be hidden
    assert "(redacted)" in shown


def shows_nothing(error: BaseException) -> None:
    shown = []
    while error is not None:
        shown += [str(error), repr(error), str(getattr(error, "hint", ""))]
        error = error.__cause__ or error.__context__
    assert not any(secret in "\n".join(shown) for secret in SECRETS)


def test_a_whole_life(stage):
    stage.create()
    nodes = stage.cluster.nodes()
    assert not any(secret in repr(nodes) + repr(stage.cluster.state()) for secret in SECRETS)
    said = stage.cluster.k3d("node", "list", "-o", "json")
    assert SECRETS[0] in said.stdout
    assert not any(secret in repr(said) for secret in SECRETS)
    said = stage.cluster.k3d("kubeconfig", "get", stage.name)
    assert SECRETS[1] in said.stdout
    assert not any(secret in repr(said) for secret in SECRETS)
    stage.cluster.stop()
    stage.cluster.start()
    stage.cluster.delete()


@pytest.mark.parametrize("fault", ["taken", "rollback_fails", "hang"])
def test_creates_that_fail(stage, monkeypatch, fault):
    faults = {
        "taken": {"taken": [stage.wanted.node_ports[0]]},
        "rollback_fails": {"balancer_slow": True, "rollback_fails": True},
        "hang": {"hang": ["k3d cluster create"]},
    }
    monkeypatch.setattr(module, "CREATE", 5.0 if fault != "hang" else 0.5)
    stage.k3d.faults(leak=True, **faults[fault])
    with pytest.raises(KecsError) as caught:
        stage.create()
    shows_nothing(caught.value)
    stage.cluster.note("Starting node with (redacted)")


def test_starts_edits_imports_and_kubeconfigs_that_fail(stage):
    stage.create()
    stage.k3d.faults(leak=True, import_refused=["tools-node", "direct", "hand"], kubeconfig_late=1000)
    for fails in (
        lambda: import_image(stage.cluster, "myapp:dev", note=stage.notes.append),
        lambda: stage.cluster.kubeconfig(1234, limit=0.0),
    ):
        with pytest.raises(KecsError) as caught:
            fails()
        shows_nothing(caught.value)
    port = free_port()
    stage.k3d.faults(leak=True, taken=[port])
    said = stage.cluster.k3d(*stage.edit(f"127.0.0.1:{port}:30081"))
    assert not any(secret in repr(said) + said.words for secret in SECRETS)
    stage.k3d.faults(leak=True, taken=[stage.wanted.balancer_api_port])
    with pytest.raises(KecsError) as caught:
        stage.cluster.start()
    shows_nothing(caught.value)


def test_a_list_of_nodes_that_is_cut(stage):
    stage.create()
    stage.k3d.faults(leak=True, node_list_says=f'[{{"name":"x","env":["K3S_TOKEN={SECRETS[0]}"')
    with pytest.raises(KecsError) as caught:
        stage.cluster.nodes()
    shows_nothing(caught.value)

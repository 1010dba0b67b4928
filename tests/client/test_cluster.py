"""The cluster of an instance: asked before anything is written or deleted, the same for ever."""

from __future__ import annotations

import subprocess
import sys

import pytest
from tests.client.fakes import until
from tests.kube.scripted import Answer, ScriptedApi

from kecs.client import cluster, lifetime
from kecs.client import instance as instances
from kecs.client.instance import Kubernetes
from kecs.client.lifetime import Wishes
from kecs.errors import ExitCode, KecsError


def quiet(_text: str) -> None:
    """Ignore notes."""


@pytest.fixture
def api():
    with ScriptedApi() as server:
        yield server


@pytest.fixture
def kubeconfig(api, tmp_path):
    return str(api.kubeconfig(tmp_path))


@pytest.fixture
def on_cluster(home, kubeconfig):
    """Create an instance on the cluster, running; return it."""
    return start(home, runtime="kubernetes", kubeconfig=kubeconfig).instance


def start(home, **wishes):
    given = {"environment": {}, "directory": "/tmp", "default_runtime": "local"} | wishes
    return lifetime.start(home.paths, Wishes(**given), quiet)


def put_namespace(api, name, instance_id):
    """Put a namespace as an instance with this id makes it."""
    labels = {"kecs.dev/instance-id": instance_id, "app.kubernetes.io/managed-by": "kecs"}
    api.put({"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": name, "labels": labels}})


def namespaces(api):
    found = api.objects.select("Namespace", None, "")
    return {each["metadata"]["name"]: each["metadata"]["uid"] for each in found}


def replace_the_cluster(api):
    """Let there be another cluster behind the same address, as after `kind delete` and `kind create`."""
    api.remove("Namespace", None, "kube-system")
    api.put({"kind": "Namespace", "metadata": {"name": "kube-system"}})


def test_the_first_start_keeps_kubeconfig_context_and_the_identity_of_the_cluster(home, api, kubeconfig):
    made = start(home, runtime="kubernetes", kubeconfig=kubeconfig, node_ports="31000-31099").instance

    uid = namespaces(api)["kube-system"]
    assert made.kubernetes == Kubernetes(kubeconfig=kubeconfig, context="kecs-test", cluster_uid=uid)
    assert (made.runtime, made.node_ports) == ("kubernetes", "31000-31099")
    assert instances.require(home.paths) == made


def no_right(api):
    api.deny("get", "namespaces")


def no_login(api):
    api.tokens = {"good"}


def no_sidecars(api):
    api.version = ("1", "28+")


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (no_right, "refuses context"),
        (no_login, "401"),
        (no_sidecars, r"`kecs-test` is Kubernetes 1\.28; 1\.29 or newer is needed"),
    ],
)
def test_a_first_start_that_the_cluster_refuses_creates_nothing(home, api, kubeconfig, spoil, says):
    spoil(api)
    with pytest.raises(KecsError, match=says) as caught:
        start(home, runtime="kubernetes", kubeconfig=kubeconfig)
    assert caught.value.exit_code == ExitCode.UNREACHABLE
    assert caught.value.hint
    assert not home.paths.root.exists()


def test_a_first_start_without_a_cluster_creates_nothing(home, api, kubeconfig, tmp_path):
    api.stop()
    with pytest.raises(KecsError, match="nothing listens") as silent:
        start(home, runtime="kubernetes", kubeconfig=kubeconfig)
    api.start()
    with pytest.raises(KecsError, match="does not exist") as missing:
        start(home, runtime="kubernetes", kubeconfig=str(tmp_path / "none"))
    with pytest.raises(KecsError, match="no context 'other'") as unknown:
        start(home, runtime="kubernetes", kubeconfig=kubeconfig, context="other")
    assert {each.value.exit_code for each in (silent, missing, unknown)} == {ExitCode.UNREACHABLE}
    assert not home.paths.root.exists()


@pytest.mark.parametrize(
    ("wishes", "says"),
    [
        ({"runtime": "local"}, "runtime `kubernetes`, not `local`"),
        ({"context": "other"}, "context `kecs-test`, not `other`"),
        ({"kubeconfig": "/other"}, "not `/other`"),
    ],
)
@pytest.mark.parametrize("running", [True, False])
def test_another_cluster_or_runtime_later_is_a_conflict(home, on_cluster, wishes, says, running):
    if not running:
        lifetime.stop(home.paths, quiet)
    before = home.paths.instance_file.read_bytes()
    with pytest.raises(KecsError) as caught:
        start(home, **wishes)
    assert caught.value.exit_code == ExitCode.CONFLICT
    assert says in caught.value.message
    assert home.paths.instance_file.read_bytes() == before


def test_a_local_instance_never_gets_a_cluster(home, kubeconfig):
    start(home)
    with pytest.raises(KecsError) as caught:
        start(home, runtime="kubernetes", kubeconfig=kubeconfig)
    assert caught.value.exit_code == ExitCode.CONFLICT


def test_the_range_of_node_ports_may_change_while_the_instance_is_stopped(home, on_cluster):
    with pytest.raises(KecsError, match="node-ports none, not `31000-31099`") as caught:
        start(home, node_ports="31000-31099")
    assert caught.value.exit_code == ExitCode.CONFLICT
    lifetime.stop(home.paths, quiet)
    assert start(home, node_ports="31000-31099").instance.node_ports == "31000-31099"
    lifetime.stop(home.paths, quiet)
    assert start(home).instance.node_ports == "31000-31099", "the choice is kept"


def test_a_later_start_asks_the_cluster_first_and_changes_nothing_when_it_is_another(home, api, on_cluster):
    lifetime.stop(home.paths, quiet)
    before = home.paths.instance_file.read_bytes()
    api.stop()
    with pytest.raises(KecsError, match="nothing listens") as silent:
        start(home)
    api.start()
    replace_the_cluster(api)
    with pytest.raises(KecsError, match="another cluster") as another:
        start(home)
    assert (silent.value.exit_code, another.value.exit_code) == (ExitCode.UNREACHABLE, ExitCode.CONFLICT)
    assert home.paths.instance_file.read_bytes() == before
    assert home.starts("controlplane") == 1


def test_a_stop_without_a_control_plane_leaves_the_pods(home, on_cluster):
    """On `local` another process would end the tasks now."""
    home.paths.database.touch()
    pid = int(home.paths.controlplane_pid.read_text())
    subprocess.run(["kill", "-9", str(pid)], check=True)
    until(lambda: pid not in home.alive(), "it is dead")
    assert lifetime.stop(home.paths, quiet)
    assert not (home.paths.root / "tasks-ended").exists()


def test_destroy_deletes_the_namespaces_of_this_instance_only(home, api, on_cluster):
    put_namespace(api, "kecs-mine", on_cluster.id)
    put_namespace(api, "kecs-theirs", "ffffffff")
    notes: list[str] = []
    lifetime.destroy(home.paths, notes.append)
    assert set(namespaces(api)) == {"default", "kube-system", "kecs-theirs"}
    assert any("kecs-mine" in note for note in notes)
    assert not home.paths.root.exists()


@pytest.mark.parametrize("how", ["down", "another"])
def test_destroy_without_the_cluster_deletes_nothing_unless_forced(home, api, on_cluster, how):
    put_namespace(api, "kecs-mine", on_cluster.id)
    if how == "down":
        api.stop()
    else:
        replace_the_cluster(api)
    with pytest.raises(KecsError, match="nothing was deleted") as caught:
        lifetime.destroy(home.paths, quiet)
    assert caught.value.exit_code == (ExitCode.UNREACHABLE if how == "down" else ExitCode.CONFLICT)
    assert "`kecs destroy --force`" in caught.value.hint
    assert instances.require(home.paths).desired == "running", "it was not even stopped"

    notes: list[str] = []
    lifetime.destroy(home.paths, notes.append, force=True)
    assert not home.paths.root.exists()
    assert home.alive() == []
    told = next(note for note in notes if "stays there" in note)
    assert f"delete namespace --selector kecs.dev/instance-id={on_cluster.id}" in told
    if how == "down":
        api.start()
    assert "kecs-mine" in namespaces(api)


def test_namespaces_that_do_not_go_are_an_error_that_keeps_the_folder(home, api, on_cluster, monkeypatch):
    monkeypatch.setattr(cluster, "DESTROY_LIMIT", 0.5)
    put_namespace(api, "kecs-mine", on_cluster.id)
    api.answer_next(Answer(200, body={}), method="DELETE")
    with pytest.raises(KecsError, match=r"within 0\.5 s") as caught:
        lifetime.destroy(home.paths, quiet)
    assert "kubectl" in caught.value.hint
    assert home.paths.instance_file.exists()

    lifetime.destroy(home.paths, quiet)
    assert "kecs-mine" not in namespaces(api)


def test_a_local_instance_imports_nothing_of_kubernetes():
    script = (
        "import sys; from kecs.client import lifetime, cluster; import kecs.controlplane.daemon; "
        "bad = [name for name in sys.modules if name.startswith(('kecs.kube', 'httpx2', 'lightkube', "
        "'kecs.runtimes.kubernetes.runtime', 'kecs.runtimes.local'))]; print(bad)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

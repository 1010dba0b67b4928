"""The harness itself: a cluster that is what it seems, breaks where it is told to, and leaves nothing."""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from tests.cluster import pods, target
from tests.cluster.harness import certificates, images, ledger, procs
from tests.cluster.harness.cluster import Cluster
from tests.cluster.harness.component import ComponentDiedError
from tests.process.harness import until


def fetch(address: str, port: int, path: str = "/", seconds: float = 5) -> str:
    with urllib.request.urlopen(f"http://{address}:{port}{path}", timeout=seconds) as answer:
        return answer.read().decode()


def ready(kubectl, name, namespace="default"):
    kubectl("wait", "--for=condition=Ready", f"pod/{name}", "--namespace", namespace, "--timeout=50s")


def port_of(kubectl, name, namespace="default") -> int:
    return kubectl.json("get", "service", name, "--namespace", namespace)["spec"]["ports"][0]["nodePort"]


def test_a_pod_becomes_ready_and_its_node_port_answers_on_this_computer(cluster, kubectl, namespace):
    kubectl.apply(pods.server("web", namespace), pods.node_port("web", namespace))
    ready(kubectl, "web", namespace)
    address, port = target.node_addresses(cluster)[0], port_of(kubectl, "web", namespace)

    assert until(lambda: fetch(address, port), "the node port answers") == "1 web"


def test_exec_logs_and_exit_codes_are_those_of_the_program(kubectl, namespace):
    kubectl.apply(pods.shell("job", "echo started; read line < /dev/null; exit 3", namespace))
    kubectl.apply(pods.server("web", namespace))
    kubectl(
        *("wait", "--for=jsonpath={.status.phase}=Failed", "pod/job", "--namespace", namespace),
        "--timeout=50s",
    )
    state = kubectl.json("get", "pod", "job", "--namespace", namespace)["status"]["containerStatuses"][0]

    assert state["state"]["terminated"]["exitCode"] == 3
    assert kubectl("logs", "job", "--namespace", namespace) == "started\n"
    ready(kubectl, "web", namespace)
    assert kubectl("exec", "web", "--namespace", namespace, "--", "sh", "-c", "echo $KECS_TASK") == "web\n"


def test_a_pod_told_to_end_finishes_what_it_has_in_hand(cluster, kubectl, namespace):
    kubectl.apply(pods.server("web", namespace, terminationGracePeriodSeconds=20))
    kubectl.apply(pods.node_port("web", namespace))
    ready(kubectl, "web", namespace)
    address, port = target.node_addresses(cluster)[0], port_of(kubectl, "web", namespace)
    until(lambda: fetch(address, port), "the node port answers")
    with socket.create_connection((address, port), timeout=20) as connection:
        connection.sendall(b"GET /slow?ms=3000 HTTP/1.1\r\nHost: x\r\n\r\n")
        until(lambda: json.loads(fetch(address, port, "/stats"))["begun"] >= 3, "the request is in hand")
        kubectl("delete", "pod", "web", "--namespace", namespace, "--wait=false")
        answer = b""
        while data := connection.recv(65536):
            answer += data

    assert answer.startswith(b"HTTP/1.1 200 OK")
    assert b"Connection: close" in answer
    assert answer.endswith(b"1 web")


def test_the_server_makes_the_trouble_it_is_asked_for(cluster, kubectl, namespace):
    kubectl.apply(pods.server("web", namespace), pods.node_port("web", namespace))
    ready(kubectl, "web", namespace)
    address, port = target.node_addresses(cluster)[0], port_of(kubectl, "web", namespace)
    assert len(until(lambda: fetch(address, port, "/bytes/1000000"), "the node port answers")) == 1_000_000
    with socket.create_connection((address, port), timeout=5) as connection:
        connection.sendall(b"GET /reset HTTP/1.1\r\nHost: x\r\n\r\n")
        with pytest.raises(ConnectionResetError):
            connection.recv(1)
    fetch(address, port, "/health?set=bad")
    with pytest.raises(urllib.error.HTTPError, match="503"):
        fetch(address, port, "/health")
    assert fetch(address, port, "/listen?port=7000&on=1") == "ok\n"
    echo = ("exec", "web", "--namespace", namespace, "--", "sh", "-c")
    assert kubectl(*echo, "echo over | nc 127.0.0.1 7000") == "over\n"
    assert kubectl(*echo, "echo count | nc 127.0.0.1 9093") == "6"
    fetch(address, port, "/listen?port=7000&on=0")
    with pytest.raises(RuntimeError, match="refused"):
        kubectl(*echo, "echo over | nc 127.0.0.1 7000")


def test_an_image_of_a_program_of_this_computer_runs_with_its_libraries(own, kubectl, namespace, tmp_path):
    name = "kecs.test/openssl:1"
    own.load(
        images.program_image(
            tmp_path / "image.tar", name, binaries=["openssl"], files={"etc/said": b"by file"}
        )
    )
    pod = pods.shell("program", "openssl version && cat /etc/said", namespace)
    pod["spec"]["containers"][0]["image"] = name
    kubectl.apply(pod)
    kubectl(
        *("wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/program", "--namespace", namespace),
        "--timeout=50s",
    )

    said = kubectl("logs", "program", "--namespace", namespace)
    assert said.startswith("OpenSSL ")
    assert said.endswith("by file")


@pytest.mark.usefixtures("quiet")
def test_the_api_server_killed_and_started_again_serves_what_it_served(own, kubectl, namespace):
    kubectl.apply(pods.server("web", namespace), pods.node_port("web", namespace))
    ready(kubectl, "web", namespace)
    address, port = target.node_addresses(own)[0], port_of(kubectl, "web", namespace)
    until(lambda: fetch(address, port), "the node port answers")
    own.controlplane.apiserver.kill()

    with pytest.raises(RuntimeError, match="refused"):
        kubectl("get", "pods", "--namespace", namespace)
    assert fetch(address, port) == "1 web"
    own.controlplane.apiserver.start()
    own.wait_ready()
    assert kubectl.json("get", "pod", "web", "--namespace", namespace)["status"]["phase"] == "Running"


@pytest.mark.usefixtures("quiet")
def test_containerd_and_the_kubelet_killed_and_started_again_keep_their_pods(own, kubectl, namespace):
    node = own.nodes[0]
    kubectl.apply(pods.server("web", namespace))
    ready(kubectl, "web", namespace)
    node.kubelet.kill()
    node.containerd.restart()
    node.wait_containerd()
    node.kubelet.start()

    assert until(
        lambda: answered(lambda: kubectl("exec", "web", "--namespace", namespace, "--", "/bin/hostname")),
        "the kubelet reaches the pod again",
        seconds=60,
    ) == ("web\n")


def answered(ask):
    """Return what `ask` returns; None while it is refused."""
    try:
        return ask()
    except RuntimeError:
        return None


def test_other_users_are_known_by_token_and_certificate_and_bad_ones_refused(own, tmp_path):
    def ask(**user):
        path = own.kubeconfig_for(tmp_path / "kubeconfig", user)
        return procs.run(*own.kubectl.command("--kubeconfig", str(path), "get", "nodes", "-o", "name"))

    assert ask(token="admin-token") == "node/node-1\n"
    with pytest.raises(RuntimeError, match="Forbidden"):
        ask(token="powerless-token")
    with pytest.raises(RuntimeError, match="Forbidden"):
        ask(**certificates.of_client(own.authority.client("someone", "nobody")))
    with pytest.raises(RuntimeError, match=r"provide credentials|Unauthorized"):
        ask(**certificates.of_client(own.authority.expired("late", "system:masters")))
    other = certificates.Authority(tmp_path / "other", "someone else")
    certificates.write_kubeconfig(
        tmp_path / "wrong", own.controlplane.server, other.pair.certificate, {"token": "admin-token"}
    )
    with pytest.raises(RuntimeError, match="certificate signed by unknown authority"):
        procs.run(*own.kubectl.command("--kubeconfig", str(tmp_path / "wrong"), "get", "nodes"))


def test_two_nodes_reach_each_others_pods_and_one_cut_off_is_found_lost(make_cluster):
    two = make_cluster(nodes=2, node_loss_seconds=4)
    kubectl = two.kubectl
    for name, node in (("web", "node-1"), ("other", "node-2")):
        kubectl.apply(pods.server(name, nodeName=node))
    kubectl.apply(pods.node_port("web"))
    ready(kubectl, "web")
    ready(kubectl, "other")
    where = kubectl.json("get", "pod", "web")["status"]["podIP"]
    port = port_of(kubectl, "web")

    assert kubectl("exec", "other", "--", "wget", "-q", "-O", "-", f"http://{where}:8080/") == "1 web"
    for node in two.nodes:
        assert until(lambda address=node.address: fetch(address, port), "each node's port") == "1 web"
    two.nodes[1].cut()
    with pytest.raises(OSError, match=r"timed out|No route"):
        fetch(two.nodes[1].address, port, seconds=1)
    kubectl("wait", "--for=condition=Ready=Unknown", "node/node-2", "--timeout=30s")
    assert fetch(two.nodes[0].address, port) == "1 web"
    two.nodes[1].mend()
    two.wait_ready()
    assert fetch(two.nodes[1].address, port) == "1 web"


def test_a_cluster_beside_another_comes_and_goes_without_a_trace(own, make_cluster):
    kernel = Path("/proc/sys/vm/overcommit_memory").read_text()
    one = make_cluster()
    one.kubectl.apply(pods.server("web"))
    ready(one.kubectl, "web")
    assert one.left()

    assert one.network != own.network
    one.down()
    assert one.left() == []
    assert not one.folder.exists()
    assert Path("/proc/sys/vm/overcommit_memory").read_text() == kernel
    assert own.controlplane.ready()


def test_a_component_that_dies_by_itself_is_the_error_with_the_end_of_its_log(make_cluster):
    one = make_cluster()
    os.kill(one.controlplane.etcd.pid, signal.SIGKILL)

    with pytest.raises(ComponentDiedError, match=r"etcd ended with -9; the end of .*etcd\.log"):
        until(lambda: one.wait_ready() or None, "the death is noticed", seconds=20)


CRASHES = """
import os, signal
from tests.cluster.harness.cluster import Cluster
one = Cluster.up()
print(one.folder, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_crashed_run_left_is_taken_down_by_the_next(own):
    done = subprocess.run(
        [sys.executable, "-c", CRASHES], stdout=subprocess.PIPE, text=True, timeout=90, check=False
    )
    crashed = ledger.Ledger.load(Path(done.stdout.strip()))
    assert done.returncode == -signal.SIGKILL
    assert crashed.number
    assert crashed.abandoned

    until(lambda: not any(procs.alive(*each) for each in crashed.processes), "its machines end with it")
    ledger.sweep()
    assert not crashed.folder.exists()
    assert not procs.mentioning(str(crashed.folder))
    assert isinstance(own, Cluster)
    assert own.controlplane.ready()


@pytest.mark.parametrize(("namespace", "stays"), [("computer", True), ("here", False), ("ended", False)])
def test_a_bridge_on_the_computers_network_is_left_to_a_process_that_is_there(monkeypatch, namespace, stays):
    monkeypatch.setattr(ledger, "namespace_of", {"self": "here", "1": "computer"}.__getitem__)
    crashed = ledger.Ledger.create(secrets.token_hex(3), lasting=False)
    crashed.owner, crashed.namespace = [os.getpid(), 1], namespace  # a process of this number, long ago
    crashed.save()
    assert crashed.abandoned

    ledger.sweep()

    assert crashed.folder.exists() == stays
    crashed.unmake()

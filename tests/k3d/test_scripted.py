"""The scripted programs say what the real ones said: line for line, against recordings of k3d 5.9.

What differs from run to run is taken out of both: times, ids, random names, addresses of networks, and how
many containers a network had. Recordings are in `recorded/`, with the samples and lists that were taken.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from tests.k3d.scripted import ScriptedK3d

RECORDED = Path(__file__).parent / "recorded"
LINE = re.compile(r'time="[^"]*" (level=\w+ msg=.*)$')
CREATE = (
    "cluster create kecs-try --api-port 127.0.0.1:16443 -p 127.0.0.1:30000-30050:30000-30050@server:0:direct"
)
EDIT = "node edit k3d-kecs-try-serverlb --port-add"


def lines(text: str) -> list[str]:
    """The lines of k3d's log, without what chance and the machine put into them."""
    found = []
    for line in text.splitlines():
        if match := LINE.search(line):
            said = re.sub(r"serverlb-[A-Za-z]{5}\b", "serverlb-RANDM", match[1])
            said = re.sub(r"\b[0-9a-f]{64}\b", "ID", said)
            said = re.sub(r"172\.\d+\.0\.1", "GATEWAY", said)
            said = re.sub(r"for \d+ network members", "for N network members", said)
            said = re.sub(r"images-\d+\.tar", "images-TIME.tar", said)
            # Docker tries ports in no order.
            found.append(re.sub(r"Bind for 127.0.0.1:\d+ failed", "Bind for PORT failed", said))
    return found


def recorded(name: str) -> tuple[list[str], int, list[str]]:
    """The words, the exit code and the lines of a recording."""
    text = (RECORDED / f"{name}.txt").read_text()
    words = shlex.split(re.search(r"^\$ (?:timeout -s KILL 5 )?k3d (.*)$", text, re.MULTILINE)[1])
    return words, int(re.search(r"exit code:? (\d+)", text)[1]), lines(text)


def check(k3d: ScriptedK3d, name: str) -> None:
    words, code, expected = recorded(name)
    done = k3d.run(*words)
    assert lines(done.stdout) + lines(done.stderr) == in_streams(expected)
    assert done.returncode == code


def in_streams(expected: list[str]) -> list[str]:
    info = [line for line in expected if line.startswith("level=info")]
    return info + [line for line in expected if not line.startswith("level=info")]


@pytest.fixture
def made(scripted):
    assert scripted.run(*CREATE.split()).returncode == 0
    return scripted


@pytest.mark.parametrize("name", ["create-no-lb", "create-direct51"])
def test_create(scripted, name):
    check(scripted, name)


@pytest.mark.parametrize(
    "name",
    [
        "err-create-badname",
        "err-create-longname",
        "err-create-badport",
        "err-create-badfilter",
        "err-create-bad-api-port",
        "err-delete-notfound",
        "err-get-kubeconfig-notfound",
        "err-start-notfound",
        "err-stop-notfound",
        "err-unknown-command",
    ],
)
def test_errors_that_touch_nothing(scripted, name):
    check(scripted, name)
    assert scripted.is_empty()


@pytest.mark.parametrize(
    "name", ["create", "delete", "kubeconfig", "node-edit"], ids=lambda name: f"docker-down-{name}"
)
def test_docker_is_down(scripted, name):
    scripted.faults(docker_down=True)
    check(scripted, f"err-docker-down-{name}")


def test_a_cluster_of_that_name_exists(made):
    check(made, "err-create-exists")


def test_ports_clash(made):
    check(made, "err-create-port-clash-direct")
    check(made, "err-create-port-clash-api")
    assert not any("kecs-two" in name for name in [*made.containers(), *made.state["volumes"]])


def test_create_runs_into_its_time_out(scripted):
    check(scripted, "err-create-timeout")
    assert scripted.is_empty()


def test_stop_start_delete(made):
    made.users_kubeconfig.unlink()
    for name in (
        "cluster-start-running",
        "cluster-stop",
        "cluster-stop-again",
        "cluster-start",
        "cluster-delete",
    ):
        check(made, name)
    assert made.is_empty()


def test_killed_containers_are_started(made):
    made.run("kill", "k3d-kecs-try-server-0", program="docker")
    check(made, "kill-server-cluster-start")
    made.run("kill", "k3d-kecs-try-serverlb", program="docker")
    check(made, "kill-serverlb-cluster-start")
    assert set(made.containers().values()) == {"running"}


@pytest.mark.parametrize("name", ["port-add-1", "same-port-again", "port-delete"])
def test_edits_that_work(made, name):
    made.run(*EDIT.split(), "127.0.0.1:18089:30083")
    if name == "same-port-again":
        made.run(*EDIT.split(), "127.0.0.1:18088:30081")
    before = made.ports("k3d-kecs-try-serverlb")
    check(made, f"node-edit-{name}")
    after = made.ports("k3d-kecs-try-serverlb")
    changes = {"port-add-1": ("127.0.0.1", 18088, 30081), "port-delete": ("127.0.0.1", 18089, 30083)}
    assert set(before) ^ set(after) == ({changes[name]} if name in changes else set())
    assert set(made.containers().values()) == {"running"}


def test_the_port_of_the_api_cannot_be_deleted_and_nobody_says_so(made):
    done = made.run("node", "edit", "k3d-kecs-try-serverlb", "--port-delete", "127.0.0.1:16443:6443")
    assert done.returncode == 0
    assert made.ports("k3d-kecs-try-serverlb") == [("127.0.0.1", 16443, 6443)]


@pytest.mark.parametrize("name", ["add-and-delete", "server-node", "unknown-node"])
def test_edits_that_are_refused(made, name):
    check(made, f"node-edit-{name}")


def test_bad_ports_of_an_edit(made):
    parts = re.split(r"^### ", (RECORDED / "node-edit-bad-syntax.txt").read_text(), flags=re.MULTILINE)[1:]
    assert len(parts) == 8
    for part in parts:
        words = shlex.split(re.search(r"^\$ k3d (.*)$", part, re.MULTILINE)[1])
        done = made.run(*words)
        assert (lines(done.stderr), done.returncode) == (lines(part), 1)


def test_an_edit_whose_port_is_taken_leaves_a_dead_balancer(made):
    made.faults(taken=[18090])
    check(made, "node-edit-port-taken")
    assert made.containers()["k3d-kecs-try-serverlb"] == "exited"
    check(made, "cluster-start-after-failed-edit")
    assert made.containers()["k3d-kecs-try-serverlb"] == "running"


def test_two_edits_at_once(made):
    """Both look; B renames, A renames the same container once more; B creates, A cannot."""
    made.hold("edit:looked")
    made.hold("edit:renamed")
    words = {name: recorded(f"node-edit-concurrent-{name}")[0] for name in "AB"}
    a, b = made.spawn(*words["A"]), made.spawn(*words["B"])
    made.wait_held("edit:looked", 2)
    for count, process in enumerate((b, a), 1):
        made.release("edit:looked", process.pid)
        made.wait_held("edit:renamed", count)
    for name, process in (("B", b), ("A", a)):
        made.release("edit:renamed", process.pid)
        out, err = process.communicate(timeout=20)
        assert (process.returncode, lines(out + err)) == (1, recorded(f"node-edit-concurrent-{name}")[2])
    states = made.containers()
    stray = next(name for name in states if re.search(r"serverlb-\w{5}$", name))
    assert (states["k3d-kecs-try-serverlb"], states[stray]) == ("created", "running")
    assert made.overlaps() == 1
    done = made.run("cluster", "start", "kecs-try")
    assert done.returncode == 1
    assert "port is already allocated" in done.stderr


def test_an_edit_while_one_stops_the_old_balancer(made):
    made.configure(scale=1.0)  # the old one must not have died when the second looks
    made.hold("edit:stopping")
    first = made.spawn(*recorded("node-edit-concurrent2-A")[0])
    made.wait_held("edit:stopping")
    check(made, "node-edit-concurrent2-B")
    made.configure(scale=0.01)
    made.release("edit:stopping")
    out, _ = first.communicate(timeout=20)
    assert (first.returncode, lines(out)) == (0, recorded("node-edit-concurrent2-A")[2])
    assert set(made.containers().values()) == {"running"}


def test_an_edit_that_is_killed(made):
    made.hold("edit:stopping")
    process = made.spawn(*recorded("node-edit-killed-5s")[0])
    made.wait_held("edit:stopping")
    process.kill()
    out, _ = process.communicate(timeout=20)
    assert lines(out) == recorded("node-edit-killed-5s")[2]
    made.release("edit:stopping")
    states = made.wait_for(lambda states: "exited" in states.values())
    stray = next(name for name in states if re.search(r"serverlb-\w{5}$", name))
    assert (states["k3d-kecs-try-serverlb"], states[stray]) == ("created", "exited")
    assert made.run("cluster", "start", "kecs-try").returncode == 1


def test_two_creates_at_once_leave_an_ambiguous_network(scripted):
    scripted.hold("create:network-looked")
    scripted.hold("create:network-made")
    create = ("cluster", "create", "kecs-two", "--api-port", "127.0.0.1:16500", "--no-lb")
    both = [scripted.spawn(*create) for _ in range(2)]
    scripted.wait_held("create:network-looked", 2)
    scripted.release("create:network-looked")
    scripted.wait_held("create:network-made", 2)
    scripted.release("create:network-made")
    said = [process.communicate(timeout=20)[1] for process in both]
    assert [process.returncode for process in both] == [1, 1]
    assert all("is ambiguous" in text for text in said)
    assert sorted(scripted.state["networks"].values()) == ["k3d-kecs-two"] * 2
    again = scripted.run(*create)
    assert again.returncode == 1
    assert "multiple networks with same name found" in again.stderr
    assert scripted.run("cluster", "delete", "kecs-two").stdout.count("No clusters found") == 1


@pytest.mark.parametrize("name", ["", "-direct-mode", "-missing", "-missing-and-good", "-badcluster"])
def test_image_import(made, name):
    made.configure(images={"myapp:dev": "sha256:1234"})
    check(made, f"image-import{name}")


def test_an_import_that_a_node_refused_says_that_it_went_well(made):
    made.configure(images={"myapp:dev": "sha256:1234"})
    made.faults(import_refused=["tools-node"])
    check(made, "image-import-node-failure")


def test_kubeconfig_and_version(made):
    said = re.sub(r"(data: ).*", r"\1QkFTRTY0", made.run("kubeconfig", "get", "kecs-try").stdout)
    assert said == (RECORDED / "kubeconfig-get.yaml").read_text()
    assert made.run("version").stdout in (RECORDED / "version.txt").read_text()


def test_colours_are_off_only_when_told(scripted):
    scripted.environment["LOG_COLORS"] = "true"
    done = scripted.spawn("cluster", "delete", "nosuch")
    assert '"level=info"' not in done.communicate(timeout=20)[0]

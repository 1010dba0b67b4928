"""The ports of the load balancer: every surprise of k3d's `node edit`, and what is left after it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import time

import pytest

from kecs.errors import ExitCode, KecsError
from kecs.k3d import balancer as module
from kecs.k3d.balancer import Balancer, Edits, PortMapping, edits
from kecs.k3d.cluster import K3dCluster, Wanted
from kecs.k3d.failures import DockerDown
from kecs.k3d.run import Said, TookTooLong
from kecs.k3d.tools import find

NAME = "kecs-t-one"
LB = f"k3d-{NAME}-serverlb"
API = 26443
WEB = PortMapping(28080, 30081)
MORE = PortMapping(28081, 30082)


class Made:
    """A cluster with a load balancer, and what was noted while it is edited."""

    def __init__(self, k3d, folder, *, load_balancer=True):
        self.k3d = k3d
        self.notes: list[str] = []
        self.cluster = K3dCluster(find(k3d.environment), NAME, folder, self.notes.append)
        wanted = Wanted(
            name=NAME,
            instance_id="0123abcd",
            api_port=26444,
            balancer_api_port=API if load_balancer else None,
            node_ports=range(30000, 30003),
            load_balancer=load_balancer,
        )
        self.cluster.create(wanted)
        self.balancer = Balancer(self.cluster)

    def edits(self):
        return self.k3d.calls("node", "edit")

    def ports(self):
        return sorted((host, inner) for _, host, inner in self.k3d.ports(LB))

    def nodes(self):
        return self.k3d.containers()


@pytest.fixture
def made(k3d, tmp_path):
    return Made(k3d, tmp_path / "instance")


@pytest.fixture
def faulty(scripted, tmp_path):
    return Made(scripted, tmp_path / "instance")


def another(made, folder):
    """The same load balancer, from another process."""
    cluster = K3dCluster(find(made.k3d.environment), NAME, folder / "instance", made.notes.append)
    return Balancer(cluster)


def is_whole(made):
    return made.nodes() == {f"k3d-{NAME}-server-0": "running", LB: "running"}


# What is to be edited ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("there", "wanted", "unwanted", "expected"),
    [
        ([], [WEB], [], Edits(add=(WEB,))),
        ([WEB], [WEB], [], Edits()),
        ([WEB], [WEB], [28080], Edits()),
        ([WEB, MORE], [WEB], [], Edits()),
        ([WEB, MORE], [WEB], [28081], Edits(remove=(MORE,))),
        ([PortMapping(28080, 30090)], [WEB], [], Edits((PortMapping(28080, 30090),), (WEB,))),
        ([WEB], [MORE], [28080], Edits((WEB,), (MORE,))),
        ([PortMapping(28080, 30081, "0.0.0.0")], [WEB], [], Edits()),
        ([], [], [28080], Edits()),
    ],
)
def test_only_what_differs_is_edited(there, wanted, unwanted, expected):
    found = edits(there, wanted, unwanted)

    assert found == expected
    assert len(found) == bool(expected.remove) + bool(expected.add)


# What is done --------------------------------------------------------------------------------------------


def test_several_ports_are_one_edit_and_so_is_taking_them_away(made):
    made.balancer.add([MORE, WEB])
    assert made.balancer.mappings() == [WEB, MORE]
    assert made.ports() == [(API, 6443), (28080, 30081), (28081, 30082)]
    made.balancer.remove([WEB, MORE])
    assert made.balancer.mappings() == []
    assert made.ports() == [(API, 6443)], "the API's port is none of ours"
    assert is_whole(made)
    assert made.balancer.exists()
    assert made.balancer.can_remove()


def test_what_is_there_costs_no_edit(scripted, tmp_path):
    made = Made(scripted, tmp_path / "instance")
    made.balancer.add([WEB])
    made.balancer.add([WEB])
    made.balancer.remove([MORE])
    made.balancer.change(Edits())

    assert made.edits() == [["node", "edit", LB, "--port-add", "127.0.0.1:28080:30081"]]


def test_a_port_that_leads_elsewhere_is_taken_away_and_added_anew(made):
    made.balancer.add([PortMapping(28080, 30090), MORE])
    made.balancer.change(edits(made.balancer.mappings(), [WEB], []))

    assert made.balancer.mappings() == [WEB, MORE]


def test_an_older_k3d_cannot_take_a_port_away(scripted, tmp_path):
    made = Made(scripted, tmp_path / "instance")
    made.balancer.add([WEB])
    scripted.configure(k3d_version="v5.7.4")
    assert not made.balancer.can_remove()

    with pytest.raises(KecsError, match="unknown flag: --port-delete"):
        made.balancer.remove([WEB])
    assert made.balancer.mappings() == [WEB]
    assert is_whole(made)


# What is found before ------------------------------------------------------------------------------------


def test_a_port_of_another_program_is_found_before(made):
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        port = sock.getsockname()[1]
        with pytest.raises(KecsError, match=f"port {port} cannot be published: it is taken by") as caught:
            made.balancer.add([WEB, PortMapping(port, 30082)])
    assert caught.value.exit_code == ExitCode.CONFLICT
    assert str(os.getpid()) in caught.value.message
    assert f"publish another port, or end what holds {port}" in caught.value.hint
    assert made.balancer.mappings() == [], "all or none"


@pytest.mark.parametrize(
    ("port", "holder"),
    [
        (API, "the load balancer itself, for the cluster's API"),
        (28081, "the load balancer itself, and leads to node port 30082"),
        (30001, f"the container `k3d-{NAME}-server-0`"),
    ],
)
def test_a_port_of_a_container_is_found_before_though_nobody_listens(faulty, port, holder):
    """As without Docker's userland proxy: nothing can be seen on the port itself."""
    faulty.balancer.add([MORE])
    faulty.k3d.forget_calls()

    with pytest.raises(KecsError) as caught:
        faulty.balancer.add([PortMapping(port, 30085)])
    assert holder in caught.value.message
    assert caught.value.exit_code == ExitCode.CONFLICT
    assert faulty.edits() == []


def test_a_port_that_is_given_up_first_is_no_obstacle(faulty):
    faulty.balancer.add([WEB])
    faulty.balancer.check([PortMapping(28080, 30099)], leaving={28080})
    with pytest.raises(KecsError):
        faulty.balancer.check([PortMapping(28080, 30099)])


def test_without_a_load_balancer_there_is_a_hint(k3d, tmp_path):
    made = Made(k3d, tmp_path / "instance", load_balancer=False)

    assert not made.balancer.exists()
    assert made.balancer.mappings() == []
    for ask in (made.balancer.add, made.balancer.check):
        with pytest.raises(KecsError, match="has no load balancer") as caught:
            ask([WEB])
        assert caught.value.exit_code == ExitCode.USAGE
        assert "--load-balancer" in caught.value.hint


def test_a_cluster_that_is_stopped_is_not_started_by_an_edit(made):
    made.balancer.add([WEB])
    made.cluster.stop()

    with pytest.raises(KecsError, match="is stopped") as caught:
        made.balancer.add([MORE])
    assert (caught.value.exit_code, "`kecs start`" in caught.value.hint) == (ExitCode.UNREACHABLE, True)
    assert set(made.nodes().values()) == {"exited"}
    assert made.balancer.mappings() == [WEB], "they are known all the same"


def test_a_cluster_that_is_gone_is_not_told_to_have_no_load_balancer(made):
    made.cluster.delete()

    assert made.balancer.mappings() == []
    with pytest.raises(KecsError, match="is absent") as caught:
        made.balancer.add([WEB])
    assert (caught.value.exit_code, "`kecs start`" in caught.value.hint) == (ExitCode.UNREACHABLE, True)


def test_mending_repairs_what_is_dead_and_touches_nothing_else(made):
    made.balancer.add([WEB])
    made.balancer.mend()
    assert made.k3d.run("kill", LB, program="docker").returncode == 0
    made.balancer.mend()

    assert is_whole(made)
    assert made.balancer.mappings() == [WEB]


def test_docker_that_does_not_answer(faulty):
    faulty.k3d.faults(docker_down=True)
    with pytest.raises(DockerDown):
        faulty.balancer.add([WEB])
    with pytest.raises(DockerDown):
        faulty.balancer.mappings()


# Edits that fail -----------------------------------------------------------------------------------------


def test_a_port_that_is_taken_during_the_edit_leaves_the_old_ports_serving(faulty):
    """Docker finds it after 10 s, and k3d's roll-back leaves the old load balancer dead."""
    faulty.balancer.add([MORE])
    faulty.k3d.faults(taken=[28080])

    with pytest.raises(KecsError, match="port 28080 is taken") as caught:
        faulty.balancer.add([WEB])
    assert caught.value.exit_code == ExitCode.CONFLICT
    assert "publish another port" in caught.value.hint
    assert is_whole(faulty)
    assert faulty.balancer.mappings() == [MORE]
    assert "the edit broke off; the load balancer was repaired, and serves again" in faulty.notes
    faulty.k3d.faults()
    faulty.balancer.add([WEB])
    assert faulty.balancer.mappings() == [WEB, MORE]


def test_a_repair_that_fails_too_says_both_and_the_command(faulty):
    faulty.balancer.add([MORE])
    faulty.k3d.faults(taken=[28080, 28081])

    with pytest.raises(KecsError) as caught:
        faulty.balancer.add([WEB])
    assert "editing the load balancer" in caught.value.message
    assert f"the load balancer `{LB}` could not be repaired" in caught.value.message
    assert f"`kecs start` tries again, and so does `k3d cluster start {NAME}`" in caught.value.hint
    assert faulty.nodes()[LB] == "exited"
    faulty.k3d.faults()
    faulty.balancer.add([WEB])
    assert faulty.balancer.mappings() == [WEB, MORE], "the next edit repairs it first"


@pytest.mark.parametrize("step", ["edit:renamed", "edit:created", "edit:stopping", "edit:started"])
def test_an_edit_that_was_killed_is_repaired_by_the_next(faulty, step):
    faulty.balancer.add([MORE])
    faulty.k3d.hold(step)
    killed = faulty.k3d.spawn("node", "edit", LB, "--port-add", "127.0.0.1:28080:30081")
    faulty.k3d.wait_held(step)
    killed.kill()
    killed.communicate()
    faulty.k3d.release(step)

    faulty.balancer.add([PortMapping(28082, 30083)])
    there = faulty.balancer.mappings()
    assert set(there) - {WEB} == {MORE, PortMapping(28082, 30083)}
    assert (WEB in there) is (step == "edit:started"), "what had come far enough stays"
    assert is_whole(faulty)


@pytest.mark.parametrize(
    "step", ["edit:looked", "edit:renamed", "edit:created", "edit:stopping", "edit:started"]
)
def test_an_edit_that_is_broken_off_is_repaired_at_once(faulty, step):
    """As at a second Ctrl-C: the program is ended wherever it is."""
    faulty.balancer.add([MORE])
    faulty.k3d.hold(step)

    def interrupt():
        faulty.k3d.wait_held(step)
        os.kill(os.getpid(), signal.SIGINT)

    breaker = threading.Thread(target=interrupt)
    breaker.start()
    with pytest.raises(KeyboardInterrupt):
        faulty.balancer.add([WEB])
    breaker.join()
    faulty.k3d.release(step)

    assert is_whole(faulty)
    there = faulty.balancer.mappings()
    assert MORE in there
    assert (WEB in there) is (step == "edit:started")
    told = [note for note in faulty.notes if note.startswith("the edit ")]
    assert (told == []) is (step == "edit:looked"), "it had changed nothing"


def test_one_that_hangs_is_ended_and_repaired(faulty, monkeypatch):
    monkeypatch.setattr(module, "EDIT", 0.5)
    faulty.k3d.hold("edit:created")

    with pytest.raises(TookTooLong, match="did not end within"):
        faulty.balancer.add([WEB])
    assert is_whole(faulty)
    assert faulty.balancer.mappings() == []


def test_one_that_fails_after_it_was_done_is_done(faulty, monkeypatch):
    """k3d ended, or was ended, between the start of the new one and the deletion of the old."""
    monkeypatch.setattr(module, "EDIT", 1.0)
    faulty.k3d.hold("edit:started")

    faulty.balancer.add([WEB])
    assert faulty.balancer.mappings() == [WEB]
    assert is_whole(faulty)


def test_docker_that_goes_away_meanwhile(faulty):
    faulty.k3d.hold("edit:created")
    errors = []

    def edit():
        with contextlib.suppress(KecsError):
            faulty.balancer.add([WEB])
            errors.append("it succeeded")

    editing = threading.Thread(target=edit)
    editing.start()
    faulty.k3d.wait_held("edit:created")
    faulty.k3d.faults(docker_down=True)
    faulty.k3d.release("edit:created")
    editing.join()
    faulty.k3d.faults()

    assert errors == []
    faulty.balancer.add([WEB])
    assert faulty.balancer.mappings() == [WEB]
    assert is_whole(faulty)


def test_a_load_balancer_that_was_killed_is_started_first(made):
    made.balancer.add([WEB])
    assert made.k3d.run("kill", LB, program="docker").returncode == 0

    made.balancer.add([MORE])
    assert made.balancer.mappings() == [WEB, MORE]
    assert is_whole(made)


def test_a_success_that_changed_nothing_is_a_failure(faulty, monkeypatch):
    """As `--port-delete` of the API's port, of which k3d says that it did it."""
    ask = faulty.cluster.k3d

    def lie(*words, limit=20.0):
        return Said(0, "", "", 0.1, ()) if words[:2] == ("node", "edit") else ask(*words, limit=limit)

    monkeypatch.setattr(faulty.cluster, "k3d", lie)
    with pytest.raises(KecsError, match="editing the load balancer"):
        faulty.balancer.add([WEB])
    assert is_whole(faulty)


# Two at once ---------------------------------------------------------------------------------------------


def test_two_edits_at_once_come_one_after_the_other(faulty, tmp_path):
    other = another(faulty, tmp_path)
    faulty.k3d.hold("edit:created")
    first = threading.Thread(target=faulty.balancer.add, args=([WEB],))
    first.start()
    faulty.k3d.wait_held("edit:created")
    second = threading.Thread(target=other.add, args=([MORE],))
    second.start()
    end = time.monotonic() + 10
    while not any("another command is working" in note for note in faulty.notes):
        assert time.monotonic() < end
        time.sleep(0.01)
    faulty.k3d.release("edit:created")
    first.join()
    second.join()

    assert faulty.k3d.overlaps() == 0
    assert faulty.balancer.mappings() == [WEB, MORE]
    assert is_whole(faulty)


def test_two_edits_of_the_same_port_are_one(faulty, tmp_path):
    """The second looks again when its turn has come."""
    other = another(faulty, tmp_path)
    threads = [threading.Thread(target=one.add, args=([WEB],)) for one in (faulty.balancer, other)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(faulty.edits()) == 1
    assert faulty.balancer.mappings() == [WEB]


def test_no_token_is_in_any_note(faulty):
    from tests.k3d.scripted import SECRETS

    faulty.k3d.faults(taken=[28080])
    with pytest.raises(KecsError) as caught:
        faulty.balancer.add([WEB])
    said = "\n".join([*faulty.notes, caught.value.message, str(caught.value.hint)])
    assert not any(secret in said for secret in SECRETS)


def test_dockers_ports_are_read():
    text = "0.0.0.0:80->80/tcp, [::]:80->80/tcp, 127.0.0.1:30000-30002->30000-30002/tcp"
    text += ", 6443/tcp, 10.0.0.1:5->5/tcp"

    assert sorted(set(module._host_ports(text))) == [80, 30000, 30001, 30002]

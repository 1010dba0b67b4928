"""`--publish` and `publish:` on a scripted k3d: what is said, asked, edited, proved, and taken back."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from tests.client.fakes import row
from tests.k3d.scripted import ScriptedK3d
from tests.sockets import free_ports

from kecs.cli import forward_publish
from kecs.client.instance import K3d
from kecs.k3d.cluster import K3dCluster, Wanted
from kecs.k3d.tools import find

LB = "k3d-kecs-default-serverlb"
ID = "0123abcd"
FILE = """\
version: "1"
forwards:
- {name: web, type: service, cluster: prod, service: web, targetPort: 80, publish: %d}
"""


class Page(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"it works\n")

    def log_message(self, *_):
        pass


def target(service="web", node_port=30081, port=80):
    """A service as the control plane tells of it."""
    possible = {
        "name": None,
        "container": "c",
        "containerPort": port,
        "protocol": "tcp",
        "ready": False,
        "draining": False,
        "routes": [],
        "nodePort": node_port,
    }
    return {
        "region": "us-east-1",
        "cluster": "prod",
        "service": service,
        "taskId": None,
        "public": True,
        "tasks": [],
        "ports": [possible],
    }


SERVICES = (target(), target("api", 30082))


class Stage:
    """An instance on a scripted k3d whose published ports are real; the daemons are scripted ones."""

    def __init__(self, home, k3d, load_balancer=True):
        self.home, self.k3d = home, k3d
        self.port, self.other, self.third, api, balancer_api = free_ports(5)
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Page)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.serves(30081, 30082, 30085)
        kept = K3d(
            cluster="kecs-default",
            api_port=api,
            balancer_api_port=balancer_api if load_balancer else None,
            load_balancer=load_balancer,
            created=True,
        )
        self.api = balancer_api
        home.instance(runtime="k3d", k3d=kept)
        home.monkeypatch.setenv("PATH", str(k3d.bin))
        self.cluster = K3dCluster(find(os.environ), "kecs-default", home.paths.root)
        self.cluster.create(
            Wanted(
                name="kecs-default",
                instance_id=ID,
                api_port=api,
                balancer_api_port=kept.balancer_api_port,
                node_ports=range(0),
                load_balancer=load_balancer,
            )
        )
        self.k3d.forget_calls()
        self.forwards()

    def serves(self, *node_ports):
        """Have pods answer at these node ports."""
        self.k3d.backends(dict.fromkeys(node_ports, self.server.server_address))

    def forwards(self, *rows, targets=SERVICES, **agent):
        """Say which forwards there are, and which services."""
        self.home.daemons_do(agent={"forwards": list(rows), **agent}, controlplane={"targets": list(targets)})

    def maps(self, *pairs):
        """Have the load balancer lead from host ports to node ports already."""
        words = [word for host, node in pairs for word in ("--port-add", f"127.0.0.1:{host}:{node}")]
        assert self.k3d.run("node", "edit", LB, *words).returncode == 0
        self.k3d.forget_calls()

    def mapped(self):
        return sorted((host, node) for _, host, node in self.k3d.ports(LB) if node != 6443)

    def edits(self):
        return [words[3:] for words in self.k3d.calls("node", "edit")]

    def asked(self, method):
        calls = [json.loads(line) for line in self.home.asked("agent").splitlines()]
        return [call["params"] for call in calls if call["method"] == method]

    def starts(self):
        """What the agent was told to start, without what it was only asked."""
        return [params for params in self.asked("forward.start") if not params["dryRun"]]

    def web(self, **members):
        return row(**{"name": "prod-web", "publish": self.port} | members)

    def api_row(self, **members):
        given = {"id": "pf-00000002", "name": "prod-api", "service": "api", "publish": self.other}
        return row(**given | members)

    def close(self):
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def scripted(tmp_path):
    with ScriptedK3d(tmp_path / "k3d", listen=True) as one:
        yield one


@pytest.fixture
def stage(home, scripted):
    one = Stage(home, scripted)
    yield one
    one.close()


@pytest.fixture
def terminal(monkeypatch):
    """Have the person answer `y` or `n` on a terminal; returns what was asked."""

    def answer(text):
        monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
        asked = []

        def confirm(question, **_):
            asked.append(question)
            if text == "n":
                raise forward_publish.click.Abort

        monkeypatch.setattr(forward_publish.click, "confirm", confirm)
        return asked

    return answer


# start ---------------------------------------------------------------------------------------------------


def test_start_says_what_is_cut_edits_once_and_proves_it_by_a_request(kecs, stage):
    stage.forwards(stage.web(state="ACTIVE"))
    ran = kecs("pf", "start", "service", "prod/web", "--publish", str(stage.port), "--yes")

    assert ran.code == 0, ran.err
    assert ran.out.splitlines() == [
        "prod-web  http://127.0.0.1:20000 -> prod/web:80  ACTIVE",
        f"    http://127.0.0.1:{stage.port} (published on k3d's load balancer)",
    ]
    assert f"load balancer: + 127.0.0.1:{stage.port} -> node port 30081 (prod/web)" in ran.err
    assert "one edit, about 17 s; in it the load balancer is away for about 7 s" in ran.err
    assert f"the cluster's API on {stage.api}" in ran.err
    assert stage.edits() == [["--port-add", f"127.0.0.1:{stage.port}:30081"]]
    assert [one["forwards"][0]["publish"] for one in stage.starts()] == [stage.port]
    with socket.create_connection(("127.0.0.1", stage.port)) as sock:
        sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
        assert sock.recv(100).startswith(b"HTTP/1.0 200")


def test_the_same_again_is_no_edit_and_no_question(kecs, stage):
    stage.maps((stage.port, 30081))
    stage.forwards(stage.web())
    ran = kecs("pf", "start", "service", "prod/web", "--publish", str(stage.port))

    assert ran.code == 0, ran.err
    assert stage.edits() == []
    assert "edit" not in ran.err


def test_the_same_again_revives_a_load_balancer_that_died(kecs, stage):
    stage.maps((stage.port, 30081))
    stage.forwards(stage.web())
    assert stage.k3d.run("kill", LB, program="docker").returncode == 0
    ran = kecs("pf", "start", "service", "prod/web", "--publish", str(stage.port))

    assert ran.code == 0, ran.err
    assert stage.k3d.containers()[LB] == "running"
    assert stage.edits() == []


def test_without_a_terminal_it_is_not_edited_unasked(fails, stage):
    fails(
        *(2, "pf", "start", "service", "prod/web", "--publish", str(stage.port)),
        says="nobody can be asked here",
        hint="`--yes`",
    )
    assert (stage.edits(), stage.starts(), stage.mapped()) == ([], [], [])


@pytest.mark.parametrize(("answer", "code"), [("y", 0), ("n", 130)])
def test_on_a_terminal_it_asks(kecs, stage, terminal, answer, code):
    stage.forwards(stage.web())
    asked = terminal(answer)
    ran = kecs("pf", "start", "service", "prod/web", "--publish", str(stage.port))

    assert ran.code == code, ran.err
    assert asked == ["Edit the load balancer?"]
    assert len(stage.edits()) == len(stage.starts()) == (1 if answer == "y" else 0)


def test_the_others_are_brought_back_in_the_same_edit_also_one_whose_node_port_moved(kecs, stage):
    """`api` lost its port, `web` leads to a node port that it no longer has: two edits, and all is right."""
    stage.maps((stage.port, 30099))
    stage.forwards(
        stage.web(),
        stage.api_row(),
        row(id="pf-00000003", name="old", service="old", publish=4),
        targets=[target(), target("api", 30082), target("new", 30085)],
    )
    ran = kecs("pf", "start", "service", "prod/new", "--publish", str(stage.third), "--yes")

    assert ran.code == 0, ran.err
    assert stage.mapped() == sorted([(stage.port, 30081), (stage.other, 30082), (stage.third, 30085)])
    assert [words[0] for words in stage.edits()] == ["--port-delete", "--port-add"]
    assert "2 edits, about 17 s each" in ran.err
    assert f"load balancer: - 127.0.0.1:{stage.port}, which leads to node port 30099" in ran.err


def test_an_older_k3d_leaves_a_port_that_moved_and_says_so(kecs, stage):
    stage.maps((stage.port, 30099))
    stage.k3d.configure(k3d_version="v5.7.4")
    stage.forwards(stage.web(), stage.api_row())
    ran = kecs("pf", "start", "service", "prod/api", "--publish", str(stage.other), "--yes")

    assert ran.code == 0, ran.err
    assert f"port {stage.port} stays on k3d's load balancer and leads to node port 30099" in ran.err
    assert "no longer to prod/web:80 until `kecs destroy`" in ran.err
    assert stage.mapped() == sorted([(stage.port, 30099), (stage.other, 30082)])


def test_a_port_that_something_has_is_found_before_the_edit(fails, stage):
    with socket.create_server(("127.0.0.1", stage.port)):
        fails(
            *(4, "pf", "start", "service", "prod/web", "--publish", str(stage.port), "--yes"),
            says=f"port {stage.port} cannot be published: it is taken by",
            hint="publish another port",
        )
    assert (stage.edits(), stage.starts()) == ([], [])


def test_what_the_agent_refuses_costs_no_question_and_no_edit(fails, stage):
    refusal = {"code": -32000, "message": "no such service", "data": {"hint": "h", "exitCode": 3}}
    stage.forwards(refuses=refusal)
    # `agent.hello` is refused too, so this is the earliest refusal that there can be.
    fails(3, "pf", "start", "service", "prod/web", "--publish", str(stage.port), says="no such service")
    assert stage.k3d.calls() == []


def test_a_service_without_a_node_port_is_refused(fails, stage, monkeypatch):
    monkeypatch.setattr(forward_publish, "NODE_PORT", 0.0)
    stage.forwards(targets=[target(node_port=None)])
    fails(
        *(1, "pf", "start", "service", "prod/web", "--publish", str(stage.port), "--yes"),
        says="prod/web has no node port yet",
        hint="kecs explain service prod/web",
    )
    assert (stage.edits(), stage.starts()) == ([], [])


def test_an_edit_that_fails_leaves_no_forward_and_the_others_serving(fails, stage):
    stage.maps((stage.other, 30082))
    stage.k3d.faults(taken=[stage.port])
    stage.forwards(stage.api_row(), stage.web())
    said = fails(
        *(4, "pf", "start", "service", "prod/web", "--publish", str(stage.port), "--yes"),
        says=f"port {stage.port} is taken",
    )
    assert "the load balancer was repaired, and serves again" in said
    assert "was stopped again: the port could not be published" in said
    assert len(stage.asked("forward.stop")) == 1
    assert stage.mapped() == [(stage.other, 30082)]
    assert stage.k3d.containers()[LB] == "running"


def test_a_port_that_does_not_answer_is_a_failure_and_stays(kecs, stage, monkeypatch):
    """A connect succeeds: what stands for docker-proxy accepts, and resets."""
    monkeypatch.setattr(forward_publish, "ANSWER", 0.2)
    stage.serves()
    stage.forwards(stage.web())
    ran = kecs("pf", "start", "service", "prod/web", "--publish", str(stage.port), "--yes")

    assert ran.code == 1
    assert f"port {stage.port} of `prod-web` is published, and does not answer after 0.2 s" in ran.err
    assert ran.out.startswith("prod-web ")
    assert stage.mapped() == [(stage.port, 30081)]


def test_one_that_nobody_serves_yet_is_not_waited_for(kecs, stage):
    stage.serves()
    stage.forwards(stage.web(state="WAITING", reason="no task of prod/web is ready"))
    ran = kecs("pf", "start", "service", "prod/web", "--publish", str(stage.port), "--yes")

    assert ran.code == 0, ran.err
    assert f"port {stage.port} answers when `prod-web` does; it is WAITING: no task" in ran.err


def test_another_port_that_does_not_answer_afterwards_is_a_warning(kecs, stage, monkeypatch):
    monkeypatch.setattr(forward_publish, "ANSWER", 0.2)
    stage.maps((stage.other, 30082))
    stage.serves(30081)
    stage.forwards(stage.web(), stage.api_row())
    ran = kecs("pf", "start", "service", "prod/web", "--publish", str(stage.port), "--yes")

    assert ran.code == 0, ran.err
    assert f"warning: port {stage.other} of `prod-api` is published, and does not answer" in ran.err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("service", "prod/web", "--publish", "x"), "`x` is no port to publish"),
        (("service", "prod/web", "--publish", "0"), "not from 1 to 65535"),
        (("service", "prod/web", "80:80", "81:81", "--publish", "8080"), "one port, `8080`"),
        (("service", "prod/web", "8080:80", "--publish", "8080"), "the local port and the published one"),
        (("service", "prod/web", "--publish", "8080", "--foreground"), "`--foreground` ends with Ctrl-C"),
        (("task", "prod/0123abcd", "--publish", "8080"), "no such option"),
    ],
)
def test_wrong_words_are_usage_errors_before_any_daemon(fails, home, words, says):
    fails(2, "pf", "start", *words, says=says)
    assert not home.paths.root.exists()


def test_without_a_load_balancer_there_is_a_hint(fails, home, scripted):
    stage = Stage(home, scripted, load_balancer=False)
    try:
        fails(
            *(2, "pf", "start", "service", "prod/web", "--publish", "8080", "--yes"),
            says="has no load balancer",
            hint="`kecs start --runtime k3d --load-balancer`",
        )
    finally:
        stage.close()
    assert stage.starts() == []


def test_on_another_runtime_there_is_a_hint(fails, home):
    home.instance()
    fails(
        *(2, "pf", "start", "service", "prod/web", "--publish", "8080"),
        says="cannot be published on the runtime `local`",
        hint="--load-balancer",
    )


def test_docker_that_does_not_answer(fails, stage):
    stage.k3d.faults(docker_down=True)
    fails(
        *(5, "pf", "start", "service", "prod/web", "--publish", str(stage.port), "--yes"),
        says="Docker does not answer",
    )
    assert stage.starts() == []


# Ctrl-C --------------------------------------------------------------------------------------------------


def interrupt_at(stage, step, times, notes):
    """Send Ctrl-C while the edit is held; the second one only when the first was heard."""

    def interrupt():
        stage.k3d.wait_held(step)
        os.kill(os.getpid(), signal.SIGINT)
        notes.wait_for("a second Ctrl-C breaks it off")
        if times == 2:
            os.kill(os.getpid(), signal.SIGINT)
            notes.wait_for("breaking it off")
        stage.k3d.release(step)

    stage.k3d.hold(step)
    thread = threading.Thread(target=interrupt)
    thread.start()
    return thread


class Notes:
    """Hears what is noted, so that the other thread knows how far it is."""

    def __init__(self, monkeypatch):
        self.heard = []
        self.changed = threading.Condition()
        note = forward_publish.Session.note

        def hear(session, text):
            with self.changed:
                self.heard.append(text)
                self.changed.notify_all()
            note(session, text)

        monkeypatch.setattr(forward_publish.Session, "note", hear)

    def wait_for(self, words):
        with self.changed:
            assert self.changed.wait_for(lambda: any(words in text for text in self.heard), 20)


def test_ctrl_c_lets_the_edit_finish(kecs, stage, monkeypatch):
    stage.forwards(stage.web())
    thread = interrupt_at(stage, "edit:created", 1, Notes(monkeypatch))
    ran = kecs("pf", "start", "service", "prod/web", "--publish", str(stage.port), "--yes")
    thread.join()

    assert ran.code == 130
    assert "the edit is finished first; a second Ctrl-C breaks it off and repairs" in ran.err
    assert stage.mapped() == [(stage.port, 30081)]
    assert stage.asked("forward.stop") == [], "it is published and stays"
    assert f"published: {stage.port}; the command itself was broken off" in ran.err


def test_a_second_ctrl_c_breaks_it_off_and_repairs(kecs, stage, monkeypatch):
    stage.maps((stage.other, 30082))
    stage.forwards(stage.web(), stage.api_row())
    thread = interrupt_at(stage, "edit:created", 2, Notes(monkeypatch))
    ran = kecs("pf", "start", "service", "prod/web", "--publish", str(stage.port), "--yes")
    thread.join()

    assert ran.code == 130
    assert "the load balancer was repaired, and serves again" in ran.err
    assert "was stopped again" in ran.err
    assert stage.mapped() == [(stage.other, 30082)]
    assert stage.k3d.containers() == {"k3d-kecs-default-server-0": "running", LB: "running"}


# stop and down -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [("stop", "prod-web", "prod-api"), ("stop", "--all"), ("down",)])
def test_stopping_takes_the_ports_away_in_one_edit(kecs, stage, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    owner = str(tmp_path / "port-forward.yaml")
    stage.maps((stage.port, 30081), (stage.other, 30082), (stage.third, 30085))
    stage.forwards(stage.web(owner=owner), stage.api_row(owner=owner))
    stage.home.forwards({"id": "pf-0123abcd", "name": "prod-web", "localPort": 20000})
    ran = kecs("pf", *words, "--yes")

    assert ran.code == 0, ran.err
    assert "prod-web  stopped" in ran.out
    assert [set(words) - {"--port-delete"} for words in stage.edits()] == [
        {f"127.0.0.1:{stage.port}:30081", f"127.0.0.1:{stage.other}:30082"}
    ]
    assert stage.mapped() == [(stage.third, 30085)]
    assert f"port {stage.port}, " in ran.err or f", {stage.port}" in ran.err, "it says what is cut"


def test_stopping_asks_too(fails, stage):
    stage.maps((stage.port, 30081))
    stage.forwards(stage.web())
    fails(2, "pf", "stop", "prod-web", says="nobody can be asked here", hint="`--yes`")
    assert (stage.asked("forward.stop"), stage.mapped()) == ([], [(stage.port, 30081)])


def test_one_that_is_not_on_the_load_balancer_is_stopped_without_an_edit(kecs, stage):
    stage.forwards(stage.web())
    assert kecs("pf", "stop", "prod-web").code == 0
    assert stage.edits() == []
    assert len(stage.asked("forward.stop")) == 1


def test_an_older_k3d_cannot_and_says_that_it_stays(kecs, stage):
    stage.maps((stage.port, 30081))
    stage.k3d.configure(k3d_version="v5.7.4")
    stage.forwards(stage.web())
    ran = kecs("pf", "stop", "prod-web")

    assert ran.code == 0, ran.err
    assert f"port {stage.port} stays on k3d's load balancer and leads to node port 30081 until" in ran.err
    assert "k3d before 5.9 takes no port back" in ran.err
    assert (stage.edits(), stage.mapped()) == ([], [(stage.port, 30081)])


def test_ports_may_be_left_where_they_are(kecs, stage):
    stage.maps((stage.port, 30081))
    stage.forwards(stage.web())
    stage.k3d.faults(docker_down=True)
    ran = kecs("pf", "stop", "prod-web", "--keep-published")

    assert ran.code == 0, ran.err
    assert f"port {stage.port} stays on k3d's load balancer until `kecs destroy`" in ran.err


def test_without_docker_the_way_out_is_named(fails, stage):
    stage.forwards(stage.web())
    stage.k3d.faults(docker_down=True)
    fails(5, "pf", "stop", "prod-web", says="Docker does not answer", hint="`--keep-published`")
    assert stage.asked("forward.stop") == []


def test_an_edit_that_fails_leaves_the_forward(fails, stage):
    stage.maps((stage.port, 30081), (stage.other, 30082))
    stage.forwards(stage.web())
    stage.k3d.faults(taken=[stage.other])
    fails(4, "pf", "stop", "prod-web", "--yes", says=f"port {stage.other} is taken")
    assert stage.asked("forward.stop") == []


# run -----------------------------------------------------------------------------------------------------


@pytest.fixture
def file(stage, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "port-forward.yaml"
    path.write_text(FILE % stage.port)
    return path


def plan(*steps):
    return {"steps": list(steps)}


def step(sign, forward, name="web"):
    return {"sign": sign, "name": name, "target": "prod/web:80", "forward": forward}


def test_a_file_publishes(kecs, stage, file):
    web = stage.web(name="web", owner=str(file))
    stage.forwards(web, apply=plan(step("+", web)))
    ran = kecs("pf", "run", "--yes")

    assert ran.code == 0, ran.err
    assert ran.out.splitlines()[1] == f"    http://127.0.0.1:{stage.port} (published on k3d's load balancer)"
    assert stage.mapped() == [(stage.port, 30081)]
    assert [one["dryRun"] for one in stage.asked("forward.apply")] == [True, False]


def test_a_file_that_names_a_port_no_longer_takes_it_away_first(kecs, stage, file):
    """And the new one comes after the forwards are changed: each is one edit."""
    web = stage.web(name="web", owner=str(file), publish=stage.other)
    stage.maps((stage.other, 30081))
    stage.forwards(web, apply=plan(step("~", web)))
    ran = kecs("pf", "run", "--yes")

    assert ran.code == 0, ran.err
    assert [words[0] for words in stage.edits()] == ["--port-delete", "--port-add"]
    assert stage.mapped() == [(stage.port, 30081)]


def test_a_dry_run_names_the_edits(kecs, stage, file):
    stage.forwards(apply=plan(step("+", None)))
    ran = kecs("pf", "run", "--dry-run")

    assert ran.code == 0, ran.err
    assert f"load balancer: + 127.0.0.1:{stage.port} -> node port 30081 (prod/web:80)" in ran.err
    assert stage.edits() == []
    assert {one["dryRun"] for one in stage.asked("forward.apply")} == {True}


def test_what_does_not_exist_yet_is_published_later(kecs, stage, file):
    web = stage.web(name="web", owner=str(file), state="WAITING", reason="service prod/web does not exist")
    stage.forwards(web, apply=plan(step("+", web)), targets=[])
    ran = kecs("pf", "run")

    assert ran.code == 0, ran.err
    assert f"port {stage.port} of `web` is not published yet: prod/web:80 has no node port" in ran.err
    assert stage.edits() == []


def test_a_file_is_not_applied_when_nobody_can_be_asked(fails, stage, file):
    stage.forwards(apply=plan(step("+", None)))
    fails(2, "pf", "run", says="nobody can be asked here", hint="`--yes`")
    assert [one["dryRun"] for one in stage.asked("forward.apply")] == [True]


def test_an_edit_that_fails_leaves_the_forwards_of_the_file(kecs, stage, file):
    web = stage.web(name="web", owner=str(file))
    stage.forwards(web, apply=plan(step("+", web)))
    stage.k3d.faults(taken=[stage.port])
    ran = kecs("pf", "run", "--yes")

    assert ran.code == 4
    assert ran.out.startswith("+ web")
    assert "the same command publishes what is missing" in ran.err
    stage.k3d.faults()
    assert kecs("pf", "run", "--yes").code == 0
    assert stage.mapped() == [(stage.port, 30081)]


# list ----------------------------------------------------------------------------------------------------


def test_list_wide_shows_the_published_port(kecs, stage):
    stage.forwards(stage.web(), stage.api_row(publish=None))
    stage.home.forwards({"id": "pf-0123abcd", "name": "prod-web", "localPort": 20000})
    lines = kecs("pf", "list", "-o", "wide").out.splitlines()

    assert "PUBLISH" in lines[0].split()
    assert f" 127.0.0.1:{stage.port} " in lines[1]
    assert json.loads(kecs("pf", "list", "-o", "json").out)[0]["publish"] == stage.port


# explain -------------------------------------------------------------------------------------------------


def test_explain_tells_where_the_port_leads_and_without_docker_that_it_cannot(kecs, stage):
    stage.forwards(stage.web())
    stage.maps((stage.port, 30099))
    stage.home.forwards({"id": "pf-0123abcd", "name": "prod-web", "localPort": 20000})
    kecs("pf", "list")  # the agent runs from here on
    ran = kecs("explain", "forward", "prod-web")
    said = ran.out
    assert ran.code == 0, ran.err
    assert (
        f"port {stage.port} of k3d's load balancer leads to node port 30099, and its service has 30081"
        in said
    )
    assert f"--publish {stage.port} --name prod-web` publishes it anew" in said

    stage.k3d.faults(docker_down=True)
    said = kecs("explain", "forward", "prod-web").out
    assert f"whether port {stage.port} is published cannot be told: Docker does not answer" in said

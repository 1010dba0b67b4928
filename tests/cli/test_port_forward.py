"""`kecs port-forward` with a scripted agent."""

from __future__ import annotations

import json
import os
import signal
import threading

import pytest
from tests.client.fakes import row, until

from kecs.cli.forward_typed import specs
from kecs.client import instance as instances
from kecs.client import launch
from kecs.client.rpc_types import ForwardRow
from kecs.forward.spec import ForwardSpec, Target


def typed(
    target: str = "prod/web", *ports: str, kind: str = "service", **options: object
) -> list[ForwardSpec]:
    nothing = dict.fromkeys(("local_port", "target_port", "name", "region"))
    return specs(kind, **(nothing | {"target": target, "ports": ports, "address": ()} | options))


WEB = Target(type="service", cluster="prod", service="web")


@pytest.mark.parametrize(
    ("ports", "options", "pairs"),
    [
        ((), {}, [(None, None)]),
        (("8080:80",), {}, [(8080, 80)]),
        ((":80", "9090:http"), {}, [(None, 80), (9090, "http")]),
        (("8080",), {}, [(8080, 8080)]),
        ((), {"local_port": "8080"}, [(8080, None)]),
        ((), {"local_port": "8080", "target_port": "http"}, [(8080, "http")]),
        ((), {"target_port": "80"}, [(None, 80)]),
    ],
)
def test_ports_as_they_are_typed(ports, options, pairs):
    assert [(one.local_port, one.target_port) for one in typed("prod/web", *ports, **options)] == pairs


@pytest.mark.parametrize(
    ("kind", "text", "target"),
    [
        ("service", "prod/web", WEB),
        ("service", "web", Target(type="service", cluster="default", service="web")),
        ("task", "prod/0123abcd", Target(type="task", cluster="prod", task="0123abcd")),
    ],
)
def test_targets_as_they_are_typed(kind, text, target):
    assert typed(text, kind=kind)[0].target == target


def test_the_other_options_reach_the_spec():
    one = typed(name="mine", address=("0.0.0.0", "localhost"), region="eu-west-1")[0]
    assert (one.name, one.address, one.target.region) == ("mine", ["0.0.0.0"], "eu-west-1")


@pytest.fixture
def running(home):
    home.instance()
    home.forwards({"id": "pf-0123abcd", "name": "prod-web", "localPort": 20000})
    return home


def test_start_prints_where_the_forward_is(kecs, running):
    running.daemons_do(agent={"forwards": [row()]})
    ran = kecs("port-forward", "start", "service", "prod/web")

    assert ran.code == 0
    assert ran.out == "prod-web  http://127.0.0.1:20000 -> prod/web:80  ACTIVE\n"
    asked = json.loads(running.asked("agent").splitlines()[-1])
    assert asked["method"] == "forward.start"
    assert asked["params"]["wait"] is None


def test_start_as_json_prints_the_rows(kecs, running):
    running.daemons_do(agent={"forwards": [row()]})
    rows = json.loads(kecs("pf", "start", "service", "prod/web", "-o", "json").out)
    assert [(one["localPort"], one["route"]) for one in rows] == [(20000, "direct")]


@pytest.mark.parametrize(
    ("arguments", "seconds"),
    [
        (("--wait", "prod/web"), 30),
        (("prod/web", "--wait"), 30),
        (("prod/web", "--wait", "5"), 5),
        (("prod/web", "--wait=0.5", ":80"), 0.5),
        (("--wait", "--name", "x", "prod/web"), 30),
    ],
)
def test_wait_with_and_without_seconds(kecs, running, arguments, seconds):
    running.daemons_do(agent={"forwards": [row()]})
    assert kecs("pf", "start", "service", *arguments).code == 0
    assert json.loads(running.asked("agent").splitlines()[-1])["params"]["wait"] == seconds


def test_a_wait_in_vain_is_an_error_after_the_row(kecs, running):
    running.daemons_do(agent={"forwards": [row(state="WAITING", reason="no task runs")]})
    ran = kecs("pf", "start", "service", "prod/web", "--wait=0")

    assert ran.code == 1
    assert ran.out == "prod-web  http://127.0.0.1:20000 -> prod/web:80  WAITING (no task runs)\n"
    assert "error: `prod-web` is WAITING after 0 s: no task runs" in ran.err


def test_list_is_a_table(kecs, running):
    other = row(
        name="a", state="WAITING", reason="no task runs", endpoints=[], service=None, taskId="0123456789"
    )
    running.daemons_do(agent={"forwards": [row(), other], "warnings": ["a file was moved aside"]})
    launch.launch("agent", running.paths)
    ran = kecs("port-forward", "list")

    assert ran.out.splitlines() == [
        "NAME      STATE    LOCAL            TARGET            OPEN  TOTAL  HELD  REASON",
        "prod-web  ACTIVE   127.0.0.1:20000  prod/web:80       1     2      0     -",
        "a         WAITING  127.0.0.1:20000  prod/01234567:80  1     2      0     no task runs",
    ]
    assert ran.err == "warning: a file was moved aside\n"


def test_list_wide_has_route_endpoints_bytes_and_the_last_error(kecs, running):
    error = {"message": "refused\x1b[2J", "time": 0.0}
    running.daemons_do(agent={"forwards": [row(lastError=error)]})
    launch.launch("agent", running.paths)
    out = kecs("port-forward", "list", "-o", "wide").out

    for part in (
        "pf-0123abcd",
        "direct",
        "01234567 127.0.0.1:29999",
        "1.2 kB",
        "34 MB",
        "us-east-1",
        "refused",
    ):
        assert part in out
    assert "\x1b" not in out


def test_list_wide_names_who_fails_its_probe(kecs, running):
    ill = row()["endpoints"][0] | {"ready": False, "failing": "GET /healthz answered 503"}
    running.daemons_do(agent={"forwards": [row(endpoints=[ill])]})
    launch.launch("agent", running.paths)

    assert "01234567 127.0.0.1:29999 failing its probe" in kecs("port-forward", "list", "-o", "wide").out


def by_node(**members):
    return {
        "taskId": None,
        "ready": True,
        "draining": False,
        "open": 0,
        "byNode": True,
        "failing": None,
    } | members


def test_list_wide_tells_what_is_published_from_the_nodes_and_why_a_tunnel_is_taken(kecs, running):
    here = {"kind": "direct", "host": "127.0.0.1", "port": 30080, "published": True}
    node = {"kind": "direct", "host": "10.0.0.1", "port": 31234}
    beyond = "node port 31234 is beyond the published ones, 30000-30099"
    tunnel = {"kind": "tunnel", "namespace": "ns", "pod": "web-0123", "port": 80, "unpublished": beyond}
    through = by_node(taskId="0123456789", byNode=False, route=tunnel)
    running.daemons_do(
        agent={
            "forwards": [
                row(name="a", route="published", endpoints=[by_node(route=here), through]),
                row(name="b", route="tunnel", endpoints=[by_node(route=node), through]),
                row(name="c", route="tunnel", routeWanted="tunnel", endpoints=[through]),
                row(name="d", route="direct", endpoints=[by_node(route=node), through]),
            ]
        }
    )
    launch.launch("agent", running.paths)
    lines = {line[0]: line for line in kecs("port-forward", "list", "-o", "wide").out.splitlines()[1:]}

    assert "published (kube-proxy balances)" in lines["a"]
    assert "published 127.0.0.1:30080, 01234567 web-0123:80" in lines["a"]
    assert f"tunnel ({beyond})" in lines["b"]
    assert "beyond" not in lines["c"], "it was asked for"
    assert "beyond" not in lines["d"], "what is taken is as good"


@pytest.mark.parametrize("how", ["json", "yaml"])
def test_list_as_data_has_every_member_of_the_contract(kecs, running, how):
    import yaml

    running.daemons_do(agent={"forwards": [row()]})
    launch.launch("agent", running.paths)
    rows = yaml.safe_load(kecs("port-forward", "list", "-o", how).out)

    assert set(rows[0]) == set(ForwardRow.__struct_encode_fields__)
    assert rows[0]["bytes"] == {"in": 1200, "out": 34_000_000}


def test_list_of_a_stopped_instance_is_empty_with_a_note(kecs, home):
    home.instance(desired="stopped")
    home.forwards({"name": "x"})

    ran = kecs("port-forward", "list", "-o", "json")
    assert (ran.code, json.loads(ran.out)) == (0, [])
    ran = kecs("port-forward", "list")
    assert (ran.code, ran.out) == (0, "")
    assert "`kecs start`" in ran.err
    assert home.alive() == []


def test_list_does_not_start_an_agent_that_was_stopped_by_hand(kecs, running):
    running.instance(agent="stopped")
    assert "kecs port-forward agent restart" in kecs("port-forward", "list").err
    assert running.starts("agent") == 0


def test_list_starts_no_agent_where_there_is_no_forward(kecs, home):
    home.instance()
    ran = kecs("port-forward", "list")
    assert (ran.code, ran.err.splitlines()[-1]) == (0, "there is no port forward")
    assert (home.starts("agent"), home.starts("controlplane")) == (0, 1)


def test_list_brings_a_crashed_agent_back(kecs, running):
    running.daemons_do(agent={"forwards": [row()]})
    launch.launch("agent", running.paths)
    os.kill(int(running.paths.agent_pid.read_text()), signal.SIGKILL)
    until(lambda: not launch.is_locked(running.paths.agent_lock), "it is dead")

    assert "prod-web" in kecs("port-forward", "list").out
    assert running.starts("agent") == 2


def test_list_replaces_an_agent_of_another_version(kecs, running):
    running.daemons_do(agent={"version": "0.0.1"})
    launch.launch("agent", running.paths)
    running.daemons_do(agent={"forwards": [row()]})
    ran = kecs("port-forward", "list")

    assert "prod-web" in ran.out
    assert "0.0.1" in ran.err


def test_stop_names_what_it_stopped(kecs, running):
    running.daemons_do(agent={"forwards": [row()]})
    assert kecs("port-forward", "stop", "prod-web").out == "prod-web  stopped\n"
    asked = json.loads(running.asked("agent").splitlines()[-1])
    assert asked["params"] == {"forwards": ["prod-web"], "all": False}


def test_stop_all_without_forwards_starts_no_agent(kecs, home):
    home.instance()
    assert kecs("port-forward", "stop", "--all").code == 0
    assert home.alive() == []


def test_logs_of_a_forward_by_name_or_id_without_an_agent(kecs, running):
    line = {"time": "2026-01-01T00:00:00Z", "level": "info", "logger": "x", "message": "ACTIVE", "port": 80}
    (running.paths.forward_logs / "prod-web.log").write_text(json.dumps(line) + "\nplain\x1b[2J\n")
    for forward in ("prod-web", "pf-0123abcd"):
        ran = kecs("port-forward", "logs", forward)
        assert ran.out == "2026-01-01T00:00:00Z info    ACTIVE (port=80)\nplain\N{REPLACEMENT CHARACTER}[2J\n"
    assert running.alive() == []


def test_logs_of_a_forward_that_does_not_exist(fails, running):
    fails(3, "port-forward", "logs", "nothing", says="`nothing`", hint="`prod-web`")


def test_a_log_that_is_followed_goes_on_through_its_rotation(running):
    from kecs.cli.log_files import lines

    file = running.paths.forward_logs / "prod-web.log"
    file.write_text("one\ntw")
    found = lines(file, follow=True)

    assert next(found) == "one"
    with file.open("a") as more:
        more.write("o\n")
    assert next(found) == "two"
    file.rename(f"{file}.1")
    file.write_text("three\n")
    assert next(found) == "three"


def test_agent_status_stop_and_restart(kecs, fails, running):
    fails(5, "port-forward", "agent", "status", says="not running")
    assert kecs("port-forward", "agent", "restart").code == 0
    assert "40 MB" in kecs("port-forward", "agent", "status").out
    assert (
        json.loads(kecs("port-forward", "agent", "status", "-o", "json").out)["controlplane"] == "connected"
    )

    assert kecs("port-forward", "agent", "stop").code == 0
    assert instances.require(running.paths).agent == "stopped"
    assert not launch.is_locked(running.paths.agent_lock)
    fails(5, "port-forward", "agent", "status", hint="agent restart")
    assert kecs("port-forward", "agent", "stop").err == "the agent was not running\n"

    kecs("port-forward", "agent", "restart")
    assert instances.require(running.paths).agent == "running"


def test_foreground_prints_events_and_stops_the_forward_at_ctrl_c(kecs, running, monkeypatch):
    from kecs.cli import foreground
    from kecs.client.rpc_types import ConnectionEvent

    running.daemons_do(agent={"forwards": [row()]})
    stopped: list[list[str]] = []

    def watch(_session, forward, events) -> None:
        events.put(ConnectionEvent(type="opened", time=0.0, forward="prod-web", number=1, peer="127.0.0.1:5"))
        threading.Timer(0.05, signal.raise_signal, (signal.SIGINT,)).start()

    monkeypatch.setattr(foreground, "_watch", watch)
    monkeypatch.setattr(foreground, "_stop", lambda _session, forwards: stopped.append(forwards))
    ran = kecs("pf", "start", "service", "prod/web", "--foreground")

    assert ran.code == 130
    assert "connection 1 opened from 127.0.0.1:5" in ran.out
    assert stopped == [["pf-0123abcd"]]


def test_a_forward_that_ends_by_itself_ends_foreground_with_an_error(kecs, running, monkeypatch):
    from kecs.cli import foreground
    from kecs.errors import KecsError

    running.daemons_do(agent={"forwards": [row()]})
    monkeypatch.setattr(
        foreground, "_watch", lambda _s, _f, events: events.put(KecsError("`x` has ended: gone"))
    )
    ran = kecs("pf", "start", "service", "prod/web", "--foreground")

    assert ran.code == 1
    assert "`x` has ended: gone" in ran.err

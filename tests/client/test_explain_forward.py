"""A forward explained: what the sentences are, from each state and each thing that can stand around it."""

from __future__ import annotations

import json

import pytest
from tests.client.fakes import row

from kecs.client import forward_log
from kecs.client.admin_types import Explain, ExplainEvent
from kecs.client.explain_forward import Publication, Surroundings, explain, forward, standing
from kecs.errors import ExitCode, KecsError

TARGET = Explain(
    title="service prod/web",
    facts=["the service is ACTIVE"],
    without_effect=["cpu: none"],
    advice=["mend it"],
    timeline=[ExplainEvent(time=2.0, source="service", text="b")],
)


def told(around=None, **members):
    return explain(forward(row(**members)), around or Surroundings(target=TARGET))


def test_a_forward_that_serves_needs_nothing():
    it = told()
    assert it.title == "forward prod-web: http://127.0.0.1:20000 -> prod/web:80 in us-east-1"
    assert it.facts == ["it is ACTIVE", "the service is ACTIVE"]
    assert it.advice == ["it serves: connect to http://127.0.0.1:20000"]
    assert it.without_effect == []


UDP = {"protocol": "udp", "targetPort": 53}
NODE = {"taskId": None, "route": {"kind": "direct", "host": "10.0.0.7", "port": 30053}, "ready": True}


def test_a_forward_of_udp_that_serves():
    it = told(**UDP, bytes={"in": 9, "out": 4})
    assert it.title == "forward prod-web: udp://127.0.0.1:20000 -> prod/web:53/udp in us-east-1"
    assert it.facts == ["it is ACTIVE", "the service is ACTIVE"]
    assert it.advice == ["it serves: send to udp://127.0.0.1:20000"]


def test_datagrams_that_come_to_nothing_are_told_of():
    it = told(
        **UDP,
        bytes={"in": 9, "out": 0},
        connections={"open": 1, "total": 1, "held": 0, "dropped": 3},
        endpoints=[NODE],
        lastError={"message": "aaaaaaaa: Connection refused", "time": 0.0},
    )
    assert it.facts[2:4] == [
        "3 datagrams were dropped, since nobody took them",
        "9 bytes went to it, and none came back",
    ]
    assert it.facts[1].startswith("datagrams were lost last at ")
    assert it.advice[0] == "see that the task listens on UDP port 53: `kecs logs prod/web`"
    assert "reaches the cluster's nodes by UDP (10.0.0.7)" in it.advice[1]


def test_a_forward_of_udp_that_does_not_serve():
    waiting = told(**UDP, state="WAITING", reason="why")
    assert waiting.facts[0] == "it is WAITING, so datagrams are dropped: why"
    failed = told(**UDP, state="FAILED", reason="why")
    assert failed.facts[0] == "it is FAILED, so nothing listens for it on UDP port 20000: why"
    assert any("`kecs port-forward start service prod/web PORT:53/udp`" in one for one in failed.advice)


def test_events_of_both_sides_are_one_timeline():
    mine = tuple(ExplainEvent(time=at, source="forward x", text=str(at)) for at in (1.0, 3.0))
    it = told(Surroundings(target=TARGET, events=mine))
    assert [event.time for event in it.timeline] == [1.0, 2.0, 3.0]


def test_what_both_sides_say_of_the_end_of_a_task_is_told_once():
    ended = ExplainEvent(time=2.0, source="task 01234567", text="has stopped: it was time")
    target = Explain(title="t", facts=[], without_effect=[], advice=[], timeline=[ended])
    mine = ("task 01234567 is STOPPED: it was time", "task 89abcdef is STOPPED: unknown to ECS by now")
    events = tuple(ExplainEvent(time=3.0, source="forward x", text=text) for text in mine)
    it = told(Surroundings(target=target, events=events))
    assert [event.text for event in it.timeline] == [ended.text, mine[1]]


@pytest.mark.parametrize(
    ("state", "says"),
    [
        ("WAITING", "is WAITING, so new connections are held: why"),
        ("FAILED", "is FAILED, so nothing listens for it on port 20000: why"),
        ("ENDED", "is ENDED and does not listen any more: why"),
        ("ACTIVE", "is ACTIVE: why"),
    ],
)
def test_each_state_says_what_it_means(state, says):
    assert standing(forward(row(state=state, reason="why"))) == says


def test_a_waiting_forward_ends_with_what_helps_its_target_and_itself():
    it = told(state="WAITING", reason="no task of prod/web is ready")
    assert it.advice[0] == "mend it"
    assert "kecs port-forward stop prod-web" in it.advice[-1]


def test_a_task_that_fails_its_probe_is_named_with_its_answer_and_its_log():
    route = {"kind": "direct", "host": "127.0.0.1", "port": 29999}
    common = {"route": route, "draining": False, "open": 0, "byNode": False}
    endpoints = [
        {"taskId": "0123456789abcdef", "ready": False, "failing": "GET /healthz answered 503", **common},
        {"taskId": "fedcba9876543210", "ready": True, "failing": None, **common},
    ]
    it = told(endpoints=endpoints, reason="1 of 2 tasks fails its probe: GET /healthz answered 503")
    assert (
        "task 01234567 gets no connections, since it fails its probe: GET /healthz answered 503" in it.facts
    )
    assert it.advice == [
        "`kecs logs prod/01234567` shows what the task says that fails its probe",
        "it serves: connect to http://127.0.0.1:20000",
    ]


def test_what_is_missing_is_told_with_the_hint():
    error = KecsError("there is no service `prod/web`", "`kecs ps` shows services", ExitCode.NOT_FOUND)
    it = told(Surroundings(missing=error), state="WAITING", reason="service prod/web does not exist")
    assert error.message in it.facts
    assert it.advice[0].startswith("create it by `aws ecs create-service --cluster prod --service-name web")
    assert it.advice[1] == error.hint


def test_a_lost_control_plane_is_told_although_the_forward_serves():
    error = KecsError("the control plane does not answer", "`kill -9 12`", ExitCode.UNREACHABLE)
    it = told(Surroundings(controlplane=error), reason="control plane not reachable since 12:00:00")
    assert it.facts[0] == "it is ACTIVE: control plane not reachable since 12:00:00"
    assert "the control plane does not tell where it leads: the control plane does not answer" in it.facts
    assert it.advice == ["`kill -9 12`"]


def test_an_entry_of_the_file_is_told_without_a_state():
    entry = {
        "id": "pf-0123abcd",
        "name": "db",
        "type": "service",
        "region": "us-east-1",
        "cluster": "prod",
        "service": "db",
        "localPort": 20001,
        "targetPort": 5432,
        "createdAt": 1.0,
    }
    hung = KecsError("the agent does not answer", None, ExitCode.UNREACHABLE)
    it = explain(forward(entry), Surroundings(agent=hung, target=TARGET))
    assert it.facts[:2] == [
        "it does not listen, since the agent does not run",
        "the agent does not answer",
    ]
    assert "kecs port-forward agent restart" in it.advice[0]
    assert forward(entry | {"ended": "task 1 is gone"}).state == "ENDED"


def test_a_taken_port_is_answered_by_whose_forward_it_is():
    by_hand = told(state="FAILED", reason="port 20000 is taken")
    assert "`kecs port-forward start service prod/web PORT:80`" in by_hand.advice[1]
    of_file = told(state="FAILED", reason="port 20000 is taken", owner="/work/pf.yaml")
    assert "`localPort` in /work/pf.yaml" in of_file.advice[1]
    assert "kecs port-forward run --config /work/pf.yaml" in of_file.advice[1]


def test_a_port_that_is_not_tried_again_says_how_it_is():
    reason = "port 20000 is taken; given up after 3 retries: free the port, then start it again"
    by_hand = told(state="FAILED", reason=reason).advice[0]
    assert "then `kecs port-forward start service prod/web :80` tries again" in by_hand
    of_file = told(state="FAILED", reason=reason, owner="/work/pf.yaml").advice[0]
    assert "then `kecs port-forward run --config /work/pf.yaml` starts it anew" in of_file


def test_an_ended_forward_says_how_to_begin_again():
    members = {"state": "ENDED", "type": "task", "service": None, "taskId": "0123456789abcdef"}
    assert "a task does not come back" in told(**members).advice[0]
    assert "run --config /work/pf.yaml" in told(**members, owner="/work/pf.yaml").advice[0]
    by_tags = told(**members, tags={"env": "dev", "app": "x"}, autoReconnect=False).advice[0]
    assert "task prod 20000:80 --tag env=dev --tag app=x --no-auto-reconnect --name prod-web`" in by_tags


def test_a_forward_by_tags_says_how_many_match_and_which_is_chosen():
    it = told(
        type="task",
        service=None,
        tags={"env": "dev"},
        matched=2,
        chosen={"taskId": "0123456789abcdef", "createdAt": 1.0},
    )
    assert it.title.endswith("-> prod/env=dev:80 in us-east-1")
    assert "2 tasks match its tags; new connections go to 01234567" in it.facts


def test_the_last_failed_connect_is_told():
    it = told(lastError={"message": "01234567: Connection refused", "time": 1.0})
    assert any(fact.endswith(": 01234567: Connection refused") for fact in it.facts)


def test_an_ipv6_address_and_a_wildcard_are_urls():
    assert forward(row(address=["::1"])).url == "http://[::1]:20000"
    assert forward(row(address=["0.0.0.0"])).url == "http://127.0.0.1:20000"


# The log


def line(at: str, message: str) -> str:
    return (
        json.dumps({"time": f"2026-01-01T00:00:{at}.000+00:00", "level": "info", "message": message}) + "\n"
    )


def test_a_log_and_the_older_one_are_read_and_repeats_are_one_event(tmp_path):
    log = tmp_path / "web.log"
    log.with_name("web.log.1").write_text(line("01", "too old") + line("05", "started"))
    log.write_text(
        line("06", "refused") + line("07", "refused") + "not JSON\n{}\n[1]\n" + line("09", "ACTIVE") + '{"ti'
    )
    since = forward_log.read(log, "f", 0.0)[0].time + 1.0
    events = forward_log.read(log, "f", since)
    assert [event.text.partition(" (")[0] for event in events] == ["started", "refused", "ACTIVE"]
    assert events[1].text.startswith("refused (2 times until ")
    assert {event.source for event in events} == {"f"}


def test_of_a_long_log_the_end_is_read(tmp_path):
    log = tmp_path / "web.log"
    log.write_text("".join(line("01", f"number {index}") for index in range(10_000)))
    events = forward_log.read(log, "f", 0.0)
    assert 1000 < len(events) < 10_000
    assert events[-1].text == "number 9999"


def test_no_log_is_no_event(tmp_path):
    assert forward_log.read(tmp_path / "nothing.log", "f", 0.0) == []


@pytest.mark.parametrize(
    ("found", "says", "advises"),
    [
        (Publication(leads_to=30081, node_port=30081), "leads to node port 30081, which is its", False),
        (Publication(leads_to=30081, node_port=30082), "30081, and its service has 30082", True),
        (Publication(leads_to=30081), "30081, and its service has none", False),
        (Publication(node_port=30081), "port 18080 is not on k3d's load balancer", True),
        (Publication(trouble=KecsError("Docker is down")), "cannot be told: Docker is down", False),
    ],
)
def test_a_published_port_is_told_with_where_it_leads(found, says, advises):
    around = Surroundings(target=TARGET, publication=found)
    it = told(around, publish=18080)
    again = (
        "`kecs port-forward start service prod/web :80 --publish 18080 --name prod-web` publishes it anew, "
        "and leaves the forward as it is"
    )
    assert any(says in fact for fact in it.facts), it.facts
    assert (again in it.advice) is advises
    of_a_file = told(around, publish=18080, owner="/f.yaml")
    assert any("run --config /f.yaml` publishes it anew" in text for text in of_a_file.advice) is advises

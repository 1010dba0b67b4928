"""One forward at work: what becomes of the machine's effects."""

from __future__ import annotations

import asyncio
import json
import shutil

import pytest
from tests.agent.shapes import A, B, entry, port, service, short_home, snapshot, task
from tests.agent.test_routes import pod

from kecs.agent import runner as module
from kecs.agent.picture import Picture
from kecs.agent.runner import Runner
from kecs.forward import machine as m
from kecs.forward.spec import Retry
from kecs.net.listener import PortTaken
from kecs.net.messages import (
    Close,
    Counters,
    Ended,
    Endpoint,
    HoldLimits,
    Listen,
    Opened,
    Refused,
    Snapshot,
    Waiting,
    Watch,
)

ID = "pf-00000001"
UP = service(task(A, port(80, 29001)))
DOWN = service(task(A, status="PENDING"))
TAKEN = PortTaken("127.0.0.1", 20001, "nginx (pid 12)")


class Stage:
    """A runner with a fake loop, and ports that can be taken."""

    def __init__(self, home, monkeypatch, **members):
        self.sent = []
        self.changes = 0
        self.taken = False
        self.file = home / "prod-web.log"
        monkeypatch.setattr(module.listener, "bind", self.bind)
        self.wanted = {}
        self.tunnel_errors = {}
        self.runner = Runner(
            entry(**members),
            self,
            addresses=["127.0.0.1"],
            log_file=self.file,
            on_change=self.changed,
            tunnels=self,
        )

    def want(self, forward, names):
        assert forward == ID
        self.wanted = set(names)

    def error(self, name):
        return self.tunnel_errors.get(name)

    def bind(self, addresses, number, *, udp):
        assert (list(addresses), number, udp) == (["127.0.0.1"], 20001, False)
        if self.taken:
            raise TAKEN
        return ()

    def send(self, message):
        self.sent.append(message)

    def changed(self, runner):
        self.changes += 1

    def take(self):
        sent, self.sent = self.sent, []
        return sent

    def resolve(self, target, version=1):
        picture = Picture()
        picture.apply(snapshot(version, target))
        self.runner.resolved(picture.resolve(self.runner.entry), version)

    def log(self):
        return [json.loads(line) for line in self.file.read_text().splitlines()]


@pytest.fixture
def play(monkeypatch):
    home = short_home()

    def play(scene, **members):
        async def run():
            stage = Stage(home, monkeypatch, **members)
            try:
                await scene(stage, stage.runner)
            finally:
                stage.runner.close()

        asyncio.run(run())

    yield play
    shutil.rmtree(home)


SERVED = Snapshot(ID, 1, (Endpoint(A, "127.0.0.1", 29001),))


def test_a_snapshot_follows_the_listener_and_is_not_repeated(play):
    async def scene(stage, runner):
        stage.resolve(UP)
        assert stage.take() == [], "the loop does not know the forward yet"
        runner.adopt(())
        assert stage.take() == [Listen(ID, (), HoldLimits(5.0, 7)), SERVED]
        stage.resolve(UP, version=2)
        assert stage.take() == []
        stage.resolve(DOWN, version=3)
        assert stage.take() == [Snapshot(ID, 3, ())]
        assert (runner.state, stage.changes) == (m.State.WAITING, 3)

    play(scene, hold_seconds=5.0, hold_connections=7)


def test_a_taken_port_is_tried_again_until_it_is_free(play):
    async def scene(stage, runner):
        stage.taken = True
        runner.restore()
        assert (runner.state, runner.reason) == (m.State.FAILED, TAKEN.message)
        assert runner.row().last_error.message == TAKEN.message
        stage.resolve(UP)
        assert stage.take() == []
        assert runner.endpoints == (), "no drain waits for it"
        stage.taken = False
        async with asyncio.timeout(5):
            await runner.change()
        assert runner.state is m.State.ACTIVE
        assert stage.take() == [Listen(ID, (), HoldLimits()), SERVED]

    play(scene, retry=Retry(initial=0.01, max=0.01))


def test_a_port_that_stays_taken_is_given_up_when_the_entry_says_so(play):
    async def scene(stage, runner):
        stage.taken = True
        runner.restore()
        async with asyncio.timeout(5):
            await runner.change()
        assert runner.state is m.State.FAILED
        assert runner.reason == f"{TAKEN.message}; given up after 1 retry: free the port, then start it again"
        stage.taken = False
        runner.retry()
        assert runner.state is m.State.WAITING

    play(scene, retry=Retry(initial=0.01, max=0.01, attempts=1))


def test_a_stop_closes_everything_and_the_timer(play):
    async def scene(stage, runner):
        runner.adopt(())
        stage.take()
        runner.stop()
        assert stage.take() == [Close(ID, connections=True)]
        assert runner.state is m.State.ENDED

    play(scene)


def test_a_stop_while_it_waits_for_its_port_leaves_no_timer(play):
    async def scene(stage, runner):
        stage.taken = True
        runner.restore()
        runner.stop()
        assert stage.take() == [Close(ID, connections=True)], "of a port that it had before"
        assert runner._timer is None

    play(scene)


def test_one_that_ended_is_not_restored(play):
    async def scene(stage, runner):
        runner.restore()
        assert (stage.take(), runner.state, runner.reason) == ([], m.State.ENDED, "task 1 is gone")

    play(scene, ended="task 1 is gone")


def test_watching_is_asked_for_while_somebody_watches(play):
    async def scene(stage, runner):
        first, second = [], []
        leave_first = runner.watch(first.append)
        assert stage.take() == [], "before it listens"
        runner.adopt(())
        assert stage.take()[-1] == Watch(ID, on=True)
        leave_second = runner.watch(second.append)
        runner.opened(Opened(ID, 1, "127.0.0.1:5"))
        leave_second()
        runner.ended(Ended(ID, 1, "reset", 3, 4, 0.5))
        assert stage.take() == []
        leave_first()
        leave_first()
        assert stage.take() == [Watch(ID, on=False)]
        assert [event.type for event in first] == ["state", "opened", "ended"]
        assert [event.type for event in second] == ["opened"]
        assert (first[2].why, first[2].received, first[2].sent, first[2].seconds) == ("reset", 3, 4, 0.5)

    play(scene)


def test_the_row_counts_open_connections_by_task(play):
    async def scene(stage, runner):
        stage.resolve(service(task(A, port(80, 29001)), task(B, port(80, 29002, draining=True))))
        runner.adopt(())
        row = runner.row(
            Counters(open=5, total=9, held=1, received=7, sent=8, by_endpoint=((A, 5), (B, 0)), taking=(A,))
        )
        assert [(one.task_id, one.open) for one in row.endpoints] == [(A, 5), (B, 0)]
        assert row.route == "direct"
        assert (row.connections.open, row.connections.total, row.connections.held) == (5, 9, 1)
        assert (row.bytes.in_, row.bytes.out) == (7, 8)
        assert runner.row().connections == row.connections, "the last ones known"

    play(scene)


def test_the_log_keeps_what_a_person_asks_about(play):
    async def scene(stage, runner):
        runner.adopt(())
        runner.waiting(Waiting(ID, 1))
        stage.resolve(UP)
        runner.waiting(Waiting(ID, 0))
        runner.waiting(Waiting(ID, 1))
        runner.refused(Refused(ID, A, "Connection refused", 1000.0))
        runner.refused(Refused(ID, "", "new connections wait: too many", 1001.0))
        assert [line["message"] for line in stage.log()] == [
            "started on port 20001 for prod/web",
            f"WAITING: {m.NEVER_HEARD}",
            "holding new connections",
            "task aaaaaaaa is ready",
            "ACTIVE",
            "no connection is held any more",
            "connect failed: aaaaaaaa: Connection refused",
            "connect failed: new connections wait: too many",
        ]
        assert runner.row().last_error.time == 1001.0
        assert runner._history._log.handlers[0].stream is None, "no descriptor is held"

    play(scene)


def test_tunnels_are_wanted_while_the_forward_listens_and_leads_to_pods(play):
    async def scene(stage, runner):
        stage.resolve(service(pod(A), pod(B, draining=True)))
        assert stage.wanted == set(), "it does not listen yet"
        runner.adopt(())
        assert stage.wanted == {"ns/web-aaaa", "ns/web-bbbb"}, "what drains keeps its connections"
        stage.resolve(service(pod(A)), version=2)
        assert stage.wanted == {"ns/web-aaaa"}
        runner.stop()
        assert stage.wanted == set()

    play(scene)


def test_a_forward_that_may_only_dial_wants_no_tunnels(play):
    async def scene(stage, runner):
        runner.adopt(())
        stage.resolve(service(pod(A)))
        assert stage.wanted == set()

    play(scene, route="direct")


def test_the_route_is_the_one_that_the_next_connection_takes(play):
    async def scene(stage, runner):
        runner.adopt(())
        stage.resolve(service(pod(A, nodes=("10.0.0.1",))))
        routes = [
            runner.row(Counters(taking=taking)).route for taking in (("node/10.0.0.1:30080",), (A,), ())
        ]
        assert routes == ["direct", "tunnel", None]

    play(scene)


def test_where_no_route_works_the_row_says_why(play):
    async def scene(stage, runner):
        runner.adopt(())
        stage.resolve(service(pod(A, nodes=("10.0.0.1",))))
        assert runner.row(Counters()).reason is None, "nothing is known yet"
        runner.refused(Refused(ID, "node/10.0.0.1:30080", "no answer within 1 s", 1000.0))
        stage.tunnel_errors["ns/web-aaaa"] = "pods/portforward is forbidden"
        row = runner.row(Counters(held=3))

        assert (row.state, row.route) == ("ACTIVE", None)
        assert row.reason == (
            "the control plane says ready, but no route works: "
            "direct: no answer within 1 s, tunnel: pods/portforward is forbidden"
        )
        assert row.last_error.message == "node/10.0.0.1:30080: no answer within 1 s"
        assert runner.row(Counters(taking=(A,))).reason is None

    play(scene)

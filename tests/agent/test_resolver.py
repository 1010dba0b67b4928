"""Endpoints in, snapshots and answers out: the order, the losses, who is asked to bring it back."""

from __future__ import annotations

import asyncio
import shutil
from typing import ClassVar

import pytest
from tests.agent.scripted import ScriptedControlPlane
from tests.agent.shapes import REGION, A, B, change, entry, lone, port, service, short_home, snapshot, task

from kecs.agent import resolver as module
from kecs.agent.resolver import Resolver
from kecs.agent.runner import Runner
from kecs.client import watch
from kecs.client.admin_types import PeerStatus
from kecs.client.endpoints import EndpointsLine
from kecs.client.watch import ControlPlaneLost
from kecs.errors import KecsError
from kecs.forward.backoff import Backoff
from kecs.net.messages import Barrier, Drained, Endpoint, Listen, Seen, Snapshot
from kecs.paths import InstancePaths

WEB = (REGION, "prod", "web", None)
LEAVING = {"draining": True}


class Relay:
    """Keeps what is sent to the loop."""

    def __init__(self):
        self.sent = []

    def send(self, message):
        self.sent.append(message)

    def take(self):
        sent, self.sent = self.sent, []
        return [message for message in sent if not isinstance(message, Listen)]


class Supervisor:
    """Counts how often it is told of a loss."""

    def __init__(self):
        self.losses = 0
        self.state = PeerStatus(state="connected")

    async def lost(self):
        self.losses += 1
        await asyncio.sleep(0)
        return True


class Stage:
    """A resolver with forwards, played by hand."""

    made: ClassVar[list] = []

    def __init__(self, home, *entries, streams=()):
        self.paths = InstancePaths(home, "default")
        self.relay = Relay()
        self.supervisor = Supervisor()
        self.runners = {}
        self.streams = list(streams)
        self.all_runners = []
        self.made.append(self)
        self.resolver = Resolver(self.paths, self.relay, self.runners, self.supervisor, self.follow)
        for one in entries:
            self.add(one)

    def add(self, one):
        runner = Runner(
            one,
            self.relay,
            addresses=["127.0.0.1"],
            log_file=self.paths.home / f"{one.name}.log",
            on_change=lambda runner: None,
        )
        self.runners[one.id] = runner
        self.all_runners.append(runner)
        runner.adopt(())
        self.resolver.add(runner)
        return runner

    async def follow(self, paths):
        if not self.streams:
            await asyncio.Event().wait()
        for line in self.streams.pop(0):
            if isinstance(line, KecsError):
                raise line
            yield line
        raise ControlPlaneLost("it ended the stream")

    async def follow_until(self, condition):
        task_ = asyncio.get_running_loop().create_task(self.resolver.follow())
        try:
            async with asyncio.timeout(5):
                while not condition():
                    await asyncio.sleep(0)
        finally:
            task_.cancel()
            await asyncio.gather(task_, return_exceptions=True)

    def hear(self, line, *, first=False):
        self.resolver._heard(line, first=first)
        return self.relay.take()


@pytest.fixture
def home():
    folder = short_home()
    yield folder
    for stage in Stage.made:
        for runner in stage.all_runners:
            runner.close()
    Stage.made.clear()
    shutil.rmtree(folder)


def run(scene):
    asyncio.run(scene())


def test_each_forward_that_a_line_changes_gets_a_snapshot_then_comes_the_barrier(home):
    async def scene():
        stage = Stage(home, entry(), entry(id="pf-00000002", name="api", service="api"))
        web = service(task(A, port(80, 29001)))
        api = service(task(B, port(80, 29002)), name="api")

        assert stage.hear(snapshot(1, web, api), first=True) == [
            Snapshot("pf-00000001", 1, (Endpoint(A, "127.0.0.1", 29001),)),
            Snapshot("pf-00000002", 1, (Endpoint(B, "127.0.0.1", 29002),)),
            Barrier(1),
        ]
        moved = service(task(B, port(80, 29003)), name="api")
        assert stage.hear(change(2, moved)) == [
            Snapshot("pf-00000002", 2, (Endpoint(B, "127.0.0.1", 29003),)),
            Barrier(2),
        ]
        assert stage.hear(change(3, service(name="other"))) == [Barrier(3)]
        assert stage.hear(change(4, removed=[WEB])) == [Snapshot("pf-00000001", 4, ()), Barrier(4)]

    run(scene)


def test_a_new_forward_is_told_at_once(home):
    async def scene():
        stage = Stage(home)
        stage.hear(snapshot(1, service(task(A, port(80, 29001)))), first=True)
        runner = stage.add(entry())

        assert stage.relay.take() == [Snapshot("pf-00000001", 1, (Endpoint(A, "127.0.0.1", 29001),))]
        assert runner.state.value == "ACTIVE"

    run(scene)


def test_what_a_question_taught_is_not_undone_by_an_older_line(home):
    async def scene():
        stage = Stage(home, entry())
        stage.hear(snapshot(1, service(task(A, port(80, 29001)))), first=True)

        stage.resolver.learn(snapshot(3, service(task(B, port(80, 29002)))))
        assert stage.relay.take() == [
            Snapshot("pf-00000001", 3, (Endpoint(B, "127.0.0.1", 29002),)),
            Barrier(2),
        ]
        assert stage.hear(change(2, service())) == []
        assert stage.hear(change(3, service(task(B, port(80, 29002))))) == []
        stage.resolver.learn(snapshot(2, service()))
        assert stage.relay.take() == []
        assert stage.hear(change(4, service())) == [Snapshot("pf-00000001", 4, ()), Barrier(3)]

    run(scene)


def test_a_new_stream_counts_versions_anew(home):
    async def scene():
        stage = Stage(home, entry())
        stage.hear(snapshot(900, service(task(A, port(80, 29001)))), first=True)

        assert stage.hear(snapshot(2, service(task(B, port(80, 29002)))), first=True) == [
            Snapshot("pf-00000001", 2, (Endpoint(B, "127.0.0.1", 29002),)),
            Barrier(2),
        ]

    run(scene)


def test_loss_and_return(home):
    """A loss is said to every forward, and to the supervisor each time; endpoints stay as they were."""

    async def scene():
        web = service(task(A, port(80, 29001)))
        stage = Stage(home, entry(), streams=[[snapshot(1, web)]])
        runner = stage.runners["pf-00000001"]
        assert stage.resolver.status == "connecting"

        await stage.follow_until(lambda: stage.supervisor.losses)
        assert stage.supervisor.losses == 1
        assert runner.state.value == "ACTIVE"
        assert (runner.reason or "").startswith("control plane not reachable since")
        assert stage.resolver.status.endswith("(it ended the stream)")
        assert [type(message) for message in stage.relay.take()] == [Snapshot, Barrier]
        stage.supervisor.state = PeerStatus(state="BACKOFF")
        assert stage.resolver.status.endswith("(it ended the stream; BACKOFF)")

        late = stage.add(entry(id="pf-00000002", name="late", service="late"))
        assert (late.state.value, late.reason) == ("WAITING", runner.reason)

        stage.streams = [[snapshot(1, web)]]
        stage.hear(snapshot(1, web), first=True)
        assert (runner.reason, stage.resolver.status) == (None, "connected")
        assert late.reason == "service prod/late does not exist"

    run(scene)


def test_a_control_plane_that_cannot_be_reached_is_tried_with_growing_pauses(home, monkeypatch):
    asked = []

    class Counted(Backoff):
        def delay(self, attempt, random):
            asked.append(attempt)
            return 0.0

    monkeypatch.setattr(module, "RECONNECT", Counted(1.0, 1.0))

    async def scene():
        down = [ControlPlaneLost("nobody listens")]
        stage = Stage(home, streams=[down, down, [snapshot(1)], down, down])
        await stage.follow_until(lambda: len(asked) == 4)
        assert asked == [0, 1, 0, 1], "none after a stream that spoke"

    run(scene)


def test_pings_say_nothing(home):
    async def scene():
        ping = EndpointsLine(type="ping", version=1)
        stage = Stage(home, entry(), streams=[[ping, snapshot(1), ping, ping]])
        await stage.follow_until(lambda: stage.supervisor.losses)
        assert stage.relay.take() == [Barrier(1)]

    run(scene)


def answers(home, script):
    """Run `script(stage, controlplane)` with the part that tells the control plane."""

    async def scene():
        (home / "instances/default").mkdir(parents=True)
        stage = Stage(home, entry(), entry(id="pf-00000002", name="task", type="task"))
        controlplane = ScriptedControlPlane(stage.paths.controlplane_socket)
        telling = asyncio.get_running_loop().create_task(stage.resolver.tell())

        async def posted(*expected):
            async with asyncio.timeout(5):
                while len(controlplane.posts) < len(expected):
                    await asyncio.sleep(0.005)
            await asyncio.sleep(0.02)
            assert controlplane.posts == list(expected)

        stage.posted = posted
        try:
            await script(stage, controlplane)
        finally:
            telling.cancel()
            await asyncio.gather(telling, return_exceptions=True)
            await asyncio.to_thread(controlplane.close)

    asyncio.run(scene())


BOTH = service(task(A, port(80, 29001)), task(B, port(80, 29002)))
A_LEAVES = service(task(A, port(80, 29001, draining=True), status="DEACTIVATING"), task(B, port(80, 29002)))


def test_seen_is_posted_once_the_loop_is_past_the_barrier(home):
    async def script(stage, controlplane):
        stage.hear(snapshot(7, BOTH), first=True)
        stage.hear(change(8, A_LEAVES))
        await stage.posted()
        stage.resolver.on_seen(Seen(1))
        await stage.posted(("seen", 7))
        stage.resolver.on_seen(Seen(2))
        await stage.posted(("seen", 7), ("seen", 8))

    answers(home, script)


def test_drained_is_posted_after_seen_and_after_every_forward(home):
    async def script(stage, controlplane):
        stage.hear(snapshot(1, BOTH), first=True)
        stage.hear(change(2, A_LEAVES))
        stage.resolver.on_drained(Drained("pf-00000001", A))
        stage.resolver.on_drained(Drained("pf-00000002", A))
        await stage.posted()
        stage.resolver.on_seen(Seen(1))
        stage.resolver.on_seen(Seen(2))
        await stage.posted(("seen", 2), ("drained", A))

    answers(home, script)


def test_drained_does_not_overtake_a_version_that_is_seen_while_another_is_posted(home, monkeypatch):
    async def script(stage, controlplane):
        real = watch.post_seen

        async def slow(paths, version):
            await real(paths, version)
            if version == 1:
                stage.resolver.on_drained(Drained("pf-00000001", A))
                stage.resolver.on_drained(Drained("pf-00000002", A))
                stage.resolver.on_seen(Seen(2))

        monkeypatch.setattr(watch, "post_seen", slow)
        stage.hear(snapshot(1, BOTH), first=True)
        stage.hear(change(2, A_LEAVES))
        stage.resolver.on_seen(Seen(1))
        await stage.posted(("seen", 1), ("seen", 2), ("drained", A))

    answers(home, script)


def test_a_forward_that_is_forgotten_is_not_waited_for(home):
    async def script(stage, controlplane):
        stage.hear(snapshot(1, A_LEAVES), first=True)
        stage.resolver.on_seen(Seen(1))
        stage.resolver.on_drained(Drained("pf-00000001", A))
        await stage.posted(("seen", 1))
        stage.resolver.forget("pf-00000002")
        await stage.posted(("seen", 1), ("drained", A))

    answers(home, script)


def test_a_task_in_no_forward_is_drained_when_it_is_seen(home):
    async def script(stage, controlplane):
        lonely = lone(task("c" * 32, port(80, 29003, draining=True), status="STOPPING"))
        stage.hear(snapshot(1, lonely), first=True)
        await stage.posted()
        stage.resolver.on_seen(Seen(1))
        await stage.posted(("seen", 1), ("drained", "c" * 32))

    answers(home, script)


def test_an_answer_for_a_stream_that_ended_is_not_given_to_the_next(home):
    async def script(stage, controlplane):
        stage.hear(snapshot(5, BOTH), first=True)
        stage.hear(snapshot(5, BOTH), first=True)
        stage.resolver.on_seen(Seen(1))
        await stage.posted()
        stage.resolver.on_seen(Seen(2))
        await stage.posted(("seen", 5))

    answers(home, script)


def test_the_next_stream_hears_again_who_is_drained(home):
    async def script(stage, controlplane):
        stage.runners.clear()
        stage.hear(snapshot(5, A_LEAVES), first=True)
        stage.resolver.on_seen(Seen(1))
        await stage.posted(("seen", 5), ("drained", A))
        stage.hear(snapshot(2, A_LEAVES), first=True)
        stage.resolver.on_seen(Seen(2))
        await stage.posted(("seen", 5), ("drained", A), ("seen", 2), ("drained", A))

    answers(home, script)


def test_an_answer_that_is_not_taken_is_not_the_end(home, monkeypatch, caplog):
    monkeypatch.setattr(watch, "ANSWER", 0.05)

    async def script(stage, controlplane):
        controlplane.answers["/_kecs/seen"] = (500, b"oh")
        stage.hear(snapshot(1, BOTH), first=True)
        stage.resolver.on_seen(Seen(1))
        async with asyncio.timeout(5):
            while "HTTP 500" not in caplog.text:
                await asyncio.sleep(0.005)
        controlplane.answers.clear()
        stage.hear(change(2, A_LEAVES))
        stage.resolver.on_seen(Seen(2))
        await stage.posted(("seen", 2))

    answers(home, script)

"""Who is asked by a probe, and what becomes of the answers; through tunnels by the real relay loop."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
import threading

import pytest
from tests.agent.shapes import A, B, entry, lone, port, service, short_home, snapshot, task
from tests.agent.test_routes import pod, resolve
from tests.net.carriers import DATA, OPEN, UNTOUCHED, FakeCarrier

from kecs.agent import prober as module
from kecs.agent.prober import Prober
from kecs.agent.relay import Relay
from kecs.agent.resolver import Resolver
from kecs.agent.runner import Runner
from kecs.forward import machine as m
from kecs.forward.spec import Probe
from kecs.net.messages import Carry, Snapshot, Stop
from kecs.paths import InstancePaths

BAD = "GET / answered 503"
SOON = Probe(type="http", interval=0.01, failures=2)
LATER = Probe(interval=3600.0, failures=1)


class Stage:
    """A prober whose probes are scripted."""

    def __init__(self, monkeypatch):
        self.answers = {}
        """Port -> what a probe there answers; None is a success."""
        self.asked = []
        self.changes = []
        self.changed = asyncio.Event()
        monkeypatch.setattr(module.probing, "ask", self.ask)
        self.prober = Prober(self, self, self.change)

    async def ask(self, _probe, host, number, *, carried=False):
        assert (host, carried) == ("127.0.0.1", False)
        self.asked.append(number)
        return self.answers.get(number)

    def change(self, forward):
        self.changes.append(forward)
        self.changed.set()

    def send(self, message):
        raise AssertionError(f"nothing goes through the loop: {message}")

    want = is_open = send

    async def next_change(self):
        async with asyncio.timeout(10):
            await self.changed.wait()
        self.changed.clear()

    async def until(self, condition):
        async with asyncio.timeout(10):
            while not condition():
                await asyncio.sleep(0.002)


@pytest.fixture
def play(monkeypatch):
    def run(scene):
        async def act():
            stage = Stage(monkeypatch)
            try:
                await scene(stage, stage.prober)
            finally:
                await stage.prober.close()
            assert [one for one in asyncio.all_tasks() if "probe" in one.get_name()] == []

        asyncio.run(act())

    return run


BOTH = service(task(A, port(80, 29001)), task(B, port(80, 29002)))


def ids(resolution):
    return [endpoint.id for endpoint in resolution.endpoints]


def test_without_a_probe_nothing_is_asked(play):
    async def scene(stage, prober):
        whole = resolve(entry(), BOTH)
        assert prober.filter(entry(), whole) is whole
        await asyncio.sleep(0)
        assert stage.asked == []

    play(scene)


def test_a_task_that_fails_is_out_until_it_answers(play):
    async def scene(stage, prober):
        forward = entry(probe=SOON)
        whole = resolve(forward, BOTH)
        stage.answers[29001] = BAD
        assert prober.filter(forward, whole) is whole, "it is in until it fails"
        await stage.next_change()
        assert ids(prober.filter(forward, whole)) == [B]
        assert stage.asked.count(29001) == 2, "twice in a row, as was said"
        stage.answers.clear()
        await stage.next_change()
        assert ids(prober.filter(forward, whole)) == [A, B]
        assert stage.changes == [forward.id] * 2

    play(scene)


def test_tasks_are_asked_as_they_come_and_no_longer_when_they_go(play):
    async def scene(stage, prober):
        forward = entry(probe=LATER)
        prober.filter(forward, resolve(forward, service(task(A, port(80, 29001)))))
        await stage.until(lambda: stage.asked == [29001])
        prober.filter(forward, resolve(forward, BOTH))
        await stage.until(lambda: stage.asked == [29001, 29002])
        prober.filter(forward, resolve(forward, service(task(B, port(80, 29002)))))
        prober.ask_now()
        await stage.until(lambda: stage.asked == [29001, 29002, 29002])

    play(scene)


def test_after_a_sleep_all_are_asked_at_once(play):
    async def scene(stage, prober):
        forward = entry(probe=LATER)
        whole = resolve(forward, BOTH)
        prober.filter(forward, whole)
        await stage.until(lambda: sorted(stage.asked) == [29001, 29002])
        stage.answers = {29001: BAD}
        prober.ask_now()
        await stage.next_change()
        assert ids(prober.filter(forward, whole)) == [B]

    play(scene)


def test_another_probe_begins_anew(play):
    async def scene(stage, prober):
        stage.answers[29001] = BAD
        whole = resolve(entry(), BOTH)
        prober.filter(entry(probe=LATER), whole)
        await stage.next_change()
        assert ids(prober.filter(entry(probe=LATER), whole)) == [B]
        assert ids(prober.filter(entry(probe=Probe(interval=3600.0)), whole)) == [A, B]
        assert prober.filter(entry(), whole) is whole

    play(scene)


def test_one_that_was_forgotten_is_not_asked(play):
    async def scene(stage, prober):
        prober.filter(entry(probe=LATER), resolve(entry(), BOTH))
        prober.forget(entry().id)
        prober.forget("pf-ffffffff")
        prober.ask_now()
        await asyncio.sleep(0)
        assert stage.asked == []

    play(scene)


def test_the_resolver_hands_on_what_is_left_and_again_at_each_change(monkeypatch):
    home = short_home()

    async def act():
        sent = []

        class Loop:
            def send(self, message):
                sent.append(message)

        stage = Stage(monkeypatch)
        stage.answers[29001] = BAD
        forward = entry(probe=LATER)
        runner = Runner(
            forward, Loop(), addresses=[], log_file=home / "prod-web.log", on_change=lambda _runner: None
        )
        resolver = Resolver(
            InstancePaths(home, "default"), Loop(), {runner.id: runner}, None, prober=stage.prober
        )
        runner.adopt(())
        resolver.learn(snapshot(1, BOTH))
        assert [len(each.endpoints) for each in sent if isinstance(each, Snapshot)] == [2]
        await stage.next_change()
        resolver.again(runner.id)
        assert [each.id for each in sent[-1].endpoints] == [B]
        row = runner.row()
        assert (row.state, row.reason) == ("ACTIVE", f"1 of 2 tasks fails its probe: {BAD}")
        stage.answers[29002] = BAD
        stage.prober.ask_now()
        await stage.next_change()
        resolver.again(runner.id)
        assert sent[-1].endpoints == ()
        assert (runner.state, runner.reason) == (m.State.WAITING, f"2 of 2 tasks fail their probe: {BAD}")
        resolver.forget(runner.id)
        runner.close()
        await stage.prober.close()

    try:
        asyncio.run(act())
    finally:
        shutil.rmtree(home)


# Through a tunnel

NAME = f"ns/web-{A[:4]}"
ONLY = lone(pod(A))


class Tunnels:
    def __init__(self):
        self.wanted = {}
        self.opened = True

    def want(self, forward, names):
        self.wanted[forward] = set(names)

    def is_open(self, name):
        assert name == NAME
        return self.opened


class Far:
    """The far end of the tunnel: it answers each stream as it is told to, on a thread."""

    def __init__(self, carrier):
        self.status = 200
        """None: nobody listens in the pod."""
        self.ports = []
        self._far = carrier.far
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self):
        with contextlib.suppress(OSError, AssertionError):
            while True:
                kind, channel, body = self._far.heard()
                if kind == OPEN:
                    self.ports.append(int(body))
                    if self.status is None:
                        self._far.say(UNTOUCHED, channel, b"connection refused in the pod")
                elif kind == DATA and self.status is not None:
                    answer = f"HTTP/1.1 {self.status} X\r\nContent-Length: 0\r\n\r\n"
                    self._far.say(DATA, channel, answer.encode())

    def close(self):
        self._far.sock.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._far.sock.close()


@contextlib.asynccontextmanager
async def tunnelled():
    """A relay loop with a tunnel to the task A, what is kept open, a prober, and an event for changes."""
    relay, tunnels, changed = Relay(), Tunnels(), asyncio.Event()
    relay.start()
    carrier = FakeCarrier()
    far = Far(carrier)
    relay.send(Carry(NAME, carrier))
    prober = Prober(relay, tunnels, lambda _forward: changed.set())
    try:
        yield relay, tunnels, far, prober, changed
    finally:
        await prober.close()
        relay.send(Stop())
        relay.join()
        far.close()


async def soon(changed):
    async with asyncio.timeout(10):
        await changed.wait()
    changed.clear()


@pytest.mark.parametrize("kind", ["http", "tcp"])
def test_a_task_behind_a_tunnel_is_asked_through_it(kind, monkeypatch):
    monkeypatch.setattr(module.probing, "SETTLE", 0.05)
    bad = "a connect: connection reset by peer" if kind == "tcp" else BAD
    forward = entry(type="task", probe=Probe(type=kind, interval=0.1, failures=1))

    async def act():
        async with tunnelled() as (relay, tunnels, far, prober, changed):
            far.status = None if kind == "tcp" else 503
            whole = resolve(forward, ONLY)
            assert prober.filter(forward, whole) is whole
            await soon(changed)
            now = prober.filter(forward, whole)
            assert now.endpoints == ()
            assert now.verdict == m.NoEndpoint(f"its only task fails its probe: {bad}")
            assert list(tunnels.wanted.values()) == [{NAME}], "the forward itself lets the tunnel go"
            far.status = 200
            await soon(changed)
            assert prober.filter(forward, whole) is whole
            assert set(far.ports) == {80}
            prober.forget(forward.id)
            await prober.close()
            assert list(tunnels.wanted.values()) == [set()]
            assert await relay.stats() == {}, "no forward of its own is left"

    asyncio.run(act())


def test_a_tunnel_that_is_broken_says_nothing_of_the_task(monkeypatch):
    forward = entry(type="task", probe=Probe(type="http", interval=0.02, failures=1))

    async def act():
        async with tunnelled() as (_relay, tunnels, far, prober, changed):
            far.status = 503
            whole = resolve(forward, ONLY)
            prober.filter(forward, whole)
            await soon(changed)
            assert prober.filter(forward, whole).endpoints == ()
            tunnels.opened = False
            await soon(changed)
            assert prober.filter(forward, whole) is whole, "a node's address may still lead there"

    asyncio.run(act())

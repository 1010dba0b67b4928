"""The life of a forward, as tables and as random histories."""

from __future__ import annotations

import typing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kecs.forward import machine as m
from kecs.forward.machine import ForwardMachine, State

TAKEN = "port 8080 is taken by nginx (pid 12)"
NONE = "no task of prod/web is ready (2 PENDING)"
LOST = "control plane not reachable since 14:00:00"


def play(*script, ended=None, attempts=0):
    """Feed events at 0, 1, 2 … seconds; each must give the effects beside it."""
    machine = ForwardMachine(lambda: 0.0, ended=ended, attempts=attempts)
    for now, (event, *effects) in enumerate(script):
        assert machine.handle(event, float(now)) == effects, f"at {now}, {event}"
    return machine


def changed(state, reason=None):
    return m.Changed(State(state), reason)


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(
            [
                (m.EndpointsReady(),),
                (m.Bound(), changed("ACTIVE")),
                (m.EndpointsReady(),),
                (m.NoEndpoint(NONE), changed("WAITING", NONE)),
                (m.NoEndpoint("another"), changed("WAITING", "another")),
                (m.EndpointsReady(), changed("ACTIVE")),
                (m.Stopped(), m.Close(connections=True), changed("ENDED", "it was stopped")),
            ],
            id="started with an endpoint, loses it, has it back, is stopped",
        ),
        pytest.param(
            [
                (m.Started(), m.Bind()),
                (m.Bound(), changed("WAITING", m.NEVER_HEARD)),
                (m.ControlPlaneLost(LOST), changed("WAITING", LOST)),
                (m.NoEndpoint(NONE), changed("WAITING", NONE)),
                (m.EndpointsReady(), changed("ACTIVE")),
            ],
            id="restored before anybody told it anything",
        ),
        pytest.param(
            [
                (m.Bound(), changed("WAITING", m.NEVER_HEARD)),
                (m.EndpointsReady(), changed("ACTIVE")),
                (m.ControlPlaneLost(LOST), changed("ACTIVE", LOST)),
                (m.ControlPlaneLost(LOST),),
                (m.EndpointsReady(), changed("ACTIVE")),
            ],
            id="serves on without a control plane, and says so",
        ),
        pytest.param(
            [
                (m.Started(), m.Bind()),
                (m.BindFailed(TAKEN), m.RetryAt(1.5), changed("FAILED", TAKEN)),
                (m.RetryDue(), m.Bind()),
                (m.BindFailed(TAKEN), m.RetryAt(4.0)),
                (m.EndpointsReady(),),
                (m.RetryDue(), m.Bind()),
                (m.Bound(), m.CancelRetry(), changed("ACTIVE")),
                (m.RetryDue(),),
            ],
            id="a taken port is tried again, later each time, and never moved",
        ),
        pytest.param(
            [
                (m.Started(), m.Bind()),
                (m.BindFailed(TAKEN), m.RetryAt(1.5), changed("FAILED", TAKEN)),
                (m.BindFailed("another"), m.RetryAt(3.0), changed("FAILED", "another")),
                (m.Bound(), m.CancelRetry(), changed("WAITING", m.NEVER_HEARD)),
            ],
            id="another holder is another reason",
        ),
        pytest.param(
            [
                (m.Bound(), changed("WAITING", m.NEVER_HEARD)),
                (
                    m.TargetGone("task 1 is gone"),
                    m.Close(connections=False),
                    changed("ENDED", "task 1 is gone"),
                ),
                (m.EndpointsReady(),),
                (m.TargetGone("again"),),
                (m.ControlPlaneLost(LOST),),
                (m.RetryDue(),),
                (m.Stopped(), m.Close(connections=True)),
            ],
            id="a task that is gone ends its forward for good",
        ),
        pytest.param(
            [
                (m.Started(), m.Bind()),
                (m.BindFailed(TAKEN), m.RetryAt(1.5), changed("FAILED", TAKEN)),
                (m.TargetGone("gone"), m.CancelRetry(), changed("ENDED", "gone")),
                (m.Bound(), m.Close(connections=True)),
            ],
            id="a port that comes too late is given back",
        ),
        pytest.param(
            [
                (m.Started(), m.Bind()),
                (m.BindFailed(TAKEN), m.RetryAt(1.5), changed("FAILED", TAKEN)),
                (m.Stopped(), m.CancelRetry(), m.Close(connections=True), changed("ENDED", "it was stopped")),
            ],
            id="a stop closes the connections of a port that was left, too",
        ),
    ],
)
def test_histories(script):
    play(*script)


def test_it_gives_up_when_its_retries_are_used_up_and_says_what_to_do():
    given_up = f"{TAKEN}; given up after 2 retries: free the port, then start it again"
    machine = play(
        (m.Started(), m.Bind()),
        (m.BindFailed(TAKEN), m.RetryAt(1.5), changed("FAILED", TAKEN)),
        (m.RetryDue(), m.Bind()),
        (m.BindFailed(TAKEN), m.RetryAt(4.0)),
        (m.RetryDue(), m.Bind()),
        (m.BindFailed(TAKEN), m.CancelRetry(), changed("FAILED", given_up)),
        (m.EndpointsReady(),),
        (m.RetryDue(), m.Bind()),  # a person's start, or a wake from sleep
        (m.BindFailed(TAKEN), m.CancelRetry()),
        (m.RetryDue(), m.Bind()),
        (m.Bound(), m.CancelRetry(), changed("ACTIVE")),
        attempts=2,
    )

    assert machine.state is State.ACTIVE


def test_one_retry_is_not_retries():
    machine = play(attempts=1)
    machine.handle(m.Started(), 0.0)
    machine.handle(m.BindFailed(TAKEN), 0.0)
    machine.handle(m.BindFailed(TAKEN), 1.0)

    assert machine.reason == f"{TAKEN}; given up after 1 retry: free the port, then start it again"


def test_the_backoff_begins_anew_once_it_was_bound():
    machine = play((m.Started(), m.Bind()))
    for _ in range(10):
        machine.handle(m.BindFailed(TAKEN), 0.0)
    assert machine.handle(m.BindFailed(TAKEN), 100.0)[0] == m.RetryAt(100.0 + m.BIND_RETRY.cap)
    machine.handle(m.Bound(), 100.0)

    assert machine._failures == 0


def test_one_that_ended_before_stays_ended():
    machine = play((m.EndpointsReady(),), ended="task 1 is gone")

    assert (machine.state, machine.reason) == (State.ENDED, "task 1 is gone")


def test_an_impossible_event_is_a_mistake_and_changes_nothing():
    machine = play((m.Bound(), changed("WAITING", m.NEVER_HEARD)))
    with pytest.raises(m.ImpossibleEvent, match="Bound in WAITING"):
        machine.handle(m.Bound(), 0.0)

    assert machine.state is State.WAITING


def test_the_table_answers_all_that_comes_from_outside_in_every_state():
    """Only what the runner itself does (binding, timers) is impossible in some states."""
    own = {m.Started, m.Bound, m.BindFailed, m.RetryDue}
    missing = {
        (state, event)
        for state in State
        for event in typing.get_args(m.Event)
        if event not in own and (state, event) not in m.TRANSITIONS
    }

    assert missing == set()


class World:
    """What a runner is to the machine: a port that may be taken, a timer, a listener."""

    def __init__(self, attempts=0):
        self.machine = ForwardMachine(lambda: 0.5, attempts=attempts)
        self.attempts = attempts
        self.retries = 0
        """Since it last could be bound, by the timer alone."""
        self.now = 0.0
        self.taken = False
        self.listening = False
        self.opened = 0
        self.timer = None
        self.log = []

    def feed(self, event):
        before = (self.machine.state, self.machine.reason)
        told = None
        for effect in self.machine.handle(event, self.now):
            match effect:
                case m.Bind():
                    assert not self.listening, "the listener never flaps"
                    if self.taken:
                        self.feed(m.BindFailed(TAKEN))
                    else:
                        self.listening = True
                        self.retries = 0
                        self.opened += 1
                        self.feed(m.Bound())
                case m.Close():
                    assert self.machine.state is State.ENDED, "only an end closes the listener"
                    self.listening = False
                case m.RetryAt(time):
                    assert self.attempts == 0 or self.retries < self.attempts, "it gives up in the end"
                    assert self.now < time <= self.now + m.BIND_RETRY.cap
                    self.timer = time
                case m.CancelRetry():
                    self.timer = None
                case m.Changed(state, reason):
                    told = (state, reason)
        now = (self.machine.state, self.machine.reason)
        if now != before and told is not None:
            assert told == now
        assert self.listening == (self.machine.state in (State.ACTIVE, State.WAITING))
        assert (self.machine.reason is None) <= (self.machine.state in (State.ACTIVE, State.STARTING))

    def pass_time(self, seconds):
        self.now += seconds
        if self.timer is not None and self.timer <= self.now:
            self.timer = None
            self.retries += 1
            self.feed(m.RetryDue())


STEPS = st.one_of(
    st.just(m.EndpointsReady()),
    st.builds(m.NoEndpoint, st.sampled_from([NONE, "service prod/web does not exist"])),
    st.just(m.ControlPlaneLost(LOST)),
    st.booleans(),  # whether the port is taken from now on
    st.floats(0, 20),  # seconds that pass
    st.just(m.RetryDue()),
)
ENDS = st.sampled_from([None, m.TargetGone("task 1 is gone"), m.Stopped()])


@given(
    st.booleans(),
    st.integers(0, 3),
    st.lists(STEPS, max_size=40),
    ENDS,
    st.lists(STEPS, max_size=10),
)
def test_every_history_settles(taken, attempts, history, end, after):
    """Whatever happened: a free port and a ready endpoint make it ACTIVE; an end is an end.

    One that gave up waits for no timer, says so, and needs one word of a person.
    """
    world = World(attempts)
    world.taken = taken
    world.feed(m.Started())
    for step in [*history, end, *after]:
        match step:
            case None:
                pass
            case bool():
                world.taken = step
            case float():
                world.pass_time(step)
            case m.RetryDue():  # a person's `start` does not wait for the timer
                if world.machine.state is not State.STARTING:
                    world.feed(step)
            case _:
                world.feed(step)
    world.taken = False
    world.pass_time(m.BIND_RETRY.cap)
    if world.machine.state is State.FAILED:
        assert attempts, "only one with a limit gives up"
        assert world.timer is None
        assert "given up after" in world.machine.reason
        world.feed(m.RetryDue())
    world.feed(m.EndpointsReady())

    assert world.machine.state is (State.ACTIVE if end is None else State.ENDED)
    assert world.opened <= 1
    assert world.timer is None

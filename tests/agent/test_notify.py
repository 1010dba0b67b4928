"""When a person is told, by a clock in the test's hand: nothing of a moment, little of a flapping task."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st
from tests.agent.shapes import entry

from kecs.agent.notify import PATIENCE, WINDOW, Coalescer, Notice, event_of
from kecs.forward.machine import State

ACTIVE, WAITING, FAILED, ENDED = State.ACTIVE, State.WAITING, State.FAILED, State.ENDED
GONE = "no task of prod/web is ready (it has none)"


class Clock:
    """Plays changes at moments, and keeps what is told and when."""

    def __init__(self):
        self.coalescer = Coalescer()
        self.now = 0.0
        self.told = []

    def at(self, moment, state=None, reason=None):
        """Let the time pass, with each notice at its own moment; then the state changes."""
        while (when := self.coalescer.next()) is not None and when <= moment:
            self.now = max(self.now, when)
            self._keep(self.coalescer.due(self.now))
        self.now = moment
        if state is not None:
            reason = reason or (None if state is ACTIVE else GONE)
            self._keep(self.coalescer.took(state, reason, moment))

    def _keep(self, notices):
        self.told += [(self.now, notice) for notice in notices]

    @property
    def brief(self):
        return [(when, notice.kind, notice.left_out) for when, notice in self.told]


def test_what_does_not_serve_for_a_moment_is_no_news():
    clock = Clock()
    clock.at(0, ACTIVE)
    clock.at(10, WAITING)
    clock.at(10 + PATIENCE - 0.1, ACTIVE)
    clock.at(100)

    assert clock.told == []


def test_an_interruption_is_told_after_two_seconds_and_so_is_its_end():
    clock = Clock()
    clock.at(0, ACTIVE)
    clock.at(10, WAITING)
    clock.at(15, ACTIVE)
    clock.at(100)

    assert clock.told == [
        (12, Notice("reconnecting", WAITING, GONE)),
        (15, Notice("reconnected", ACTIVE, None, seconds=5)),
    ]


def test_one_that_never_served_is_not_reconnecting():
    clock = Clock()
    clock.at(0, WAITING)
    clock.at(100, ACTIVE)
    clock.at(200)

    assert clock.told == []


def test_another_reason_is_no_other_interruption():
    clock = Clock()
    clock.at(0, ACTIVE)
    clock.at(10, WAITING)
    clock.at(11, WAITING, "assignPublicIp is off")
    clock.at(100, WAITING, "service prod/web does not exist")
    clock.at(200)

    assert clock.told == [(12, Notice("reconnecting", WAITING, "assignPublicIp is off"))]


def test_a_flapping_task_is_told_of_once_in_a_window_with_a_count_of_what_was_left_out():
    clock = Clock()
    clock.at(0, ACTIVE)
    for start in range(10, 70, 5):  # 12 interruptions of 3 s in a minute
        clock.at(start, WAITING)
        clock.at(start + 3, ACTIVE)
    clock.at(1000)

    assert clock.brief == [
        (12, "reconnecting", 0),
        (13, "reconnected", 0),
        (42, "reconnecting", 5),  # those at 15, 20, 25, 30 and 35; the one at 40 lasts
        (43, "reconnected", 0),
        (72, "reconnected", 5),  # it serves since 68, and that is worth one word
    ]


def test_flapping_faster_than_anybody_is_told_of_is_quiet():
    clock = Clock()
    clock.at(0, ACTIVE)
    for start in range(10, 60, 2):
        clock.at(start, WAITING)
        clock.at(start + 1, ACTIVE)
    clock.at(1000)

    assert clock.told == []


def test_an_interruption_that_began_in_a_window_and_lasts_is_told_at_its_end():
    clock = Clock()
    clock.at(0, ACTIVE)
    clock.at(10, WAITING)
    clock.at(13, ACTIVE)
    clock.at(20, WAITING)
    clock.at(100, ACTIVE)

    assert clock.brief == [
        (12, "reconnecting", 0),
        (13, "reconnected", 0),
        (42, "reconnecting", 0),
        (100, "reconnected", 0),
    ]
    assert clock.told[-1][1].seconds == 80


def test_a_failure_is_told_at_once_and_once_however_often_it_is_tried_again():
    clock = Clock()
    clock.at(0, FAILED, "port 80 is taken by nginx (pid 1)")
    clock.at(1, FAILED, "port 80 is taken by nginx (pid 2)")
    clock.at(50, WAITING)
    clock.at(60, ACTIVE)

    assert clock.told == [
        (0, Notice("failed", FAILED, "port 80 is taken by nginx (pid 1)")),
        (60, Notice("reconnected", ACTIVE, None)),
    ]


def test_the_end_of_a_forward_is_a_failure_too():
    clock = Clock()
    clock.at(0, ACTIVE)
    clock.at(10, ENDED, "task aaaaaaaa is STOPPED: Essential container in task exited")
    clock.at(100)

    assert clock.told == [
        (10, Notice("failed", ENDED, "task aaaaaaaa is STOPPED: Essential container in task exited"))
    ]


histories = st.lists(
    st.tuples(st.integers(1, 320).map(lambda eighths: eighths / 8), st.sampled_from([ACTIVE, WAITING])),
    max_size=60,
)


@given(histories)
def test_whatever_happens_nobody_is_flooded_and_everybody_believes_the_truth_in_the_end(history):
    clock = Clock()
    interruptions, down_at = 0, None
    moment, served = 0.0, False
    for after, state in history:
        moment += after
        clock.at(moment, state)
        if state is ACTIVE:
            interruptions += down_at is not None and moment - down_at >= PATIENCE
            served, down_at = True, None
        elif served and down_at is None:
            down_at = moment
    clock.at(moment + 10 * WINDOW)
    interruptions += down_at is not None

    assert clock.coalescer.next() is None, "it settles"
    for kind in ("reconnecting", "reconnected"):
        moments = [when for when, notice in clock.told if notice.kind == kind]
        if kind == "reconnecting":
            assert all(b - a >= WINDOW for a, b in itertools.pairwise(moments))
        assert sum(1 for a, b in zip(moments, moments[2:], strict=False) if b - a < WINDOW) == 0
    told = sum((notice.kind == "reconnecting") + notice.left_out for _, notice in clock.told)
    assert told == interruptions, "each is told, or counted"
    if clock.told:
        assert (clock.told[-1][1].kind == "reconnecting") == (down_at is not None)
    else:
        assert interruptions == 0


@given(
    st.lists(
        st.tuples(
            st.integers(1, 320).map(lambda eighths: eighths / 8),
            st.sampled_from([ACTIVE, WAITING, FAILED, ENDED]),
            st.sampled_from(["a", "b"]),
        ),
        max_size=60,
    )
)
def test_failures_and_ends_among_all_that_settle_too(history):
    clock = Clock()
    moment, state = 0.0, None
    for after, state, reason in history:
        moment += after
        clock.at(moment, state, reason)
    clock.at(moment + 10 * WINDOW)

    assert clock.coalescer.next() is None
    kinds = [notice.kind for _, notice in clock.told]
    if state in (FAILED, ENDED):
        assert kinds[-1] == "failed"
    if state is ACTIVE:
        assert not kinds or kinds[-1] == "reconnected"
    for first, second in itertools.pairwise(kinds):
        assert (first, second) != ("reconnecting", "reconnecting"), "each is answered"


def test_what_is_sent_names_the_forward_and_says_it_in_a_sentence():
    notice = Notice("reconnecting", WAITING, GONE, left_out=5)
    event = event_of(notice, entry(), instance="default", time=1.5)

    assert (event.event, event.forward, event.target, event.local_port) == (
        "reconnecting",
        "prod-web",
        "prod/web:80",
        20001,
    )
    assert (event.state, event.reason, event.left_out, event.instance, event.time) == (
        "WAITING",
        GONE,
        5,
        "default",
        1.5,
    )
    assert event.text == (
        f"prod/web:80 on port 20001 is waited for: {GONE} (5 more interruptions before that)"
    )
    again = event_of(Notice("reconnected", ACTIVE, None, seconds=5.04), entry(), instance="", time=0)
    assert (again.text, again.seconds) == ("prod/web:80 on port 20001 is served again after 5 s", 5.0)
    failed = event_of(Notice("failed", FAILED, "port taken", left_out=1), entry(), instance="", time=0)
    assert failed.text == (
        "prod/web:80 on port 20001 is FAILED: port taken (1 more interruption before that)"
    )

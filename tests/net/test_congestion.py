"""When clients of one carrier do not read: who holds up whom, and when that ends."""

from __future__ import annotations

import math
from dataclasses import dataclass

from kecs.net.congestion import CAP, EASE, HIGH, LOW, MOST, STARVED, Congestion


@dataclass(eq=False)
class Reader:
    buffered: int = 0
    waiting_since: float = math.inf


def test_a_carrier_is_congested_from_the_high_mark_until_below_the_low_one():
    congestion, reader = Congestion(), Reader()
    seen = []
    for buffered in (HIGH, HIGH + 1, HIGH, LOW + 1, LOW, HIGH):
        reader.buffered = buffered
        congestion.note(reader, [reader], 0.0)
        seen.append(congestion.congested)

    assert seen == [False, True, True, True, False, False]


def test_it_is_not_read_from_the_cap_until_some_of_that_is_taken():
    congestion, reader = Congestion(), Reader()
    seen = []
    for buffered in (CAP - 1, CAP, CAP - EASE + 1, CAP - EASE, CAP):
        reader.buffered = buffered
        congestion.note(reader, [reader], 0.0)
        seen.append(congestion.paused)

    assert seen == [False, True, True, False, True]


def test_the_end_of_the_slow_one_lets_the_others_go_on():
    congestion, one, two = Congestion(), Reader(CAP), Reader(HIGH + 1)
    for each in (one, two):
        congestion.note(each, [one, two], 0.0)
    congestion.over(one, [two], 0.0)
    assert (congestion.congested, congestion.paused) == (True, False)
    congestion.over(two, [], 0.0)
    assert not congestion.congested


def test_nobody_has_to_go_while_nobody_waits():
    congestion, slow, idle = Congestion(), Reader(CAP), Reader()
    congestion.note(slow, [slow, idle], 10.0)

    assert congestion.culprit([slow, idle], 1000.0) is None
    assert congestion.culprit([slow], 1000.0) is None


def test_while_others_wait_more_is_read_for_them():
    congestion, slow, other = Congestion(), Reader(CAP), Reader(waiting_since=5.0)
    congestion.note(slow, [slow, other], 10.0)
    assert not congestion.paused
    other.waiting_since = math.inf
    congestion.look([slow, other], 10.0)
    assert congestion.paused
    other.waiting_since = 11.0
    congestion.look([slow, other], 11.0)
    assert not congestion.paused
    slow.buffered = MOST
    congestion.note(slow, [slow, other], 12.0)
    assert congestion.paused


def test_who_does_not_read_has_to_go_when_another_has_waited_too_long():
    congestion, slow, other = Congestion(), Reader(MOST), Reader(waiting_since=5.0)
    congestion.note(slow, [slow, other], 10.0)

    assert congestion.culprit([other, slow], 10.0 + STARVED - 0.1) is None, "it was read until then"
    assert congestion.culprit([other, slow], 10.0 + STARVED) is slow


def test_who_reads_at_all_stays():
    """Each time that it is read again the others get on, too."""
    congestion, slow, other = Congestion(), Reader(MOST), Reader(waiting_since=5.0)
    now = 10.0
    for _ in range(10):
        slow.buffered = MOST
        congestion.note(slow, [slow, other], now)
        assert congestion.culprit([other, slow], now + STARVED - 0.1) is None
        slow.buffered = MOST - EASE
        congestion.note(slow, [slow, other], now + STARVED - 0.1)
        now += STARVED

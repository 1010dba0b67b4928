"""A machine that slept: noticed by two clocks, and told with how long."""

from __future__ import annotations

import asyncio
import sys
import time

import pytest

from kecs.client import wake
from kecs.client.wake import Wake, asleep_so_far


class OverError(Exception):
    """The test has seen enough."""


def told(*readings):
    """Play these readings of the seconds slept so far; return what was told."""
    left = list(readings)
    heard = []

    async def awoke(seconds):
        heard.append(seconds)

    async def pause(seconds):
        assert seconds == wake.LOOK
        if not left:
            raise OverError

    with pytest.raises(OverError):
        asyncio.run(Wake(awoke, asleep=lambda: left.pop(0), pause=pause).watch())
    return heard


def test_a_sleep_is_told_once_with_its_length():
    assert told(100.0, 100.0, 3700.0, 3700.0, 3700.0, 3760.0) == [3600.0, 60.0]


def test_a_nap_is_not_worth_it_and_neither_is_what_the_clocks_tremble():
    assert told(100.0, 100.2, 100.9, 100.1, 100.3) == []


def test_where_it_cannot_be_known_nothing_is_told():
    assert told(None, None, None) == []


def test_a_machine_that_is_awake_sleeps_no_more():
    before = asleep_so_far()

    assert before is not None
    assert before >= 0
    assert asleep_so_far() == pytest.approx(before, abs=wake._PROMPT)


def test_on_linux_it_is_the_clock_that_runs_in_sleep_that_is_ahead(monkeypatch):
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(time, "CLOCK_BOOTTIME", 7, raising=False)
    monkeypatch.setattr(time, "clock_gettime", {7: 5000.0}.get)
    monkeypatch.setattr(time, "monotonic", lambda: 1400.0)

    assert asleep_so_far() == 3600.0


def test_on_macos_it_is_its_own_monotonic_clock(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(time, "clock_gettime", {time.CLOCK_MONOTONIC: 5000.0}.get)
    monkeypatch.setattr(time, "monotonic", lambda: 1400.0)

    assert asleep_so_far() == 3600.0


def test_a_process_that_was_held_up_between_two_clocks_reads_them_again():
    """SIGSTOP between two readings must not look like a sleep."""
    awake = iter([10.0, 500.0, 500.0, 500.001])
    always = iter([500.0, 500.0])

    assert wake._between(lambda: next(always), lambda: next(awake)) == 0.0

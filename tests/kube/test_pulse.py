"""When a tunnel is asked for a sign of life, when it is suspected, when it is given up."""

from __future__ import annotations

import pytest

from kecs.kube.pulse import ANSWER, LOOK, PING_EVERY, QUIET, SUSPECT, Pulse

NOTICED = PING_EVERY + ANSWER


def follow(pulse: Pulse, now: float, until: float, *, answers: float | None = None) -> float:
    """Look whenever it is time to; an answer takes `answers` seconds. Return when it was lost, or `until`."""
    answer_at = None
    while now < until:
        if answer_at is not None and answer_at <= now:
            pulse.heard(answer_at)
            answer_at = None
        if pulse.lost(now, reached=0, paused=False):
            return now
        if pulse.due(now):
            pulse.asked(now, reached=0, behind=0)
            answer_at = now + answers if answers is not None else None
        now = max(now + 0.001, pulse.next_look(now))
    return until


@pytest.mark.parametrize("answers", [0.001, 0.3, 0.8, 2.0])
def test_one_that_answers_is_never_lost(answers):
    assert follow(Pulse(100.0), 100.0, 400.0, answers=answers) == 400.0


@pytest.mark.parametrize("answers", [0.001, 0.3, 0.49, 0.6])
def test_silence_is_noticed_in_time_whenever_it_begins(answers):
    """Also when the last word was the answer to a question, and came just after a look."""
    pulse = Pulse(100.0)
    pulse.asked(102.0, reached=0, behind=0)
    assert pulse.next_look(102.0) == 102.0 + LOOK
    pulse.heard(102.0 + answers)
    look = 102.0 + LOOK * (1 + answers // LOOK)

    lost = follow(pulse, look, 200.0)
    assert lost - (102.0 + answers) == pytest.approx(NOTICED, abs=0.01)
    assert NOTICED < 5.0


def test_new_connections_are_kept_from_one_that_owes_an_answer():
    pulse = Pulse(100.0)
    assert not pulse.due(100.0 + QUIET / 2, QUIET)
    assert pulse.due(100.0 + QUIET, QUIET)
    pulse.asked(101.0, reached=0, behind=0)

    assert not pulse.due(105.0)
    assert not pulse.silent(101.0 + SUSPECT - 0.01)
    assert pulse.silent(101.0 + SUSPECT)
    assert pulse.heard(102.5)
    assert not pulse.silent(200.0)
    assert not pulse.heard(102.6)


def test_a_question_behind_an_upload_that_gets_on_waits_with_it():
    pulse = Pulse(100.0)
    pulse.asked(102.0, reached=1000, behind=5000)
    now = 102.0
    for reached in (2000, 3000, 4000):
        now += ANSWER
        assert not pulse.lost(now, reached=reached, paused=False)
        assert not pulse.lost(now + LOOK, reached=reached, paused=False)

    assert pulse.lost(now + ANSWER, reached=4000, paused=False), "it does not get on any more"


def test_one_that_is_not_read_is_not_judged():
    pulse = Pulse(100.0)
    pulse.asked(102.0, reached=0, behind=0)

    assert not pulse.lost(102.0 + ANSWER, reached=0, paused=True)
    assert pulse.lost(102.0 + 2 * ANSWER, reached=0, paused=False)

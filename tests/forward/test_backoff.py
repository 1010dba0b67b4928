"""Delays between tries."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kecs.forward.backoff import Backoff


def test_delays_double_up_to_the_cap():
    backoff = Backoff(first=1.0, cap=30.0, jitter=0.0)

    assert [backoff.delay(n, lambda: 0.9) for n in range(7)] == [1, 2, 4, 8, 16, 30, 30]


def test_jitter_shortens_only():
    backoff = Backoff(first=1.0, cap=30.0, jitter=0.25)

    assert backoff.delay(2, lambda: 0.0) == 4.0
    assert backoff.delay(2, lambda: 1.0) == 3.0


@given(
    st.floats(0.001, 10),
    st.floats(0.001, 100),
    st.floats(1, 10),
    st.floats(0, 1),
    st.integers(0, 10**9),
    st.floats(0, 1, exclude_max=True),
)
def test_a_delay_is_never_negative_nor_over_the_cap(first, cap, factor, jitter, attempt, dice):
    delay = Backoff(first, cap, factor, jitter).delay(attempt, lambda: dice)

    assert 0 <= delay <= cap

"""The choice of an endpoint."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kecs.forward.balance import choose


@dataclass
class Place:
    open: int
    draining: bool = False


@pytest.mark.parametrize(
    ("places", "turn", "chosen"),
    [
        ([], 0, -1),
        ([Place(0, draining=True)], 0, -1),
        ([Place(9)], 7, 0),
        ([Place(2), Place(1), Place(2)], 0, 1),  # the fewest
        ([Place(0), Place(0), Place(0)], 1, 1),  # in turn among equals
        ([Place(0), Place(0), Place(0)], 3, 0),  # round the end
        ([Place(5), Place(0, draining=True), Place(6)], 1, 0),  # never a draining one
    ],
)
def test_choice(places, turn, chosen):
    assert choose(places, turn) == chosen


def test_short_connections_go_round():
    """When each connection is over before the next comes, all places get the same share."""
    places, turn, chosen = [Place(0), Place(0), Place(0)], 0, []
    for _ in range(6):
        index = choose(places, turn)
        turn = index + 1
        chosen.append(index)

    assert chosen == [0, 1, 2, 0, 1, 2]


@given(
    st.lists(st.builds(Place, open=st.integers(0, 5), draining=st.booleans()), max_size=8),
    st.integers(0, 20),
    st.integers(0, 40),
)
def test_long_connections_are_spread_evenly(places, turn, more):
    """After any number of new connections no place has more than one above another that takes them."""
    for place in places:
        place.open = 0
    for _ in range(more):
        index = choose(places, turn)
        if index < 0:
            assert all(place.draining for place in places)
            return
        turn = index + 1
        places[index].open += 1

    taking = [place.open for place in places if not place.draining]
    assert sum(taking) == more or not places
    assert not taking or max(taking) - min(taking) <= 1

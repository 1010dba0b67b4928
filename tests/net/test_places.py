"""Who takes the next connection when ways are lost: no client loses time, and none waits for nothing."""

from __future__ import annotations

import errno

import pytest

from kecs.net.messages import Endpoint
from kecs.net.places import LAST_RESORT, LONG_ASIDE, Place, Places

NODE = Endpoint("node/a", "192.0.2.1", 30080, patience=1.0)
TUNNEL = Endpoint("task", "", 8080, rank=1, carrier="ns/pod")
TASK = Endpoint("task", "127.0.0.1", 8080)


def places(*endpoints: Endpoint, carriers: set[str] | None = None) -> Places:
    made = Places(carriers or set())
    made.replace(endpoints)
    return made


def lose(some: Places, now: float, code: int = errno.ETIMEDOUT) -> Place:
    """Choose a place and have it not answer."""
    place = some.choose(now, ())
    assert place
    some.refused(place, now, code)
    return place


def test_a_way_that_does_not_answer_is_left_to_a_probe_while_another_takes_the_clients():
    some = places(NODE, TUNNEL, carriers={"ns/pod"})
    lost = lose(some, 100.0)

    assert lost.endpoint == NODE
    assert some.taking(100.0 + 2 * LAST_RESORT) == ("task",)
    assert not some.last_resort(100.0 + 2 * LAST_RESORT)
    assert some.due_for_a_probe(100.0 + LONG_ASIDE[0]) == ([lost], None)


def test_clients_try_a_way_that_did_not_answer_when_they_would_only_wait():
    some = places(NODE)
    lost = lose(some, 100.0)

    assert some.choose(100.0, ()) is None
    assert not some.last_resort(100.0)
    assert some.retry_at(100.0) == 100.0 + LAST_RESORT
    assert some.last_resort(100.0 + LAST_RESORT)
    assert some.choose(100.0 + LAST_RESORT, ()) is lost


def test_they_wait_for_a_place_that_comes_back_by_itself():
    """A task that refused is about to listen: that is sooner than a way that does not answer."""
    some = places(NODE, TASK)
    lose(some, 100.0)
    lose(some, 101.0, errno.ECONNREFUSED)

    assert not some.last_resort(101.0)
    assert some.retry_at(101.0) == pytest.approx(101.05)
    assert some.taking(101.1) == ("task",)


def test_of_several_lost_ways_clients_try_the_one_that_answered_since():
    some = places(NODE, Endpoint("node/b", "192.0.2.2", 30080, patience=1.0))
    first, second = lose(some, 100.0), lose(some, 100.0)
    assert some.last_resort(102.0)
    some.refused(first, 102.0, errno.ETIMEDOUT)
    second.delay = 0.0  # as `Served` does at each connect
    some.refused(second, 103.0, errno.ETIMEDOUT)

    assert some.last_resort(105.0)
    assert some.taking(105.0) == (second.endpoint.id,)


@pytest.mark.parametrize("code", [errno.ETIMEDOUT, errno.ECONNREFUSED])
def test_connections_that_dialled_at_the_same_time_and_failed_count_once(code):
    some = places(NODE)
    place = some.choose(100.0, ())
    assert place
    for step in range(50):
        some.refused(place, 100.0 + step / 1000, code)

    assert place.delay == (LONG_ASIDE[0] if code == errno.ETIMEDOUT else 0.05)


def test_each_probe_that_finds_nothing_makes_the_next_one_later():
    some = places(NODE)
    place = lose(some, 100.0)
    delays = []
    for _ in range(6):
        some.refused(place, place.aside_until, errno.ETIMEDOUT)
        delays.append(place.delay)

    assert delays == [2.0, 4.0, 8.0, 16.0, 30.0, 30.0]


def test_after_a_sleep_every_way_that_was_given_up_for_a_while_is_tried_at_once():
    some = places(NODE, TASK)
    lost = lose(some, 100.0)
    refused = lose(some, 100.0, errno.ECONNREFUSED)
    assert (some.choose(100.0, ()), some.due_for_a_probe(100.0)[0]) == (None, [])

    some.rouse(100.0)

    assert some.due_for_a_probe(100.0) == ([lost], None), "clients do not lose time with it"
    assert some.choose(100.0, ()) is refused

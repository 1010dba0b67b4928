"""When a draining task is out of every forward."""

from __future__ import annotations

from kecs.agent.drains import Drains


def test_a_task_in_no_forward_is_out_as_soon_as_the_loop_knows():
    drains = Drains()
    drains.update({"t"}, {}, barrier=3)
    assert drains.take_due() == []

    drains.passed(2)
    assert drains.take_due() == []
    drains.passed(3)
    assert drains.take_due() == ["t"]
    assert drains.take_due() == [], "told once"


def test_it_waits_for_every_forward_and_every_endpoint():
    drains = Drains()
    drains.update({"t"}, {"t": {("pf-1", "t@a"), ("pf-1", "t@b"), ("pf-2", "t@a")}}, barrier=1)
    drains.passed(1)

    for forward, endpoint in (("pf-1", "t@a"), ("pf-2", "t@a")):
        drains.drained(forward, endpoint, "t")
        assert drains.take_due() == []
    drains.drained("pf-1", "t@b", "t")
    assert drains.take_due() == ["t"]


def test_drained_before_seen_is_told_after_it():
    drains = Drains()
    drains.update({"t"}, {"t": {("pf-1", "t")}}, barrier=1)
    drains.drained("pf-1", "t", "t")
    assert drains.take_due() == []

    drains.passed(1)
    assert drains.take_due() == ["t"]


def test_a_forward_that_left_is_not_waited_for():
    drains = Drains()
    drains.update({"t", "u"}, {"t": {("pf-1", "t"), ("pf-2", "t")}, "u": {("pf-1", "u")}}, barrier=1)
    drains.passed(1)
    drains.left("pf-1")

    assert drains.take_due() == ["u"]


def test_a_new_listener_is_told_all_that_is_so():
    drains = Drains()
    drains.update({"t", "u"}, {"u": {("pf-1", "u")}}, barrier=1)
    drains.passed(1)
    assert drains.take_due() == ["t"]

    drains.tell_again()
    assert drains.take_due() == ["t"]


def test_a_task_that_no_longer_drains_is_forgotten():
    drains = Drains()
    drains.update({"t"}, {"t": {("pf-1", "t")}}, barrier=1)
    drains.update(set(), {}, barrier=2)
    drains.passed(2)
    drains.drained("pf-1", "t", "t")

    assert not drains.is_known("t")
    assert drains.take_due() == []

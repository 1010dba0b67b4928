"""When tunnels give way to connections that are dialled."""

from __future__ import annotations

from kecs.net.precedence import BUSY, WINDOW, Precedence

SECOND = 1.0


class Others:
    """Those who may have something to say, and the tunnel that looks how often they did."""

    def __init__(self) -> None:
        self.now = 7.0
        self.heard = 0
        self.precedence = Precedence(self.now)

    def say(self, rate: float, seconds: float, looks: int) -> list[bool]:
        """Say something so many times a second; return what a tunnel found at each of its looks."""
        found = []
        for _ in range(looks):
            self.now += seconds / looks
            self.heard += round(rate * seconds / looks)
            found.append(self.precedence.look(self.heard, self.now))
        return found


def test_nobody_gives_way_to_nobody():
    assert not any(Others().say(0, SECOND, 1000))


def test_tunnels_give_way_within_a_window_and_as_long_as_the_others_are_busy():
    others = Others()
    found = others.say(2 * BUSY, SECOND, 1000)
    assert found.index(True) <= WINDOW * 1000
    assert all(found[found.index(True) :])
    assert not others.say(BUSY / 10, WINDOW * 2, 2)[-1]


def test_a_few_requests_are_no_load():
    assert not any(Others().say(BUSY / 2, SECOND, 1000))


def test_a_burst_is_no_load():
    others = Others()
    others.say(0, SECOND, 1000)
    others.heard += int(BUSY * WINDOW / 2)
    assert not any(others.say(0, SECOND, 1000))


def test_what_was_said_while_no_tunnel_looked_counts_by_its_time():
    others = Others()
    assert not any(others.say(BUSY / 2, 60 * SECOND, 1))
    assert all(others.say(BUSY * 2, 60 * SECOND, 1))

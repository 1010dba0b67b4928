"""kqueue with epoll's words, against a stand-in for the kernel's."""

from __future__ import annotations

import select
from dataclasses import dataclass
from types import SimpleNamespace

import pytest

from kecs.net import poller
from kecs.net.poller import EDGE, ERROR, HANG_UP, IN, OUT, READ_END, URGENT, Kqueue


def test_constants_are_epolls():
    assert (IN, URGENT, OUT, ERROR, HANG_UP, READ_END, EDGE) == (
        select.EPOLLIN,
        select.EPOLLPRI,
        select.EPOLLOUT,
        select.EPOLLERR,
        select.EPOLLHUP,
        select.EPOLLRDHUP,
        select.EPOLLET,
    )


@dataclass
class Event:
    ident: int
    filter: int
    flags: int = 0
    fflags: int = 0


class FakeKernel(SimpleNamespace):
    """FreeBSD's and macOS' numbers; `changes` is what was asked, `events` what to answer."""

    KQ_FILTER_READ, KQ_FILTER_WRITE = -1, -2
    KQ_EV_ADD, KQ_EV_DELETE, KQ_EV_CLEAR, KQ_EV_EOF, KQ_EV_ERROR = 1, 2, 0x20, 0x8000, 0x4000

    def __init__(self):
        super().__init__(changes=[], events=[], waits=[], closed=False)
        self.filters: set[tuple[int, int]] = set()

    def kqueue(self):
        return self

    def kevent(self, ident, filter, flags):  # noqa: A002 - select's word
        return Event(ident, filter, flags)

    def control(self, changes, maximum, wait):
        for change in changes or []:
            key = (change.ident, change.filter)
            if change.flags & self.KQ_EV_DELETE:
                if key not in self.filters:
                    raise FileNotFoundError(2, "No such file or directory")
                self.filters.discard(key)
            else:
                self.filters.add(key)
                self.changes.append(change)
        if changes is None:
            self.waits.append(wait)
            answer, self.events = self.events[:maximum], self.events[maximum:]
            return answer
        return []

    def close(self):
        self.closed = True


@pytest.fixture
def kernel() -> FakeKernel:
    return FakeKernel()


READ, WRITE = FakeKernel.KQ_FILTER_READ, FakeKernel.KQ_FILTER_WRITE


def test_edges_are_asked_for_with_ev_clear_and_listeners_without(kernel):
    queue = Kqueue(kernel)
    queue.register(5, IN | READ_END | EDGE)
    queue.register(6, IN)

    assert [(c.ident, c.filter, c.flags) for c in kernel.changes] == [
        (5, READ, kernel.KQ_EV_ADD | kernel.KQ_EV_CLEAR),
        (6, READ, kernel.KQ_EV_ADD),
    ]


def test_modify_adds_and_takes_filters(kernel):
    queue = Kqueue(kernel)
    queue.register(5, IN | EDGE)
    queue.modify(5, IN | OUT | EDGE)
    assert kernel.filters == {(5, READ), (5, WRITE)}
    queue.modify(5, 0)
    assert kernel.filters == set()
    queue.modify(5, IN)
    assert kernel.filters == {(5, READ)}


@pytest.mark.parametrize(
    ("event", "mask"),
    [
        (Event(5, READ), IN),
        (Event(5, READ, FakeKernel.KQ_EV_EOF), IN | READ_END),
        (Event(5, READ, FakeKernel.KQ_EV_EOF, fflags=54), IN | READ_END | ERROR),
        (Event(5, WRITE), OUT),
        (Event(5, WRITE, FakeKernel.KQ_EV_EOF), OUT | HANG_UP),
        (Event(5, WRITE, FakeKernel.KQ_EV_EOF, fflags=61), OUT | HANG_UP | ERROR),
        (Event(5, READ, FakeKernel.KQ_EV_ERROR), IN | ERROR),
    ],
)
def test_events_are_translated(kernel, event, mask):
    kernel.events = [event]

    assert Kqueue(kernel).poll(1.0, 8) == [(5, mask)]


def test_waiting_for_ever_is_none(kernel):
    queue = Kqueue(kernel)
    queue.poll(-1, 8)
    queue.poll(0, 8)
    queue.poll(0.5, 8)

    assert kernel.waits == [None, 0, 0.5]
    queue.close()
    assert kernel.closed


def test_linux_has_epoll_itself():
    made = poller.new()
    assert isinstance(made, select.epoll)
    made.close()


def test_elsewhere_it_is_kqueue(kernel, monkeypatch):
    monkeypatch.setattr(poller, "select", kernel)
    monkeypatch.setattr(poller.Kqueue.__init__, "__defaults__", (kernel,))

    assert isinstance(poller.new(), Kqueue)

"""Fixtures of the data path's tests. Each test also proves that it leaves no descriptor behind."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from tests.net.peers import Relay, Upstream, descriptors


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    before = descriptors()
    threads = threading.active_count()
    yield
    assert threading.active_count() == threads
    assert descriptors() <= before


@pytest.fixture
def relay(nothing_left: None) -> Iterator[Relay]:
    running = Relay()
    yield running
    running.stop()


@pytest.fixture
def upstream(nothing_left: None) -> Iterator[Upstream]:
    server = Upstream()
    yield server
    server.close()


@pytest.fixture
def other(nothing_left: None) -> Iterator[Upstream]:
    server = Upstream()
    yield server
    server.close()

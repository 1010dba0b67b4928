"""Fixtures of the client's tests."""

from __future__ import annotations

import pytest
from tests.client.fakes import FakeHome


@pytest.fixture
def home(monkeypatch):
    one = FakeHome(monkeypatch)
    yield one
    one.close()

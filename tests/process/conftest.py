"""Fixtures of the process tests."""

from __future__ import annotations

import pytest
from tests.process.harness import Home


@pytest.fixture
def home():
    """An empty home; at the end nothing of it may be left running."""
    one = Home()
    yield one
    one.close()


@pytest.fixture
def running(home):
    """A home with a running instance."""
    home.start()
    return home

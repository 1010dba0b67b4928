"""Fixtures of the agent's shell tests."""

from __future__ import annotations

import pytest
from tests.agent.scripted import Home


@pytest.fixture
def home():
    """A home with a scripted control plane; the agent is not started yet."""
    one = Home()
    yield one
    one.close()


@pytest.fixture
def running(home):
    """A home whose agent runs and follows the endpoints."""
    home.launch()
    return home

"""Fixtures of the agent's shell tests."""

from __future__ import annotations

import asyncio
import shutil

import pytest
from tests.agent.scripted import Home
from tests.agent.shapes import make_instance, short_home
from tests.agent.stage import Stage


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


@pytest.fixture
def play():
    """Return what plays a scene with a stage and its manager."""
    home = short_home()

    def play(scene):
        async def run():
            stage = Stage(make_instance(home))
            try:
                await scene(stage, stage.manager)
            finally:
                await stage.close()

        asyncio.run(run())

    yield play
    shutil.rmtree(home)

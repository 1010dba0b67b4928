"""Fixtures of the tests of the k3d adapter."""

from __future__ import annotations

import pytest
from tests.k3d.scripted import ScriptedK3d


@pytest.fixture
def k3d(tmp_path):
    with ScriptedK3d(tmp_path / "k3d") as one:
        yield one

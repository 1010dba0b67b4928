"""Fixtures of the tests of the k3d adapter.

`k3d` is the scripted one, or with `KECS_TEST_K3D=1` the real one of this machine; `scripted` is always
scripted, for faults that a real one does not have at will: it skips when the real one is meant.
"""

from __future__ import annotations

import os

import pytest
from tests.k3d.real import RealK3d
from tests.k3d.scripted import ScriptedK3d

from kecs.k3d import repair

REAL = os.environ.get("KECS_TEST_K3D") == "1"


@pytest.fixture(autouse=True)
def settled_soon(monkeypatch):
    """Let a repair wait for a scripted Docker's stop as long as that takes: 10 s are 0.1 s there."""
    if not REAL:
        monkeypatch.setattr(repair, "SETTLE", 0.6)


@pytest.fixture
def scripted(tmp_path):
    if REAL:
        pytest.skip("needs faults of a scripted k3d")
    with ScriptedK3d(tmp_path / "k3d") as one:
        yield one


@pytest.fixture
def k3d(tmp_path):
    with RealK3d(tmp_path / "k3d") if REAL else ScriptedK3d(tmp_path / "k3d") as one:
        yield one

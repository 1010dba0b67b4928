"""Fixtures of the tests that talk to an API server. Each test also proves that it leaves nothing behind."""

from __future__ import annotations

import gc
import threading
import warnings
from pathlib import Path

import pytest
from tests.cluster.harness.certificates import Authority
from tests.kube.scripted import ScriptedApi
from tests.net.peers import until

from kecs.kube.access import Access


@pytest.fixture(autouse=True)
def nothing_left():
    """No thread, no descriptor, and no socket that only the garbage collector closed."""
    before = sum(1 for _ in Path("/proc/self/fd").iterdir())
    threads = set(threading.enumerate())
    yield

    def left():
        more = [each for each in threading.enumerate() if each not in threads]
        return [each for each in more if not each.name.startswith("asyncio_")]

    until(lambda: not left(), "every thread of the test has ended", seconds=5)  # a server's may be about to
    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        gc.collect()
    assert sum(1 for _ in Path("/proc/self/fd").iterdir()) <= before


@pytest.fixture
def api(nothing_left):
    with ScriptedApi() as server:
        yield server


@pytest.fixture(scope="session")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("pki") / "ca")


@pytest.fixture(scope="session")
def certificate(authority):
    """A server's certificate for 127.0.0.1 and the name `kube.test`."""
    return authority.server("kube", "127.0.0.1", "kube.test")


@pytest.fixture
def tls_api(nothing_left, certificate):
    with ScriptedApi(tls=certificate) as server:
        yield server


@pytest.fixture
def access(api, tmp_path):
    return Access.load(api.kubeconfig(tmp_path))

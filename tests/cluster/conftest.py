"""Fixtures of the tests on a real cluster.

`cluster`: the session's cluster with one node, or yours (`KECS_TEST_KUBECONFIG`). `own`: the same, skipped
on yours, for tests that break something and mend it again. `make_cluster`: further clusters, for tests
that need two nodes or a fault that would harm others.
"""

from __future__ import annotations

import uuid
from functools import partial

import pytest
from tests import own_network
from tests.cluster import target
from tests.cluster.harness import build, ledger
from tests.cluster.harness.cluster import Cluster, Options
from tests.cluster.leaving import Leaving
from tests.process.harness import Home, until

AT_A_TIME = 2
"""Processes with tests: each has a cluster of its own, and the two cores are shared."""


def pytest_xdist_auto_num_workers():
    """Say how many processes `--numprocesses auto` is; your own cluster is on none of our networks."""
    return AT_A_TIME if not target.yours() and own_network.is_possible() else 0


def pytest_sessionstart():
    """Compile what is missing before any test's time runs."""
    try:
        if not target.yours():
            build.require_machine()
            ledger.sweep()  # of all processes of this session the first is on the computer's own network
        build.kube()
        build.server()
    except RuntimeError as error:
        pytest.exit(str(error), returncode=1)


@pytest.fixture(scope="session")
def cluster():
    """The cluster of this session; at the end nothing of it is left."""
    if named := target.yours():
        one = target.Yours(named)
        yield one
        one.close()
        return
    one = Cluster.up()
    yield one
    one.down()


@pytest.fixture(scope="session")
def leaving(cluster):
    """Removes what tests leave while others run; at the end nothing that KECS made is left on the cluster."""
    before = target.namespaces(cluster).keys()
    one = Leaving()
    yield one
    one.wait()
    until(lambda: target.namespaces(cluster).keys() <= before, "the namespaces of KECS are gone", seconds=60)


@pytest.fixture(scope="session")
def own(cluster):
    """The session's cluster where its processes are ours to kill."""
    if not isinstance(cluster, Cluster):
        pytest.skip(f"breaks parts of the cluster; not on that of {target.VARIABLE}")
    return cluster


@pytest.fixture
def make_cluster():
    """Return a function that brings up a cluster of the test's own; at the end nothing of it is left."""
    if target.yours():
        pytest.skip(f"brings up a cluster of its own; not with {target.VARIABLE}")
    made = []

    def make(**options):
        made.append(Cluster.up(options=Options(**options)))
        return made[-1]

    yield make
    for each in made:
        each.down()


@pytest.fixture
def kubectl(cluster):
    """`kubectl` on the session's cluster."""
    return cluster.kubectl


@pytest.fixture
def quiet(leaving):
    """Nothing is being removed: for tests that stop parts of the cluster which that needs."""
    leaving.settle()


@pytest.fixture
def namespace(kubectl, leaving):
    """An empty namespace."""
    name = f"test-{uuid.uuid4().hex[:8]}"
    kubectl("create", "namespace", name)
    yield name
    leaving.begin(partial(kubectl, "delete", "namespace", name, "--wait=true", seconds=100))


@pytest.fixture
def home(cluster, leaving):
    """An empty home for instances on the session's cluster; at the end nothing of theirs is left there."""
    one = Home()
    yield one
    leaving.begin(partial(target.leave, cluster, one))


@pytest.fixture
def running(home, cluster):
    """A home with a running instance on the session's cluster."""
    target.start(home, cluster)
    return home

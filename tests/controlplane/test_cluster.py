"""The cluster of a control plane: known before anything is done on it, and what is said of it."""

import asyncio

import pytest
from tests.controlplane.world import FakeCluster, state_of

from kecs.client.instance import Kubernetes
from kecs.controlplane import cluster as clusters
from kecs.controlplane.cluster import Cluster, Silent
from kecs.ecs.model import Node
from kecs.errors import ExitCode, KecsError

CHOSEN = Kubernetes(kubeconfig="/k", context="kind", cluster_uid="u-1")
NODES = [Node(name="one", addresses=[], ready=True), Node(name="two", addresses=[], ready=False)]


@pytest.fixture(autouse=True)
def no_delays(monkeypatch):
    monkeypatch.setattr(clusters, "RETRY_AFTER", (0.0,))


def cluster_of(*answers, network=None):
    """Return a cluster that answers so, one after the other; an exception is raised."""
    left = list(answers)

    async def uid():
        answer = left.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    return Cluster(CHOSEN, "https://k:6443", network or FakeCluster(), uid, lambda: 100.0)


def test_a_cluster_that_says_the_right_identity_is_known():
    async def main():
        one = cluster_of("u-1")
        assert not one.status(state_of()).connected
        await one.known()
        await one.known()
        found = one.status(state_of(*NODES))
        assert (found.connected, found.context, found.nodes, found.nodes_ready) == (True, "kind", 2, 1)
        assert one.trouble() is None

    asyncio.run(main())


def test_a_silent_cluster_is_asked_until_it_answers_and_meanwhile_told_of():
    async def main():
        seen = []

        class Watched(FakeCluster):
            pass

        one = cluster_of(Silent("nobody listens"), Silent("still nobody"), "u-1", network=Watched())
        ask, one._uid = one._uid, None

        async def uid():
            seen.append((one.trouble(), one.status(state_of()).lost_at))
            return await ask()

        one._uid = uid
        await one.known()
        assert seen[0] == (None, None)
        assert seen[1][0].endswith(": nobody listens")
        assert seen[2][0].endswith(": still nobody")
        assert seen[2][1] == 100.0, "since the first time"
        assert one.trouble() is None

    asyncio.run(main())


def test_another_cluster_is_refused():
    async def main():
        with pytest.raises(KecsError, match="another cluster") as caught:
            await cluster_of("u-2").known()
        assert caught.value.exit_code == ExitCode.CONFLICT

    asyncio.run(main())


def test_a_known_cluster_is_as_the_runtime_sees_it():
    async def main():
        network = FakeCluster()
        one = cluster_of("u-1", network=network)
        await one.known()
        network.trouble = (50.0, "connection refused")
        found = one.status(state_of())
        assert (found.connected, found.lost_at, found.detail) == (False, 50.0, "connection refused")
        assert one.trouble().endswith(": connection refused")

    asyncio.run(main())

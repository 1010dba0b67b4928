"""Probes of a pod through a real tunnel to a scripted API server, kept by the agent's own `Tunnels`."""

from __future__ import annotations

import asyncio

import pytest
from tests.agent.shapes import A, entry, lone, port, task
from tests.agent.test_routes import resolve
from tests.agent.test_watchful import HealthyTask
from tests.kube.shapes import pod

from kecs.agent.prober import Prober
from kecs.agent.relay import Relay
from kecs.agent.tunnels import Tunnels
from kecs.client.endpoints import Route
from kecs.forward.spec import Probe
from kecs.kube.access import Access
from kecs.kube.tunnel import Tunnel
from kecs.kube.upgrade import open_portforward
from kecs.net.messages import CarrierLost, Stop

TUNNEL = Route(kind="tunnel", namespace="default", pod="web", port=80)
POD = lone(task(A, port(80, ready=True, routes=[TUNNEL])))


@pytest.mark.parametrize(
    ("probe", "failure"),
    [
        (Probe(type="http", path="/healthz", interval=0.1, failures=1), "GET /healthz answered 503"),
        (Probe(interval=0.1, failures=1), "a connect: connection reset by peer"),
    ],
)
def test_a_pod_is_asked_through_its_tunnel(api, tmp_path, probe, failure):
    api.put(pod())
    api.linger = 0.2
    access = Access.load(api.kubeconfig(tmp_path))
    web = HealthyTask("web")

    def serve(*, well):
        web.status = 200 if well else 503
        listens = well or probe.type == "http"
        api.backends[80] = ("127.0.0.1", web.port) if listens else "refuse"

    async def act():
        relay, changed = Relay(), asyncio.Event()
        tunnels = Tunnels(relay, lambda ns, name: Tunnel(open_portforward(access, ns, name, timeout=5)))
        relay.on(CarrierLost, tunnels.lost)
        relay.start()
        prober = Prober(relay, tunnels, lambda _forward: changed.set())
        forward = entry(type="task", probe=probe)
        whole = resolve(forward, POD)
        try:
            serve(well=True)
            assert prober.filter(forward, whole) is whole
            for well in (False, True, False, True):
                serve(well=well)
                async with asyncio.timeout(10):
                    await changed.wait()
                changed.clear()
                now = prober.filter(forward, whole)
                assert [one.failing for one in now.rows] == [None if well else failure]
                assert bool(now.endpoints) is well
        finally:
            await prober.close()
            await tunnels.close()
            relay.send(Stop())
            relay.join()

    try:
        asyncio.run(act())
    finally:
        web.close()

"""Metrics from the command line to Prometheus' parser, and back off again."""

from __future__ import annotations

import urllib.error
import urllib.request

import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.agent.scripted import refuses
from tests.process.harness import Home
from tests.sockets import free_port


def scraped(port: int) -> dict[str, float]:
    """Return the samples of the one forward that a person made, and those without labels."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        families = list(text_string_to_metric_families(answer.read().decode()))
    mine: tuple[dict[str, str], ...] = ({}, {"forward": "default-web"})
    return {one.name: one.value for family in families for one in family.samples if one.labels in mine}


@pytest.mark.parametrize("first", ["start", "restart"])
def test_metrics_follow_a_forward_and_move_and_go(home: Home, first):
    port, other = free_port(), free_port()
    home.start(*(("--metrics-address", f"127.0.0.1:{port}") if first == "start" else ()))
    home.register()
    home.service(count=1)
    home.stable()
    local = home.forward("service", "default/web", "--wait")["localPort"]
    if first == "restart":
        assert home.json("port-forward", "agent", "status")["metrics"] is None
        said = home.run("port-forward", "agent", "restart", "--metrics-address", f"localhost:{port}").stderr
        assert f"metrics: http://127.0.0.1:{port}/metrics" in said
    urllib.request.urlopen(f"http://127.0.0.1:{local}/", timeout=10).read()

    samples = scraped(port)
    assert samples["kecs_forward_connections_total"] == 1
    assert samples["kecs_forward_first_byte_seconds_count"] == 1
    assert samples["kecs_forward_sent_bytes_total"] > 50
    assert f"127.0.0.1:{port}/metrics" in home.run("port-forward", "agent", "status").stdout

    conflict = home.run("start", "--metrics-address", f"127.0.0.1:{other}", code=4).stderr
    assert f"agent restart --metrics-address 127.0.0.1:{other}" in conflict
    home.run("port-forward", "agent", "restart", "--metrics-address", f"127.0.0.1:{other}")
    assert refuses(port)
    assert scraped(other)["kecs_forward_connections_total"] == 0

    home.run("port-forward", "agent", "stop")
    assert refuses(other)
    home.run("port-forward", "agent", "restart")
    assert scraped(other)["kecs_controlplane_connected"] in (0, 1)
    home.run("port-forward", "agent", "restart", "--metrics-address", "off")
    assert refuses(other)
    assert home.json("port-forward", "agent", "status")["metrics"] is None


def test_a_taken_address_is_told_by_the_command_that_asked_for_it(home: Home):
    home.start()
    taken = home.json("list")[0]["apiPort"]
    said = home.run("port-forward", "agent", "restart", "--metrics-address", f"127.0.0.1:{taken}").stderr

    assert f"metrics are not served: port {taken} on 127.0.0.1 is taken" in said
    assert "metrics" not in home.run("port-forward", "agent", "status").stdout


def test_a_bad_address_leaves_the_agent_alone(home: Home):
    home.start()
    home.run("port-forward", "agent", "restart", "--metrics-address", "9400", code=2)
    home.run("port-forward", "agent", "status", code=5)
    with pytest.raises(urllib.error.URLError):
        scraped(9400)

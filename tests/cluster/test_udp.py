"""UDP on a real cluster: by node ports, to a task alone and to a service; and what has no way there."""

from __future__ import annotations

import socket

import pytest
from tests.cluster import target, tasks
from tests.cluster.tasks import server
from tests.process.harness import until

PORT = 9091


@pytest.fixture(scope="module")
def home(cluster):
    with target.visiting(cluster) as one:
        target.start(one, cluster)
        yield one


def echo():
    """A container that echoes datagrams."""
    return server() | {"portMappings": [{"containerPort": PORT, "protocol": "udp"}]}


def echoes(port, text=b"?"):
    """Tell whether a new client is answered, from where it asked."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(1)
        sock.connect(("127.0.0.1", port))
        sock.send(text)
        return sock.recv(65535) == text


def row(home, name):
    return next(one for one in home.forwards() if one["name"] == name)


def test_a_task_alone_is_reached_by_its_node_port_while_it_lives(home):
    arn = tasks.run(home, echo(), family="echo")
    tasks.running(home, arn)
    one = home.forward("task", arn, f":{PORT}", "--name", "alone", "--wait", "20")
    assert (one["protocol"], one["state"], one["route"]) == ("udp", "ACTIVE", "direct")
    for text in (b"", b"short", bytes(1400), bytes(60_000)):
        until(lambda text=text: echoes(one["localPort"], text), f"{len(text)} bytes come back")
    home.aws().stop_task(task=arn)
    until(lambda: row(home, "alone")["state"] == "ENDED", "it ends with its task", seconds=30)
    assert row(home, "alone")["connections"]["open"] == 0


def test_a_service_is_reached_by_each_node_and_survives_a_deployment(home, cluster):
    tasks.define(home, echo(), family="echo")
    home.service("echo", taskDefinition="echo")
    home.stable("echo")
    port = home.forward("service", "echo", f":{PORT}", "--name", "all", "--wait", "30")["localPort"]
    until(lambda: echoes(port), "a task answers")
    endpoints = row(home, "all")["endpoints"]
    assert {one["route"]["host"] for one in endpoints} == set(target.node_addresses(cluster))
    assert all(one["byNode"] and one["route"]["kind"] == "direct" for one in endpoints)
    assert f"{PORT}/udp on node port" in home.run("ps").stdout

    home.aws().update_service(cluster="default", service="echo", forceNewDeployment=True)
    home.stable("echo")
    until(lambda: all(echoes(port) for _ in range(10)), "the new tasks answer")


def test_what_would_need_a_tunnel_is_said(home):
    done = home.run("port-forward", "start", "service", "echo", f":{PORT}", "--route", "tunnel", code=2)
    assert "a tunnel carries TCP only" in done.stderr
    arguments = ("service", "echo", f":{PORT}", "--no-auto-reconnect", "--name", "pinned")
    home.run("port-forward", "start", *arguments)
    until(lambda: "UDP has no tunnel" in (row(home, "pinned")["reason"] or ""), "it says why it waits")
    assert row(home, "pinned")["state"] == "WAITING"
    assert "UDP has no tunnel" in home.run("explain", "forward", "pinned").stdout

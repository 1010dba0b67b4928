"""UDP from end to end: the real command, daemons, and tasks that echo datagrams on the local runtime."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest
from tests.process.harness import KECS, until

ECHO = """
import os, signal, socket, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
me = os.environ["VERSION"].encode() + b" " + os.environ["KECS_TASK_ARN"].rpartition("/")[2].encode()
port = int(os.environ["PORT"])
assert port == int(os.environ["PORT_53"]) == int(os.environ["PORT_DNS"])
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("127.0.0.1", port))
if "TOO" in os.environ:
    both = socket.create_server(("127.0.0.1", port))
while True:
    said, client = server.recvfrom(65535)
    server.sendto(me + b" " + said, client)
"""
OPENED = re.compile(r" client (\d+) opened from 127.0.0.1:\d+$", re.MULTILINE)
UDP = {"containerPort": 53, "name": "dns", "protocol": "udp"}


def register(home, version="1", ports=(UDP,), **environment):
    return home.register(
        "dns",
        version=version,
        container={"command": [sys.executable, "-c", ECHO], "portMappings": list(ports)},
        environment=[{"name": name, "value": value} for name, value in environment.items()],
    )


class Client:
    """Asks and waits for the answer, which must come from where it asked."""

    def __init__(self, port, host="127.0.0.1"):
        self.sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.settimeout(5)
        self.sock.connect((host, port))

    def ask(self, text="?"):
        """Return version, task and text."""
        self.sock.send(text.encode())
        return tuple(self.sock.recv(65535).decode().split(" ", 2))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.sock.close()


def answers(port):
    with Client(port) as one:
        return one.ask()


def row(home, name="default-dns"):
    return next(one for one in home.json("port-forward", "list") if one["name"] == name)


@pytest.fixture
def dns(running):
    """A home with a service of two tasks that echo, and a forward to it; and that forward's port."""
    register(running)
    running.service("dns", taskDefinition="dns")
    running.stable("dns")
    running.run("port-forward", "start", "service", "dns", "--wait", "20")
    port = row(running)["localPort"]
    until(lambda: answers(port), "a task answers")
    return running, port


@pytest.mark.timeout(120)
def test_clients_of_both_families_are_answered_and_counted(dns):
    home, port = dns
    before = row(home)["connections"]["total"]
    with Client(port) as one, Client(port, "::1") as other:
        first, second = one.ask("1"), other.ask("2")
        assert (first[2], second[2]) == ("1", "2")
        for number in range(20):
            assert one.ask(f"{number}") == (*first[:2], f"{number}"), "a client keeps its task"
        long = "x" * 60_000
        assert other.ask(long) == (*second[:2], long)
        now = row(home)
    assert (now["protocol"], now["state"], now["route"]) == ("udp", "ACTIVE", "direct")
    assert now["connections"]["total"] == before + 2
    assert now["bytes"]["in"] > 60_000
    table = home.run("port-forward", "list").stdout
    assert re.search(rf"^default-dns +ACTIVE +127.0.0.1:{port} +default/dns:53/udp ", table, re.MULTILINE)
    shown = home.run("ps").stdout
    assert f"127.0.0.1:{port}/udp" in shown
    assert re.search(rf"53/udp on \d+ <- 127.0.0.1:{port}", shown)
    explained = home.run("explain", "forward", "default-dns").stdout
    assert f"udp://127.0.0.1:{port} -> default/dns:53/udp" in explained
    assert f"it serves: send to udp://127.0.0.1:{port}" in explained


@pytest.mark.timeout(180)
def test_a_deployment_loses_no_answer(dns):
    """Clients that ask and wait, each time from a port of its own and all the time from one."""
    home, port = dns
    lost, versions, done = [], set(), threading.Event()

    def ask(again):
        with Client(port) as kept:
            while not done.is_set():
                try:
                    versions.add((kept.ask() if again else answers(port))[0])
                except TimeoutError:
                    lost.append(time.monotonic())
                time.sleep(0.005)

    threads = [threading.Thread(target=ask, args=(again,)) for again in (True, False)]
    for thread in threads:
        thread.start()
    try:
        register(home, version="2")
        home.aws().update_service(cluster="default", service="dns", taskDefinition="dns")
        home.stable("dns")
        until(lambda: answers(port)[0] == "2", "the new revision answers")
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert versions == {"1", "2"}
    assert not lost


@pytest.mark.timeout(180)
def test_the_port_outlives_the_agent_and_the_service(dns):
    home, port = dns
    pid = home.json("port-forward", "agent", "status")["pid"]
    os.kill(pid, signal.SIGKILL)
    until(lambda: answers(port), "the agent is back on its port")
    home.run("port-forward", "agent", "restart")
    until(lambda: answers(port), "and again")

    home.aws().update_service(cluster="default", service="dns", desiredCount=0)
    until(lambda: row(home)["state"] == "WAITING", "none is left")
    with Client(port) as one:
        one.sock.send(b"lost")
        until(lambda: row(home)["connections"]["dropped"], "it is counted")
        assert "so datagrams are dropped" in home.run("explain", "forward", "default-dns").stdout
        home.aws().update_service(cluster="default", service="dns", desiredCount=1)
        until(lambda: row(home)["state"] == "ACTIVE", "one is back")
        until(lambda: answers(port), "and answers")
        assert one.ask("again")[2] == "again"


@pytest.mark.timeout(120)
def test_clients_are_shown_as_they_come_and_go(dns):
    home, _ = dns
    command = [KECS, "port-forward", "start", "service", "dns", ":53", "--name", "shown", "--idle", "1"]
    shown = subprocess.Popen(
        [*command, "--foreground"], env=home.environment, stdout=subprocess.PIPE, text=True, cwd=home.path
    )
    try:
        first = shown.stdout.readline()
        port = int(re.match(r"shown  udp://127.0.0.1:(\d+) -> default/dns:53/udp  ACTIVE$", first)[1])
        seen = threading.Event()

        def ask():
            while not seen.is_set():  # those who came before it watched are not shown
                with contextlib.suppress(OSError):
                    answers(port)
                seen.wait(0.1)

        asking = threading.Thread(target=ask)
        asking.start()
        lines = iter(shown.stdout.readline, "")
        try:
            opened = next(found for line in lines if (found := OPENED.search(line)))
        finally:
            seen.set()
            asking.join()
        ended = next(line for line in lines if f" client {opened[1]} ended" in line)
        assert re.search(r" ended, 1 B in, \d+ B out, \d+\.\d s: idle$", ended)
        shown.send_signal(signal.SIGINT)
        assert shown.wait(20) == 130
    finally:
        shown.kill()
        shown.wait()
        shown.stdout.close()
    assert [one["name"] for one in home.json("port-forward", "list")] == ["default-dns"]


@pytest.mark.timeout(120)
def test_tcp_and_udp_of_one_container_port(running):
    register(running, ports=(UDP | {"name": "dns"}, {"containerPort": 53, "protocol": "tcp"}), TOO="yes")
    running.service("dns", taskDefinition="dns", count=1)
    running.stable("dns")
    said = running.run("port-forward", "start", "service", "dns", ":53", ":53/udp", "--wait", "20").stdout
    tcp = re.search(r"^default-dns  http://127.0.0.1:(\d+) -> default/dns:53  ACTIVE$", said, re.MULTILINE)
    udp = re.search(
        r"^default-dns-2  udp://127.0.0.1:(\d+) -> default/dns:53/udp  ACTIVE$", said, re.MULTILINE
    )
    assert tcp, said
    assert udp, said
    socket.create_connection(("127.0.0.1", int(tcp[1])), 5).close()
    until(lambda: answers(int(udp[1])), "it answers")


@pytest.mark.timeout(120)
def test_words_for_what_udp_has_not(dns):
    home, port = dns
    for options, message in (
        (("--route", "tunnel"), "there are no tunnels on the runtime `local`"),
        (("--probe", "tcp"), "a probe connects by TCP"),
        (("--hold", "seconds=1"), "UDP has no connections to hold"),
        (("--idle", "soon"), "`--idle soon` is no number of seconds"),
    ):
        done = home.run("port-forward", "start", "service", "dns", ":53", *options, "--name", "x", code=2)
        assert message in done.stderr, done.stderr
    assert (
        "has no port `53/tcp`"
        in home.run("port-forward", "start", "service", "dns", ":53/tcp", code=3).stderr
    )
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as holder:
        holder.bind(("127.0.0.1", 0))
        taken = holder.getsockname()[1]
        done = home.run("port-forward", "start", "service", "dns", f"{taken}:53", "--name", "x", code=4)
        assert f"UDP port {taken} on 127.0.0.1 is taken by" in done.stderr
    assert [one["name"] for one in home.json("port-forward", "list")] == ["default-dns"]
    assert home.run("doctor", code=None).stdout.count(f"port {port}") == 0

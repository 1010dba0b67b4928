"""Who holds a port."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from kecs import procnet
from kecs.net import holder


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_the_process_that_listens_is_named(host):
    family = "AF_INET6" if ":" in host else "AF_INET"
    program = (
        f"import socket; s = socket.socket(socket.{family}); s.bind(('{host}', 0)); s.listen();"
        "print(s.getsockname()[1], flush=True); input()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with process:
        port = int(process.stdout.readline())
        name = Path(f"/proc/{process.pid}/comm").read_text().strip()

        assert holder.holder_of(port) == f"{name} (pid {process.pid})"
        process.communicate("\n")


def test_of_processes_that_share_a_listener_the_first_is_named():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        child = subprocess.Popen(
            [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=[sock.fileno()]
        )
        with child:
            found = holder.holder_of(sock.getsockname()[1])
            child.communicate(b"\n")

    assert found is not None
    assert found.endswith(f"(pid {os.getpid()})")


def test_a_free_port_has_no_holder():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]

    assert holder.holder_of(port) is None


def test_of_a_process_that_may_not_be_looked_into_the_user_is_named(monkeypatch):
    row = procnet.Socket(("0.0.0.0", 80), ("0.0.0.0", 0), procnet.LISTEN, 0, 2**40)
    monkeypatch.setattr(procnet, "tcp_sockets", lambda: [row])
    assert holder.holder_of(80) == "a process of user root"
    monkeypatch.setattr(procnet, "tcp_sockets", lambda: [row._replace(uid=2**31 - 5)])
    assert holder.holder_of(80) == f"a process of uid {2**31 - 5}"


def test_nothing_is_known_where_the_system_does_not_tell(monkeypatch):
    monkeypatch.setattr(procnet, "tcp_sockets", list)

    assert holder.holder_of(80) is None

"""The shim's parts on their own: what it loads, its log, its door, its look at ports."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from tests.runtimes.world import PYTHON, python

from kecs.runtimes import process, shim
from kecs.runtimes.shim.door import Door
from kecs.runtimes.shim.log import Log
from kecs.runtimes.shim.loop import READ, WRITE
from kecs.runtimes.shim.ports import Ports
from kecs.runtimes.shim.tree import Tree


class FakeLoop:
    """Remembers what was asked of it."""

    def __init__(self) -> None:
        self.watched: dict[int, tuple[int, Callable[[], None]]] = {}

    def watch(self, descriptor: int, events: int, callback: Callable[[], None]) -> None:
        self.watched[descriptor] = (events, callback)

    def unwatch(self, descriptor: int) -> None:
        self.watched.pop(descriptor, None)

    def call_later(self, seconds: float, callback: Callable[[], None]) -> SimpleNamespace:
        return SimpleNamespace(when=seconds, callback=callback, cancel=lambda: None)

    def turn(self) -> None:
        """Call back for all that is readable now."""
        for descriptor, (_, callback) in list(self.watched.items()):
            if descriptor in self.watched:
                callback()


def test_the_shim_loads_nothing_slow_and_nothing_foreign() -> None:
    """Each task pays for the modules of its shim; and without site-packages only our own are there."""
    code = """
import sys, json
sys.path.append(sys.argv[1])
from kecs.runtimes.shim import daemon
print(json.dumps(sorted(sys.modules)))
"""
    root = str(Path(shim.__file__).parents[3])
    done = subprocess.run(python(code, root), capture_output=True, text=True, check=True)
    loaded = set(json.loads(done.stdout))

    slow = {
        "asyncio",
        "dataclasses",
        "inspect",
        "logging",
        "msgspec",
        "pathlib",
        "subprocess",
        "typing",
        "site",
    }
    assert loaded & slow == set()
    assert {name.partition(".")[0] for name in loaded} <= {*sys.stdlib_module_names, "kecs", "__main__"}


def test_the_shim_starts_by_its_path_alone() -> None:
    """It finds its own package without a path in the environment; without a control plane it goes."""
    done = subprocess.run(
        [PYTHON, "-I", "-S", str(Path(shim.__file__).parent / "__main__.py"), "/no/such/folder"],
        capture_output=True, text=True, env={"KECS_TASK_ARN": "x"}, check=False,
    )  # fmt: skip
    assert "FileNotFoundError" in done.stderr
    assert "ModuleNotFoundError" not in done.stderr


def test_a_log_rotates_and_keeps_one_older_file(tmp_path: Path) -> None:
    """No file exceeds the limit, nothing of the last two files is lost, and a new shim appends."""
    path = tmp_path / "app.log"
    log = Log(str(path), limit=10)
    for number in range(5):
        log.write(b"%04d\n" % number)
    log.close()
    assert (path.read_bytes(), Path(f"{path}.1").read_bytes()) == (b"0004\n", b"0002\n0003\n")
    assert path.stat().st_mode & 0o777 == 0o600

    log = Log(str(path), limit=10)
    log.write(b"0005\n")
    log.write(b"longer than a whole file\n")
    log.close()
    assert (path.read_bytes(), Path(f"{path}.1").read_bytes()) == (
        b"longer than a whole file\n", b"0004\n0005\n",
    )  # fmt: skip


def test_a_full_disk_costs_output_only(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """What cannot be written is dropped and said once."""
    (tmp_path / "app.log").symlink_to("/dev/full")
    log = Log(str(tmp_path / "app.log"))
    log.write(b"one")
    log.write(b"two")
    log.close()

    assert capfd.readouterr().err.count("No space left on device; output is lost") == 1


@pytest.fixture
def loop() -> FakeLoop:
    return FakeLoop()


@pytest.fixture
def orders() -> list[str]:
    return []


@pytest.fixture
def door(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loop: FakeLoop, orders: list[str]):
    monkeypatch.chdir(tmp_path)
    door = Door(loop, orders.append)  # type: ignore[arg-type]
    yield door
    door.close(0.1)
    assert not (tmp_path / "shim.sock").exists()
    assert loop.watched == {}


def test_a_slow_reader_gets_the_newest_state_whole(door: Door, loop: FakeLoop) -> None:
    """What was begun is finished, what was never begun and is old is skipped."""
    with process.connect_in(".", "shim.sock") as reader:
        loop.turn()
        for number in range(20):
            door.tell({"number": number, "padding": "x" * 100_000})
        assert [events for events, _ in loop.watched.values()].count(READ | WRITE) == 1
        received = b""
        while b'"number": 19' not in received or not received.endswith(b"\n"):
            received += reader.recv(1 << 20)
            loop.turn()
        numbers = [json.loads(line)["number"] for line in received.splitlines()]

    assert numbers == sorted(numbers)
    assert len(numbers) < 20
    loop.turn()


def test_the_door_is_private_and_takes_orders(door: Door, loop: FakeLoop, orders: list[str]) -> None:
    """Orders come in pieces or several at once; nonsense is ignored; a new guest hears the state."""
    assert Path("shim.sock").stat().st_mode & 0o777 == 0o600
    door.tell({"n": 1})
    with process.connect_in(".", "shim.sock") as guest:
        loop.turn()
        assert guest.recv(100) == b'{"n": 1}\n'
        for piece in (
            b'{"order": "st',
            b'op"}\n{"order": "kill"}\nnonsense\n[]\n{}\n',
            b'{"order": "stop"}\n',
        ):
            guest.sendall(piece)
            loop.turn()
    loop.turn()

    assert orders == ["stop", "kill", "stop"]


def test_another_user_is_turned_away(door: Door, loop: FakeLoop, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder keeps others out already; the door looks all the same."""
    monkeypatch.setattr(process, "peer_uid", lambda _: os.getuid() + 1)
    door.tell({"n": 1})
    with process.connect_in(".", "shim.sock") as guest:
        loop.turn()
        assert guest.recv(100) == b""


def test_a_listener_that_a_child_keeps_goes_on_being_told(tmp_path: Path, loop: FakeLoop) -> None:
    """A server that hands its socket to a child and closes its own copy still listens."""
    code = """
import os, socket, sys
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
sys.stdin.readline()
if os.fork():
    listener.close()
    print("closed", flush=True)
sys.stdin.read()
"""
    tree, changes = Tree("arn"), []
    web = SimpleNamespace(name="web", pid=None, ports=[], listening=[], exited=False)
    ports = Ports([web], loop, tree, lambda: changes.append(list(web.listening)))  # type: ignore[arg-type, list-item]
    with subprocess.Popen(python(code), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        port = int(server.stdout.readline())
        tree.add(server.pid, "web")
        web.pid, web.ports = server.pid, [port]
        ports.started()
        ports._tick()
        assert web.listening == [("127.0.0.1", port)]
        server.stdin.write("\n")
        server.stdin.flush()
        assert server.stdout.readline() == "closed\n"
        ports._tick()

        assert changes == [[("127.0.0.1", port)]]
        with socket.create_connection(("127.0.0.1", port)):
            pass
        server.stdin.close()

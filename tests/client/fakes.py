"""A temporary home whose daemons are `fake_daemon.py`, and a socket that answers by script."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from kecs.client import instance as instances
from kecs.client import launch
from kecs.client.instance import Instance
from kecs.paths import InstancePaths

SCRIPT = Path(__file__).with_name("fake_daemon.py")


class FakeHome:
    """A home under a short path (the limit of socket paths); `close` ends what was started in it."""

    def __init__(self, monkeypatch) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="kecs-", dir="/tmp"))
        self.paths = InstancePaths(self.path, "default")
        self.monkeypatch = monkeypatch
        monkeypatch.setenv("KECS_HOME", str(self.path))
        monkeypatch.setenv("KECS_RUNTIME", "local")  # no cluster is made where k3d is installed
        for name in ("KECS_INSTANCE", "KECS_FAKE", "AWS_REGION", "AWS_DEFAULT_REGION", "NO_COLOR"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setattr(launch, "command", self.command)

    @staticmethod
    def command(daemon: str, paths: InstancePaths, extra: Sequence[str] = ()) -> list[str]:
        return [
            *(sys.executable, str(SCRIPT), daemon),
            *("--home", str(paths.home), "--instance", paths.name),
            *extra,
        ]

    def daemons_do(self, **does: object) -> None:
        """Say what the daemons do that are started from now on."""
        self.monkeypatch.setenv("KECS_FAKE", json.dumps(does))

    def make_folders(self) -> None:
        self.paths.forward_logs.mkdir(parents=True, exist_ok=True, mode=0o700)

    def instance(self, name: str = "default", **members: object) -> Instance:
        """Write an `instance.yaml`."""
        self.make_folders()
        paths = InstancePaths(self.path, name)
        paths.root.mkdir(exist_ok=True)
        known = {
            "name": name,
            "id": "0123abcd",
            "region": "us-east-1",
            "api_port": 5373,
            "desired": "running",
            "access_key_id": "KECSAAAAAAAAAAAAAAAA",
            "directory": "/",
            "created_at": 1.0,
        }
        made = Instance(**(known | members))
        instances.write(paths, made)
        return made

    def forwards(self, *entries: dict[str, object]) -> None:
        """Write a `config.yaml` of the agent."""
        self.make_folders()
        self.paths.forwards_config.write_text(json.dumps({"version": 1, "forwards": list(entries)}))

    def starts(self, daemon: str) -> int:
        """Count how often a daemon was started."""
        file = self.paths.root / f"{daemon}-starts"
        return len(file.read_text().split()) if file.exists() else 0

    def asked(self, daemon: str) -> str:
        file = (self.paths.forwards if daemon == "agent" else self.paths.root) / "asked"
        return file.read_text() if file.exists() else ""

    def alive(self) -> list[int]:
        """Return the processes whose command line names this home."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if os.fsencode(self.path) in (folder / "cmdline").read_bytes():
                    found.append(int(folder.name))
        return found

    def close(self) -> None:
        for pid in self.alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        until(lambda: not self.alive(), "the daemons of the test have ended")
        shutil.rmtree(self.path, ignore_errors=True)


class Script(threading.Thread):
    """A Unix socket that hands each connection to `answer`, one after the other, until it is closed."""

    def __init__(self, path: Path, answer: Callable[[socket.socket], None]) -> None:
        super().__init__(daemon=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        self.listener.listen()
        self.answer = answer
        self.start()

    def run(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            with connection, contextlib.suppress(OSError):
                self.answer(connection)

    def __enter__(self):
        return self

    def __exit__(self, *_) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.join(5)


def at_once(call: Callable[[], object], times: int = 3) -> list[BaseException]:
    """Call it on so many threads at once; return what they raised once all have ended."""
    failed: list[BaseException] = []

    def one() -> None:
        try:
            call()
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=one) for _ in range(times)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return failed


def until(condition: Callable[[], object], what: str, seconds: float = 10.0) -> None:
    """Poll `condition` until it is true."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(0.01)


def row(**members: object) -> dict[str, object]:
    """Return a row of `forward.list`."""
    return {
        "id": "pf-0123abcd",
        "name": "prod-web",
        "type": "service",
        "region": "us-east-1",
        "cluster": "prod",
        "service": "web",
        "taskId": None,
        "tags": {},
        "address": ["127.0.0.1", "::1"],
        "localPort": 20000,
        "targetPort": 80,
        "protocol": "tcp",
        "state": "ACTIVE",
        "reason": None,
        "endpoints": [
            {
                "taskId": "0123456789abcdef0123456789abcdef",
                "route": {"kind": "direct", "host": "127.0.0.1", "port": 29999},
                "ready": True,
                "draining": False,
                "open": 1,
                "byNode": False,
            }
        ],
        "route": "direct",
        "routeWanted": "auto",
        "connections": {"open": 1, "total": 2, "held": 0},
        "bytes": {"in": 1200, "out": 34_000_000},
        "lastError": None,
        "createdAt": 1.0,
        "autoReconnect": True,
        "owner": None,
        "auto": False,
        "publish": None,
        "matched": None,
        "chosen": None,
    } | members

"""A real k3d and Docker with the face of `ScriptedK3d`, for `KECS_TEST_K3D=1`.

It sees and deletes clusters whose names begin with `kecs-t-` only. `hold` does nothing and `wait_held` polls
until Docker shows that the step is reached: a real program goes on.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

PREFIX = "kecs-t-"
SECRETS: tuple[str, ...] = ()


class RealK3d:
    def __init__(self, folder: Path):
        folder.mkdir(parents=True)
        home = folder / "home"
        (home / ".kube").mkdir(parents=True)
        self.users_kubeconfig = home / ".kube" / "config"
        self.users_kubeconfig.write_text("apiVersion: v1\nkind: Config\n")
        kept = {key: value for key, value in os.environ.items() if key.startswith("DOCKER_")}
        self.environment = {"PATH": os.environ["PATH"], "HOME": str(home), **kept}
        self._taken: socket.socket | None = None
        self._spawned: list[subprocess.Popen] = []
        self._clean()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.give_back()
        for process in self._spawned:
            if process.returncode is None:
                process.kill()
                process.communicate()
        self._clean()

    def _clean(self) -> None:
        for name in {each["labels"].get("k3d.cluster", "") for each in self._inspected()}:
            self.run("cluster", "delete", name)
        for line in self._docker("network", "ls", "--format", "{{.ID}} {{.Name}}").splitlines():
            if line.split()[1].startswith(f"k3d-{PREFIX}"):
                self.run("network", "rm", line.split()[0], program="docker")

    def take(self, port: int) -> None:
        """Listen on a port."""
        self._taken = socket.create_server(("127.0.0.1", port))

    def give_back(self) -> None:
        """Listen no more."""
        if self._taken is not None:
            self._taken.close()

    def hold(self, step: str) -> None:
        """Nothing: a real program is not held."""

    def release(self, step: str, pid: int | None = None) -> None:
        """Nothing."""

    def can_reach(self, step: str) -> bool:
        """Tell whether Docker shows that a program is at `step`."""
        return step in REACHED

    def wait_held(self, step: str, count: int = 1, limit: float = 120.0) -> list[int]:
        """Wait until Docker shows that a program has come to `step`; return the pids of k3d that do this."""
        self.wait_for(REACHED[step], limit)
        return _pids(b"edit" if step.startswith("edit") else b"create")

    def wait_for(self, fits, limit: float = 120.0) -> dict[str, str]:
        """Wait until the containers and their states are as `fits` wants; return them."""
        end = time.monotonic() + limit
        while time.monotonic() < end:
            if fits(states := self.containers()):
                return states
            time.sleep(0.05)
        raise AssertionError(f"it did not come to that: {self.containers()}")

    def run(self, *words: str, program: str = "k3d", limit: float = 300.0) -> subprocess.CompletedProcess:
        """Run one of the programs as a person does."""
        return subprocess.run(
            [str(shutil.which(program)), *words],
            env={**self.environment, "LOG_COLORS": "false"},
            capture_output=True,
            text=True,
            timeout=limit,
        )

    def spawn(self, *words: str, program: str = "k3d") -> subprocess.Popen:
        """Start one of the programs."""
        process = subprocess.Popen(
            [str(shutil.which(program)), *words],
            env={"LOG_COLORS": "false", **self.environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._spawned.append(process)
        return process

    def containers(self) -> dict[str, str]:
        """Names of the containers with their states."""
        return {each["name"]: each["state"] for each in self._inspected()}

    def ports(self, name: str) -> list[tuple[str, int, int]]:
        """What a container publishes: address, host port, container port."""
        for each in self._inspected():
            if each["name"] == name:
                return [
                    (binding["HostIp"], int(binding["HostPort"]), int(port.split("/")[0]))
                    for port, bindings in each["bindings"].items()
                    for binding in bindings
                ]
        raise AssertionError(f"no container {name}")

    def is_empty(self) -> bool:
        """Tell whether nothing of our clusters is left."""
        networks = self._docker("network", "ls", "--format", "{{.Name}}").split()
        volumes = self._docker("volume", "ls", "--format", "{{.Name}}").split()
        return not self._inspected() and not any(
            name.startswith(f"k3d-{PREFIX}") for name in networks + volumes
        )

    def _docker(self, *words: str) -> str:
        return self.run(*words, program="docker").stdout

    def _inspected(self) -> list[dict]:
        listed = self._docker("ps", "-a", "--filter", f"name=k3d-{PREFIX}", "--format", "{{.Names}}").split()
        if not listed:
            return []
        return [
            {
                "name": each["Name"].lstrip("/"),
                "state": each["State"]["Status"],
                "labels": each["Config"]["Labels"],
                "bindings": each["HostConfig"]["PortBindings"] or {},
            }
            for each in json.loads(self._docker("inspect", *listed) or "[]")
        ]


def _pids(word: bytes) -> list[int]:
    """Processes of k3d that work on a cluster of ours."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        ours = any(PREFIX.encode() in each for each in words)
        if ours and word in words and any(each.endswith(b"k3d") for each in words[:5]):
            found.append(int(path.parent.name))
    return found


def _running(part: str):
    return lambda states: any(part in name and state == "running" for name, state in states.items())


REACHED = {
    "up:server-started": _running("-server-0"),
    "up:balancer-started": _running("-serverlb"),
    "edit:stopping": lambda states: (
        any(name.endswith("-serverlb") and state == "created" for name, state in states.items())
        and _running("-serverlb-")(states)
    ),
}

"""What the scripted `k3d` and `docker` share: one folder with a state, faults, holds and a record of calls.

Plain standard library: the programs run isolated. Every change is a transaction under a file lock, as every
request to a Docker daemon is; a program that is killed between two leaves what a killed k3d leaves.
"""

import contextlib
import fcntl
import json
import os
import sys
import time
from pathlib import Path

TOKEN = "TOKENofTHEclusterXYZZY"
"""The cluster's token, which nobody may ever print."""
VERSION = "v5.9.0"
EMPTY = {"containers": {}, "networks": {}, "volumes": [], "next": 1}


class World:
    def __init__(self, folder):
        self.folder = Path(folder)
        self.pid = os.getpid()

    # What the test has set -------------------------------------------------------------------------------

    @property
    def config(self):
        return self._json("config.json")

    def fault(self, name, default=None):
        return self._json("faults.json").get(name, default)

    def _json(self, name):
        try:
            return json.loads((self.folder / name).read_text())
        except FileNotFoundError:
            return {}

    def sleep(self, seconds):
        time.sleep(self.scaled(seconds))

    def scaled(self, seconds):
        return seconds * self.config.get("scale", 0.01)

    def step(self, name):
        """A place where a test may hold this program: it says that it came here, and waits to be released."""
        hold = self.folder / "hold" / name
        if not hold.exists():
            return
        (self.folder / "held").mkdir(exist_ok=True)
        (self.folder / "held" / f"{name}.{self.pid}").touch()
        released = hold.with_name(f"{name}.not.{self.pid}")
        while hold.exists() and not released.exists():
            time.sleep(0.002)

    # What has been called --------------------------------------------------------------------------------

    def record(self, **what):
        with (self.folder / "calls.jsonl").open("a") as file:
            file.write(json.dumps({"pid": self.pid, "time": time.time(), **what}) + "\n")

    # The state -------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def transaction(self):
        with (self.folder / "state.lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            state = self._json("state.json") or json.loads(json.dumps(EMPTY))
            settle(state)
            yield state
            new = self.folder / f"state.{self.pid}"
            new.write_text(json.dumps(state))
            new.replace(self.folder / "state.json")

    def look(self):
        """The state as it is now; changes of it are lost."""
        with self.transaction() as state:
            return json.loads(json.dumps(state))

    # What it says ----------------------------------------------------------------------------------------

    def log(self, level, text):
        """One line as k3d logs it: info to stdout, the rest to stderr; colours unless told otherwise."""
        stream = sys.stdout if level == "info" else sys.stderr
        if os.environ.get("LOG_COLORS") == "false":
            moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\r", "\\r")
            line = f'time="{moment}" level={level} msg="{escaped}"'
        else:
            line = f"\x1b[36m{level[:4].upper()}\x1b[0m[0000] {text}"
        print(line, file=stream, flush=True)

    def info(self, text):
        self.log("info", text)


def settle(state):
    """Let containers die whose stop Docker goes on with, whoever asked for it and was killed since."""
    for container in state["containers"].values():
        if container["dies_at"] is not None and container["dies_at"] <= time.time():
            container.update(dies_at=None, status="exited", exit_code=container["dies_with"])


def new_id(state):
    state["next"] += 1
    return f"{state['next']:04x}" * 16


class Fatal(Exception):
    """What ends a k3d command with exit code 1."""


class DockerError(Exception):
    """What the Docker daemon answers to a request that it refuses."""

"""A scripted `k3d` and `docker`, for what cannot be installed where tests run, and for what rarely fails.

    with ScriptedK3d(tmp_path / "k3d") as k3d:
        tools = find(k3d.environment)          # PATH has these two programs and nothing else
        k3d.faults(docker_down=True)           # from now on; k3d.faults() takes all of them back

Both are one state machine over a folder (`fake/`): containers, networks, volumes, images. They print what k3d
5.9 printed, end with its exit codes, leave behind what it left; delays are the measured ones times `scale`.

Faults:

- `docker_down`, `docker_denied`; `docker_slow: SECONDS`;
- `hang: ["k3d cluster create", …]`: commands that begin so never end;
- `taken: [PORT, …]`: another program has them (with `listen=True` one that is really taken is found too);
- `server_slow: SECONDS`, `balancer_slow`: a create runs into its time-out; `rollback_fails`;
  `unstartable: [NAME]`; `stubborn_pod`, `stop_fails`;
- `delete_lies` (exit 0, nothing deleted), `delete_leaves: ["network", "volume"]`, `undeletable: [NAME]`,
  `undeletable_network`;
- `import_refused|import_hangs|import_lost: ["tools-node", "direct", "hand"]`: a node refuses the image; the
  command never ends; it loses the image and says nothing (`hand` is `docker save` and `ctr`); `ctr_fails`;
- `leak`: every command of k3d also logs lines with the cluster's token and key in them;
- `kubeconfig_late: N`: the first N have no user; `node_list_says: TEXT`.

Steps where a program can be held (`hold`, `wait_held`, `release`), to kill it or to start a second one there:
`create:network-looked`, `create:network-made`, `create:nodes-created`, `up:server-started`,
`up:balancer-started`, `edit:looked`, `edit:renamed`, `edit:created`, `edit:stopping`, `edit:started`,
`stop:begun`, `delete:begun`, `import:importing`.

With `listen=True` published ports are real: something like docker-proxy accepts on them, and relays to
`backends[container port]`, or resets. `use_api(kubeconfig)` puts a (scripted) API server behind the cluster:
its credentials are what `k3d kubeconfig get` prints, and port 6443 of the nodes leads to it.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

PROGRAM = Path(__file__).parent / "fake" / "main.py"
TOKEN = "TOKENofTHEclusterXYZZY"
SECRETS = (TOKEN, "S2VZb2ZUSEVjbHVzdGVyWFlaWlk=", "Q0VSVFhZWlpZ", "Q0FYWVpaWQ==")
"""Token, key, certificates: none may ever be shown or logged."""


class ScriptedK3d:
    def __init__(self, folder: Path, *, scale: float = 0.01, listen: bool = False, version: str = "v5.9.0"):
        self.folder = folder
        self.bin = folder / "bin"
        self.bin.mkdir(parents=True)
        self._spawned: list[subprocess.Popen] = []
        self._config = {"scale": scale, "listen": listen, "k3d_version": version, "images": {}}
        self._write("config.json", self._config)
        for name in ("k3d", "docker"):
            program = self.bin / name
            program.write_text(
                f'#!/bin/sh\nexec "{sys.executable}" -I -S "{PROGRAM}" {name} "{folder}" "$@"\n'
            )
            program.chmod(0o755)
        home = folder / "home"
        (home / ".kube").mkdir(parents=True)
        self.users_kubeconfig = home / ".kube" / "config"
        self.users_kubeconfig.write_text("# the user's own\n")
        self.environment = {"PATH": str(self.bin), "HOME": str(home)}
        """The environment of a user: this PATH, a home folder with a kubeconfig."""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self) -> None:
        """End what stands for docker-proxy, and programs that were held or hang."""
        for path in (self.folder / "proxies").glob("*"):
            with contextlib.suppress(ValueError, ProcessLookupError):
                os.kill(int(path.read_text()), signal.SIGKILL)
        for process in self._spawned:
            if process.returncode is None:
                process.kill()
                process.communicate()
        ended = {call["pid"] for call in self._calls() if call.get("ended")}
        for call in self._calls():
            if call["pid"] not in ended and self._is_ours(call["pid"]):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(call["pid"], signal.SIGKILL)

    def _is_ours(self, pid: int) -> bool:
        try:
            return str(self.folder).encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            return False

    # What to do ------------------------------------------------------------------------------------------

    def configure(self, **settings) -> None:
        """Change `scale`, `listen`, `k3d_version`, `images` (name -> id in Docker), `credentials`."""
        self._config |= settings
        self._write("config.json", self._config)

    def faults(self, **faults) -> None:
        """Switch these faults on and all others off."""
        self._write("faults.json", faults)

    def take(self, port: int) -> None:
        """Let another program have a port, and no other; `give_back` ends that."""
        self.faults(taken=[port])

    def give_back(self) -> None:
        """Take all faults back, and with them taken ports."""
        self.faults()

    def hold(self, step: str) -> None:
        """Let each program that comes to `step` wait there."""
        (self.folder / "hold").mkdir(exist_ok=True)
        (self.folder / "hold" / step).touch()

    def release(self, step: str, pid: int | None = None) -> None:
        """Let go on whoever is held at `step`, and hold nobody there any more; with `pid` only that one."""
        if pid is None:
            (self.folder / "hold" / step).unlink(missing_ok=True)
        else:
            (self.folder / "hold" / f"{step}.not.{pid}").touch()

    def can_reach(self, step: str) -> bool:
        """Tell whether programs can be met at `step`."""
        return True

    def wait_held(self, step: str, count: int = 1, limit: float = 20.0) -> list[int]:
        """Wait until `count` programs have come to `step`; return their pids."""
        end = time.monotonic() + limit
        while time.monotonic() < end:
            found = [int(path.suffix[1:]) for path in (self.folder / "held").glob(f"{step}.*")]
            if len(found) >= count:
                return found
            time.sleep(0.005)
        raise AssertionError(f"nobody came to {step}")

    def backends(self, backends: dict[int, tuple[str, int]]) -> None:
        """Say where connections to a container port lead; others are accepted and reset."""
        self._write("backends.json", {str(port): list(address) for port, address in backends.items()})

    def use_api(self, kubeconfig: Path) -> None:
        """Put the API server of a kubeconfig (certificates or token as data or files) behind port 6443."""
        import base64

        import yaml

        document = yaml.safe_load(kubeconfig.read_text())
        cluster, user = document["clusters"][0]["cluster"], document["users"][0]["user"]

        def data(part, key):
            if f"{key}-data" in part:
                return part[f"{key}-data"]
            return base64.b64encode(Path(part[key]).read_bytes()).decode() if key in part else None

        credentials = {
            "ca": data(cluster, "certificate-authority"),
            "certificate": data(user, "client-certificate"),
            "key": data(user, "client-key"),
            "token": user.get("token"),
        }
        self.configure(credentials={key: value for key, value in credentials.items() if value})
        address = urlsplit(cluster["server"])
        self.backends({6443: (address.hostname, address.port)})

    def run(self, *words: str, program: str = "k3d", limit: float = 60.0) -> subprocess.CompletedProcess:
        """Run one of the programs as a person does."""
        return subprocess.run(
            [str(self.bin / program), *words],
            env={**self.environment, "LOG_COLORS": "false"},
            capture_output=True,
            text=True,
            timeout=limit,
        )

    def spawn(self, *words: str, program: str = "k3d") -> subprocess.Popen:
        """Start one of the programs; its pid is the program's own, and it ends with this object."""
        process = subprocess.Popen(
            [str(self.bin / program), *words],
            env={"LOG_COLORS": "false", **self.environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._spawned.append(process)
        return process

    # What to see -----------------------------------------------------------------------------------------

    @property
    def state(self) -> dict:
        """The state as Docker has it now."""
        code = f"import sys; sys.path.insert(0, {str(PROGRAM.parent)!r}); import json, world"
        code += f"; print(json.dumps(world.World({str(self.folder)!r}).look()))"
        done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, check=True)
        return json.loads(done.stdout)

    def containers(self) -> dict[str, str]:
        """Names of the containers with their states."""
        return {each["name"]: each["status"] for each in self.state["containers"].values()}

    def wait_for(self, fits, limit: float = 20.0) -> dict[str, str]:
        """Wait until the containers and their states are as `fits` wants; return them."""
        end = time.monotonic() + limit
        while time.monotonic() < end:
            if fits(states := self.containers()):
                return states
            time.sleep(0.02)
        raise AssertionError(f"it did not come to that: {self.containers()}")

    def ports(self, name: str) -> list[tuple[str, int, int]]:
        """What a container publishes: address, host port, container port."""
        for each in self.state["containers"].values():
            if each["name"] == name:
                return [(address, host, container) for address, host, container, _ in each["ports"]]
        raise AssertionError(f"no container {name}")

    def is_empty(self) -> bool:
        """Tell whether Docker has no container, network or volume (any more)."""
        state = self.state
        return not (state["containers"] or state["networks"] or state["volumes"])

    def calls(self, *beginning: str, program: str = "k3d") -> list[list[str]]:
        """The words of each call of a program so far, of those that begin with `beginning`."""
        found = [call["words"] for call in self._calls() if call.get("program") == program]
        return [words for words in found if tuple(words[: len(beginning)]) == beginning]

    def environments(self) -> list[dict]:
        """What was in the environment of each call: LOG_COLORS, KUBECONFIG, TMPDIR, DOCKER_HOST."""
        return [call["environment"] for call in self._calls() if "environment" in call]

    def overlaps(self) -> int:
        """How often an edit began while another one ran."""
        return sum("overlap" in call for call in self._calls())

    def forget_calls(self) -> None:
        """Begin a new record."""
        (self.folder / "calls.jsonl").unlink(missing_ok=True)

    def _calls(self) -> list[dict]:
        path = self.folder / "calls.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def _write(self, name: str, document) -> None:
        new = self.folder / f"{name}.new"
        new.write_text(json.dumps(document))
        new.replace(self.folder / name)

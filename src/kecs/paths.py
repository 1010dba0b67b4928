"""Every file and socket of an instance, in one place (docs/design/contracts.md, section 4).

Nothing here touches the disk: `kecs.files` creates, reads and writes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from kecs.errors import ExitCode, KecsError

MAX_SOCKET_PATH = 103
"""Bytes of a socket path that every platform takes (`sun_path` is 104 with its NUL on macOS)."""

_INSTANCE_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,25}[a-z0-9])?")


def check_instance_name(name: str) -> str:
    """Return `name` when it can name an instance, else raise a usage error."""
    if not _INSTANCE_NAME.fullmatch(name):
        raise KecsError(
            f"`{name}` cannot name an instance",
            "use 1 to 27 of a-z, 0-9 and `-`, beginning and ending with a letter or digit",
            ExitCode.USAGE,
        )
    return name


def instance_flag(name: str) -> str:
    """Return what a command for this instance ends with: ` --instance NAME`, or nothing for `default`."""
    return "" if name == "default" else f" --instance {name}"


@dataclass(frozen=True)
class InstancePaths:
    """Where the files of one instance live."""

    home: Path
    """KECS_HOME, absolute."""
    name: str
    """The instance's name, already checked."""

    @property
    def root(self) -> Path:
        """The instance's folder."""
        return self.home / "instances" / self.name

    @property
    def instance_file(self) -> Path:
        """What the person asked for: runtime, ports, desired state."""
        return self.root / "instance.yaml"

    @property
    def instance_lock(self) -> Path:
        """Held (flock) around each read-change-write of `instance_file`."""
        return self.root / "instance.lock"

    @property
    def controlplane_socket(self) -> Path:
        """Where the control plane serves `/_kecs/*`."""
        return self._socket(self.root / "controlplane.sock")

    @property
    def controlplane_pid(self) -> Path:
        """Process id of the control plane."""
        return self.root / "controlplane.pid"

    @property
    def controlplane_lock(self) -> Path:
        """Held (flock) by the control plane for life."""
        return self.root / "controlplane.lock"

    @property
    def controlplane_log(self) -> Path:
        """Log of the control plane."""
        return self.root / "controlplane.log"

    @property
    def database(self) -> Path:
        """State of ECS; only the control plane opens it."""
        return self.root / "kecs.duckdb"

    @property
    def secrets_file(self) -> Path:
        """Values that `kecs secrets set` keeps."""
        return self.root / "secrets.yaml"

    @property
    def s3(self) -> Path:
        """Folder that stands for S3: `s3/<bucket>/<key>`."""
        return self.root / "s3"

    @property
    def tasks(self) -> Path:
        """Folder of local tasks: `tasks/<id>/state.json`, `<container>.log`."""
        return self.root / "tasks"

    @property
    def kubeconfig(self) -> Path:
        """How the cluster that KECS made is reached: runtime `k3d` only."""
        return self.root / "kubeconfig"

    @property
    def k3d_lock(self) -> Path:
        """Held (flock) around each change that the program `k3d` makes (`kecs.k3d`)."""
        return self.root / "k3d.lock"

    @property
    def life_lock(self) -> Path:
        """Held (flock) by the command that starts, stops or destroys an instance on k3d."""
        return self.root / "life.lock"

    @property
    def forwards(self) -> Path:
        """The agent's folder."""
        return self.root / "port-forwards"

    @property
    def agent_socket(self) -> Path:
        """Where the agent serves JSON-RPC."""
        return self._socket(self.forwards / "agent.sock")

    @property
    def agent_pid(self) -> Path:
        """Process id of the agent."""
        return self.forwards / "agent.pid"

    @property
    def agent_lock(self) -> Path:
        """Held (flock) by the agent for life."""
        return self.forwards / "agent.lock"

    @property
    def forwards_config(self) -> Path:
        """Each forward with its chosen port and owner; fsynced before a reply."""
        return self.forwards / "config.yaml"

    @property
    def forwards_state(self) -> Path:
        """What the agent last saw; for display, may be lost."""
        return self.forwards / "state.yaml"

    @property
    def forward_logs(self) -> Path:
        """Folder of `agent.log` and `<forward name>.log`."""
        return self.forwards / "logs"

    @property
    def agent_log(self) -> Path:
        """Log of the agent."""
        return self.forward_logs / "agent.log"

    def _socket(self, path: Path) -> Path:
        size = len(bytes(path))
        if size > MAX_SOCKET_PATH:
            raise KecsError(
                f"the socket path `{path}` has {size} bytes, more than {MAX_SOCKET_PATH}",
                "set KECS_HOME to a shorter folder",
                ExitCode.USAGE,
            )
        return path


def instances(home: Path) -> Path:
    """Folder that holds one folder for each instance."""
    return home / "instances"

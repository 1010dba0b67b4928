"""A machine of the cluster: network, mount and process namespaces held by one process.

Used by `cluster` for the control plane and for each node. The namespaces are nameless and live as long as
their first process: when it dies the kernel kills every process in them (components, containerd, pods),
drops their mounts and their links. So taking a machine down is one kill, whatever state it is in, and a
test run that crashes closes the pipe that the first process reads, which is the same end.

What runs in a machine sees this computer's files, with these exceptions, so that nothing outside the
cluster's own folder is ever written: `/run`, `/var/lib` and `/var/log` are empty memory file systems (the
kubelet, the shims of containerd, CNI and iptables keep fixed paths there), and the kernel settings that a
kubelet sets for the whole computer (`/proc/sys/vm/…`) are covered by scratch files. Settings below
`/proc/sys/net` belong to the network namespace and are the machine's own.

Programs enter by `nsenter`, not `ip netns exec`: that one mounts a new `/sys`, which hides the cgroup
mounts from containerd.
"""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

from tests.cluster.harness import procs
from tests.process.harness import until

# The settings of kubelet/pkg/cm setupKernelTunables.
KERNEL_SETTINGS = (
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
)
# With SIGCHLD ignored, the kernel reaps what is orphaned to the first process, such as containerd's shims.
FIRST_PROCESS = """
set -eu
for hidden in /run /var/lib /var/log; do mount -t tmpfs -o mode=755 tmpfs $hidden; done
mkdir -p /run/netns
for name in $SETTINGS; do
  scratch="$FOLDER/sys/$name"
  mkdir -p "${scratch%/*}"
  cat "/proc/sys/$name" > "$scratch"
  mount --bind "$scratch" "/proc/sys/$name"
done
ip link set lo up
echo 1 > /proc/sys/net/ipv4/ip_forward
echo ready > "$FOLDER/ready"
case $LASTING in
  yes) exec env --ignore-signal=CHLD sleep infinity ;;
  no) exec env --ignore-signal=CHLD cat ;;
esac
"""
NEW_NAMESPACES = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
START_SECONDS = 15


class Machine:
    """Namespaces of one machine; `close` ends everything in them."""

    def __init__(self, name: str, folder: Path, *, lasting: bool) -> None:
        """Start it. A `lasting` machine outlives this process; any other ends with it."""
        self.name = name
        self.folder = folder
        folder.mkdir()
        environment = {
            "PATH": os.environ["PATH"],
            "FOLDER": str(folder),
            "SETTINGS": " ".join(KERNEL_SETTINGS),
            "LASTING": "yes" if lasting else "no",
        }
        log = (folder / "machine.log").open("wb")
        with log:
            self._holder = subprocess.Popen(
                [*NEW_NAMESPACES, "sh", "-c", FIRST_PROCESS],
                env=environment,
                stdin=subprocess.DEVNULL if lasting else subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        until(self._ready, f"machine {name} is ready", seconds=START_SECONDS)
        self.pid = procs.only_child(self._holder.pid)

    def _ready(self) -> bool:
        if self._holder.poll() is not None:
            raise RuntimeError(f"machine {self.name} ended: {(self.folder / 'machine.log').read_text()}")
        return (self.folder / "ready").exists()

    @property
    def holders(self) -> list[int]:
        """The processes whose death is the machine's."""
        return [self.pid, self._holder.pid]

    def entering(self, *command: str | Path) -> list[str]:
        """Return the command line that runs `command` in this machine."""
        target = ["nsenter", "--target", str(self.pid), "--net", "--mount", "--pid"]
        return [*target, "--", *map(str, command)]

    def run(self, *command: str | Path, seconds: float = 60) -> str:
        """Run a command in this machine; return its output. Raises RuntimeError with it on failure."""
        return procs.run(*self.entering(*command), seconds=seconds)

    def close(self) -> None:
        """Kill every process of the machine and wait until its mounts are gone with them."""
        procs.kill(self.pid, signal.SIGKILL)
        self._holder.wait(30)
        if self._holder.stdin:
            self._holder.stdin.close()

"""A Kubernetes cluster on this computer: bring it up, use it, break it, take it down.

Used by the fixtures of `tests/cluster`, by `make bench` and by `python -m tests.cluster.harness`. From
nothing to a ready node takes about five seconds and 0.9 GB of memory, so a test whose fault would harm
others has a cluster of its own. Several stand side by side: each has a name (its folder), a number (its
network) and control groups of its own.

Faults: `cluster.controlplane.apiserver.kill()`, `.restart()`, `.pause()` and `.resume()`, the same for
`etcd`, `controllers`, `scheduler` and each node's `kubelet`, `containerd` and `proxy`; `node.cut()` and
`.mend()`; `cut_controlplane()`; `node.machine.close()` for a node that loses power.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.cluster.harness import build, certificates, cgroups, images, ledger, network, procs
from tests.cluster.harness.certificates import Authority
from tests.cluster.harness.component import Component, wait
from tests.cluster.harness.controlplane import ControlPlane
from tests.cluster.harness.machine import Machine
from tests.cluster.harness.network import CONTROL_PLANE, Network
from tests.cluster.harness.node import Node

READY_SECONDS = 90
LEASE_SECONDS = 40


@dataclass(frozen=True, slots=True)
class Options:
    """What a cluster is to be.

    `node_loss_seconds` is after how long a silent node counts as lost (Kubernetes' default is 50 s; at
    least 4 here); `controllers` are further flags of the controller manager.
    """

    nodes: int = 1
    node_loss_seconds: int | None = None
    controllers: list[str] = field(default_factory=list)


class Kubectl:
    """`kubectl` with one kubeconfig, of this computer's cluster or any other."""

    def __init__(self, kubeconfig: Path, cache: Path) -> None:
        """`cache` is a folder for what kubectl keeps."""
        self.kubeconfig = kubeconfig
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(cache),
            "KUBECONFIG": str(kubeconfig),
            "KUBECACHEDIR": str(cache),
        }

    def command(self, *arguments: str) -> list[str]:
        """Return the command line, for what is to run longer."""
        return [str(build.kube()), "kubectl", *arguments]

    def __call__(self, *arguments: str, text: str | None = None, seconds: float = 60) -> str:
        """Run it; return what it printed. Raises RuntimeError with its words when it fails."""
        return procs.run(*self.command(*arguments), seconds=seconds, text=text, env=self.environment)

    def start(self, *arguments: str, **options: Any) -> subprocess.Popen[Any]:
        """Start it and return at once; the caller ends it."""
        return subprocess.Popen(self.command(*arguments), env=self.environment, **options)

    def json(self, *arguments: str) -> Any:
        """Run it with `-o json`; return what it printed."""
        return json.loads(self(*arguments, "-o", "json"))

    def apply(self, *manifests: dict[str, Any]) -> None:
        """Apply objects."""
        self("apply", "-f", "-", text=json.dumps({"apiVersion": "v1", "kind": "List", "items": manifests}))


class Cluster:
    """One cluster. Made by `up`; `down` takes it away."""

    def __init__(self, made: ledger.Ledger, options: Options, *, lasting: bool) -> None:
        """Prepare everything; nothing runs yet except the machines."""
        self.folder = made.folder
        self.name = made.folder.name.removeprefix(ledger.PREFIX)
        self._made = made
        self._lasting = lasting
        self._options = options
        self._kube = build.kube()
        self._machines: list[Machine] = []
        self.network = self._network()
        self.authority = Authority(self.folder / "certificates")
        self.controlplane = ControlPlane(
            self._machine("control-plane", CONTROL_PLANE),
            self._kube,
            self.authority,
            self.network.address(CONTROL_PLANE),
            self._controller_flags(),
        )
        self.nodes = [self._node(number) for number in range(1, options.nodes + 1)]
        self.kubeconfig = self.controlplane.kubeconfig(self.folder / "kubeconfig", self.controlplane.admin)
        self.kubectl = Kubectl(self.kubeconfig, self.folder / "kubectl")

    @classmethod
    def up(cls, name: str | None = None, options: Options | None = None, *, lasting: bool = False) -> Cluster:
        """Bring a cluster up and wait until pods can run. A `lasting` one outlives this process.

        Raises RuntimeError where this computer cannot, FileExistsError when the name is taken, and
        ComponentDiedError with the end of its log when a part does not start.
        """
        build.require_machine()
        build.kube()
        build.server()
        ledger.sweep()
        made = ledger.Ledger.create(name or secrets.token_hex(3), lasting=lasting)
        try:
            cluster = cls(made, options or Options(), lasting=lasting)
            cluster._start()
        except BaseException:
            made.unmake()
            raise
        return cluster

    @property
    def components(self) -> list[Component]:
        """Everything that runs."""
        return [*self.controlplane.components, *(each for node in self.nodes for each in node.components)]

    def down(self) -> None:
        """Take it down, and check that nothing is left of it. Once is enough; again is no error."""
        if not self.folder.exists():
            return
        for machine in self._machines:
            machine.close()
        for component in self.components:
            component.wait_ended()
        self._made.unmake()
        if left := self.left():
            raise AssertionError(f"left of cluster {self.name}: {left}")

    def left(self) -> list[str]:
        """Return what is there of this cluster outside its folder: processes, mounts, groups, links."""
        mark = str(self.folder)
        mounts = [line for line in Path("/proc/self/mounts").read_text().splitlines() if mark in line]
        processes = [f"process {pid}" for pid in procs.mentioning(mark)]
        groups = [str(group) for group in cgroups.left(self._group(""))]
        return [*mounts, *processes, *groups, *self.network.links()]

    def load(self, image: Path) -> None:
        """Give an image to every node."""
        for node in self.nodes:
            node.load(image)

    def wait_ready(self) -> None:
        """Wait until the API server serves and every node is ready."""
        self.controlplane.wait_ready()
        wait(self._nodes_ready, "every node is ready", self._running(), READY_SECONDS)

    def cut_controlplane(self) -> None:
        """Cut the control plane off from nodes and clients: connections stay open and silent."""
        self.network.switch(CONTROL_PLANE, on=False)

    def mend_controlplane(self) -> None:
        """Plug it in again."""
        self.network.switch(CONTROL_PLANE, on=True)

    def kubeconfig_for(self, path: Path, user: dict[str, Any]) -> Path:
        """Write a kubeconfig for another user's entry, such as `{"token": …}` or `{"exec": …}`."""
        return certificates.write_kubeconfig(
            path, self.controlplane.server, self.authority.pair.certificate, user
        )

    def _network(self) -> Network:
        for number in network.free_numbers(ledger.taken()):
            self._made.number = number
            self._made.save()
            if network.claim(Network(number)):
                return Network(number)
            self._made.number = None
        raise RuntimeError("no network 10.77.N.0/24 is free")

    def _machine(self, name: str, host: int) -> Machine:
        machine = Machine(name, self.folder / name, lasting=self._lasting)
        self._machines.append(machine)
        self._made.add_process(*machine.holders)
        self.network.attach(machine, host)
        return machine

    def _node(self, number: int) -> Node:
        name = f"node-{number}"
        self._made.add_group(self._group(name))
        cgroups.make(self._group(name))
        loss = self._options.node_loss_seconds
        return Node(
            number,
            self._machine(name, network.FIRST_NODE + number),
            self.network,
            self._kube,
            group=self._group(name),
            lease_seconds=max(1, loss // 2) if loss else LEASE_SECONDS,
        )

    def _group(self, node: str) -> str:
        return f"{ledger.PREFIX}{self.name}-{node}"

    def _controller_flags(self) -> list[str]:
        flags = list(self._options.controllers)
        if loss := self._options.node_loss_seconds:
            flags += [f"--node-monitor-grace-period={loss}s", "--node-monitor-period=500ms"]
        return flags

    def _start(self) -> None:
        standard = images.standard(self.folder)
        with ThreadPoolExecutor() as pool:
            loading = [pool.submit(node.start_containerd, standard) for node in self.nodes]
            self.controlplane.start()
            for each in loading:
                each.result()
        for node in self.nodes:
            node.route_pods([other for other in self.nodes if other is not node])
            node.join(self.controlplane, self.authority)
        self.wait_ready()
        wait(self._accounts, "pods are admitted", self._running(), READY_SECONDS)

    def _running(self) -> list[Component]:
        return [component for component in self.components if component.running]

    def _nodes_ready(self) -> bool:
        found = json.loads(self.controlplane.answer("/api/v1/nodes") or b'{"items": []}')["items"]
        ready = [
            node["metadata"]["name"]
            for node in found
            if any(c["type"] == "Ready" and c["status"] == "True" for c in node["status"]["conditions"])
        ]
        return sorted(ready) == sorted(node.name for node in self.nodes)

    def _accounts(self) -> bool:
        # A controller makes it a moment after the namespace; pods are refused until then.
        return self.controlplane.answer("/api/v1/namespaces/default/serviceaccounts/default") is not None


def take_down(name: str) -> None:
    """Take down a lasting cluster that another process brought up. Raises FileNotFoundError."""
    folder = ledger.folder_of(name)
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no cluster {name!r} ({folder})")
    ledger.Ledger.load(folder).unmake()

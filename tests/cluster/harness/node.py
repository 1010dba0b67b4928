"""A node of a cluster: containerd, kubelet, kube-proxy and the bridge that its pods hang on.

Used by `cluster`. What has to be said to each, and why:

- containerd: root, state and socket in the machine's folder. `restrict_oom_score_adj`, because root may
  not lower oom scores everywhere; `disable_hugetlb_controller`, because the hierarchy may be missing; the
  sandbox image is ours, since there is no registry.
- kubelet: `cgroupDriver: cgroupfs` (no systemd) below the node's own root group, `failCgroupV1: false`
  (1.35 refuses version 1 otherwise), `failSwapOn: false`, no node allocatable groups; eviction and image
  collection so low that a full disk of this computer does not empty the node. Clients are authenticated
  by certificate or by the API server's token review. `nodeLeaseDurationSeconds` is how often the kubelet
  says that it lives: a quarter of it.
- kube-proxy: conntrack limits and time-outs 0, "leave as they are": those settings are read-only in a
  network namespace. `--iptables-min-sync-period` is how soon an endpoint's change is in the rules.
- CNI: addresses of pods keep their face inside the cluster and get the node's towards anything else; the
  plug-in's own `ipMasq` would hide pods from each other across nodes.
"""

from __future__ import annotations

import json
from pathlib import Path

import yaml
from tests.cluster.harness import procs
from tests.cluster.harness.certificates import Authority
from tests.cluster.harness.component import Component, wait
from tests.cluster.harness.controlplane import ControlPlane
from tests.cluster.harness.images import PAUSE
from tests.cluster.harness.machine import Machine
from tests.cluster.harness.network import DNS, PODS, Network, pod_network

CNI_PLUGINS = "/usr/lib/cni"
MAX_PODS = 200
START_SECONDS = 60


class Node:
    """Node number 1, 2, … of a cluster, with its three components."""

    def __init__(
        self,
        number: int,
        machine: Machine,
        network: Network,
        kube: Path,
        *,
        group: str,
        lease_seconds: int,
    ) -> None:
        """Prepare it. `group` is the name of its control group, which exists."""
        self.number = number
        self.name = machine.name
        self.machine = machine
        self.address = network.node_address(number)
        self.socket = machine.folder / "containerd.sock"
        self._network = network
        self._kube = kube
        self._write_cni()
        self._write_containerd()
        self._write_kubelet(group, lease_seconds)
        self.containerd = Component(
            "containerd", machine, ["containerd", "--config", machine.folder / "containerd.toml"]
        )
        self.kubelet = Component("kubelet", machine, self._kubelet_command())
        self.proxy = Component("kube-proxy", machine, self._proxy_command())
        self.components = [self.containerd, self.kubelet, self.proxy]

    def start_containerd(self, images: list[Path]) -> None:
        """Start containerd and give it images."""
        self.containerd.start()
        self.wait_containerd()
        for image in images:
            self.load(image)

    def wait_containerd(self) -> None:
        """Wait until containerd answers."""
        wait(
            lambda: self.ctr("version"),
            f"containerd of {self.name} answers",
            [self.containerd],
            START_SECONDS,
        )

    def join(self, controlplane: ControlPlane, authority: Authority) -> None:
        """Start the kubelet and kube-proxy, which register the node."""
        kubelet = authority.client(f"system:node:{self.name}", "system:nodes")
        proxy = authority.client("system:kube-proxy")
        controlplane.kubeconfig(self.machine.folder / "kubelet.kubeconfig", kubelet)
        controlplane.kubeconfig(self.machine.folder / "kube-proxy.kubeconfig", proxy)
        self.kubelet.start()
        self.proxy.start()

    def route_pods(self, others: list[Node]) -> None:
        """Let this node reach the pods of the others, and its own pods reach everything else."""
        for other in others:
            self.machine.run("ip", "route", "add", pod_network(other.number), "via", other.address)
        self.machine.run(
            *("iptables", "-t", "nat", "-A", "POSTROUTING", "-s", pod_network(self.number)),
            *("!", "-d", PODS, "-j", "MASQUERADE"),
        )

    def load(self, image: Path) -> None:
        """Import an image file."""
        self.ctr("images", "import", str(image))

    def ctr(self, *arguments: str) -> str:
        """Run containerd's own client in Kubernetes' namespace."""
        return procs.run("ctr", "--address", self.socket, "--namespace", "k8s.io", *arguments)

    def cut(self) -> None:
        """Cut the node off: its packets vanish, its processes go on."""
        self._network.switch(int(self.address.rpartition(".")[2]), on=False)

    def mend(self) -> None:
        """Plug the node in again."""
        self._network.switch(int(self.address.rpartition(".")[2]), on=True)

    def _write_cni(self) -> None:
        folder = self.machine.folder / "cni"
        folder.mkdir()
        addresses = {"type": "host-local", "ranges": [[{"subnet": pod_network(self.number)}]]}
        bridge = {
            "type": "bridge",
            "bridge": "cni0",
            "isGateway": True,
            "hairpinMode": True,
            "ipam": addresses | {"routes": [{"dst": "0.0.0.0/0"}]},
        }
        plugins = [bridge, {"type": "portmap", "capabilities": {"portMappings": True}}]
        content = {"cniVersion": "0.4.0", "name": "pods", "plugins": plugins}
        (folder / "10-pods.conflist").write_text(json.dumps(content))

    def _write_containerd(self) -> None:
        folder = self.machine.folder
        (folder / "containerd.toml").write_text(f"""version = 2
root = "{folder}/containerd/root"
state = "{folder}/containerd/state"
[grpc]
address = "{self.socket}"
[plugins."io.containerd.internal.v1.opt"]
path = "{folder}/containerd/opt"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{PAUSE}"
restrict_oom_score_adj = true
disable_hugetlb_controller = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{CNI_PLUGINS}"
conf_dir = "{folder}/cni"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
""")

    def _write_kubelet(self, group: str, lease_seconds: int) -> None:
        folder = self.machine.folder
        (folder / "resolv.conf").write_text("")
        content = {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": True},
                "x509": {"clientCAFile": str(folder.parent / "certificates/ca.crt")},
            },
            "authorization": {"mode": "Webhook"},
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": f"/{group}",
            "failCgroupV1": False,
            "failSwapOn": False,
            "enforceNodeAllocatable": [],
            "containerRuntimeEndpoint": f"unix://{self.socket}",
            "clusterDNS": [DNS],
            "clusterDomain": "cluster.local",
            "resolvConf": str(folder / "resolv.conf"),
            "podLogsDir": str(folder / "pod-logs"),
            "volumePluginDir": str(folder / "volume-plugins"),
            "maxPods": MAX_PODS,
            "nodeLeaseDurationSeconds": lease_seconds,
            "evictionHard": {
                "memory.available": "1Mi",
                "nodefs.available": "1Mi",
                "imagefs.available": "1Mi",
            },
            "imageGCHighThresholdPercent": 100,
        }
        (folder / "kubelet.yaml").write_text(yaml.safe_dump(content))

    def _kubelet_command(self) -> list[str | Path]:
        folder = self.machine.folder
        return [
            *(self._kube, "kubelet"),
            f"--config={folder}/kubelet.yaml",
            f"--kubeconfig={folder}/kubelet.kubeconfig",
            f"--node-ip={self.address}",
            f"--hostname-override={self.name}",
            f"--root-dir={folder}/kubelet",
            f"--cert-dir={folder}/kubelet-certificates",
        ]

    def _proxy_command(self) -> list[str | Path]:
        folder = self.machine.folder
        return [
            *(self._kube, "kube-proxy"),
            f"--kubeconfig={folder}/kube-proxy.kubeconfig",
            f"--hostname-override={self.name}",
            "--proxy-mode=iptables",
            f"--cluster-cidr={PODS}",
            "--conntrack-max-per-core=0",
            "--conntrack-tcp-timeout-established=0",
            "--conntrack-tcp-timeout-close-wait=0",
            "--iptables-min-sync-period=100ms",
        ]

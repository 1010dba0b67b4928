"""The control plane of a cluster: etcd, kube-apiserver, kube-controller-manager, kube-scheduler.

Used by `cluster`. It is a machine of its own, so that the API server can be cut off or killed without its
nodes, and a node without it. The flags that are not obvious:

- etcd `--unsafe-no-fsync`: nothing of a test cluster survives it, and fsync is most of etcd's start.
- `--authorization-mode Node,RBAC` as in any real cluster; the API server reaches kubelets as the
  administrator (`--kubelet-client-certificate`) at their address (`--kubelet-preferred-address-types`),
  because node names do not resolve.
- `--token-auth-file` gives static tokens, read once at the start: a test writes the file and restarts.
- `--use-service-account-credentials` lets each controller have the built-in role of its name;
  `--leader-elect=false` saves the seconds of an election between one candidate.
"""

from __future__ import annotations

import json
import ssl
import urllib.error
import urllib.request
from pathlib import Path

from tests.cluster.harness import certificates
from tests.cluster.harness.certificates import Authority, Pair
from tests.cluster.harness.component import Component, wait
from tests.cluster.harness.machine import Machine
from tests.cluster.harness.network import FIRST_SERVICE, SERVICES

PORT = 6443
ETCD = "http://127.0.0.1:2379"
ADMIN_TOKEN = "admin-token"
POWERLESS_TOKEN = "powerless-token"
READY_SECONDS = 90


class ControlPlane:
    """The control plane's machine and its four components."""

    def __init__(
        self, machine: Machine, kube: Path, authority: Authority, address: str, controllers: list[str]
    ) -> None:
        """Prepare it; `controllers` are further flags of the controller manager."""
        self.machine = machine
        self.server = f"https://{address}:{PORT}"
        self.tokens = machine.folder / "tokens.csv"
        self._authority = authority
        self._kube = kube
        self.admin = authority.client("kubernetes-admin", "system:masters")
        self.write_tokens(
            {ADMIN_TOKEN: ("token-admin", "system:masters"), POWERLESS_TOKEN: ("powerless", "nobody")}
        )
        self.etcd = self._component("etcd", self._etcd_flags())
        self.apiserver = self._component("kube-apiserver", self._apiserver_flags(address))
        self.controllers = self._component("kube-controller-manager", self._controller_flags(controllers))
        self.scheduler = self._component("kube-scheduler", self._scheduler_flags())
        self.components = [self.etcd, self.apiserver, self.controllers, self.scheduler]

    def write_tokens(self, tokens: dict[str, tuple[str, str]]) -> None:
        """Write the static tokens: token to (user, group). Read when the API server starts."""
        self.tokens.write_text(
            "".join(f'{t},{user},{user},"{group}"\n' for t, (user, group) in tokens.items())
        )

    def start(self) -> None:
        """Start all; the controllers once the API server is ready, or they end by themselves."""
        self.etcd.start()
        self.apiserver.start()
        self.wait_ready()
        self.controllers.start()
        self.scheduler.start()

    def wait_ready(self) -> None:
        """Wait until the API server says that it is ready."""
        wait(self.ready, "the API server is ready", [self.etcd, self.apiserver], READY_SECONDS)

    def ready(self) -> bool:
        """Ask the API server whether it is ready."""
        return self.answer("/readyz") is not None

    def answer(self, path: str) -> bytes | None:
        """Ask the API server as the administrator; None when it refuses. kubectl takes 50 times as long."""
        context = ssl.create_default_context(cafile=str(self._authority.pair.certificate))
        context.load_cert_chain(self.admin.certificate, self.admin.key)
        try:
            with urllib.request.urlopen(self.server + path, timeout=5, context=context) as answer:
                return bytes(answer.read())
        except urllib.error.HTTPError:
            return None

    def audit(self) -> Path:
        """Have the API server write down who asks for what, from its next start on; return the file.

        Each line is an audit.k8s.io/v1 Event without bodies, written once the answer has begun or ended.
        """
        policy = {"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": [{"level": "Metadata"}]}
        file, log = self.machine.folder / "audit.yaml", self.machine.folder / "audit.log"
        file.write_text(json.dumps(policy | {"omitStages": ["RequestReceived"]}))
        self.apiserver.add_flags(f"--audit-policy-file={file}", f"--audit-log-path={log}")
        return log

    def kubeconfig(self, path: Path, pair: Pair) -> Path:
        """Write a kubeconfig for a client certificate."""
        return certificates.write_kubeconfig(
            path, self.server, self._authority.pair.certificate, certificates.of_client(pair)
        )

    def _component(self, name: str, flags: list[str]) -> Component:
        return Component(name, self.machine, [self._kube, name, *flags])

    def _client(self, name: str) -> Path:
        return self.kubeconfig(
            self.machine.folder / f"{name}.kubeconfig", self._authority.client(f"system:{name}")
        )

    def _etcd_flags(self) -> list[str]:
        return [
            *("--data-dir", str(self.machine.folder / "etcd")),
            *("--listen-client-urls", ETCD),
            *("--advertise-client-urls", ETCD),
            *("--listen-peer-urls", "http://127.0.0.1:2380"),
            "--unsafe-no-fsync",
            *("--log-level", "warn"),
        ]

    def _apiserver_flags(self, address: str) -> list[str]:
        serving = self._authority.server("kube-apiserver", address, "127.0.0.1", FIRST_SERVICE, "localhost")
        key = certificates.signing_key(self._authority.folder / "service-accounts.key")
        return [
            f"--etcd-servers={ETCD}",
            f"--advertise-address={address}",
            f"--secure-port={PORT}",
            f"--service-cluster-ip-range={SERVICES}",
            "--authorization-mode=Node,RBAC",
            f"--client-ca-file={self._authority.pair.certificate}",
            f"--tls-cert-file={serving.certificate}",
            f"--tls-private-key-file={serving.key}",
            f"--token-auth-file={self.tokens}",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={key}",
            f"--service-account-signing-key-file={key}",
            f"--kubelet-client-certificate={self.admin.certificate}",
            f"--kubelet-client-key={self.admin.key}",
            "--kubelet-preferred-address-types=InternalIP",
            "--allow-privileged=true",
        ]

    def _controller_flags(self, more: list[str]) -> list[str]:
        return [
            f"--kubeconfig={self._client('kube-controller-manager')}",
            "--use-service-account-credentials",
            "--leader-elect=false",
            f"--root-ca-file={self._authority.pair.certificate}",
            f"--service-account-private-key-file={self._authority.folder / 'service-accounts.key'}",
            *("--bind-address=127.0.0.1", f"--cert-dir={self.machine.folder}"),
            *more,
        ]

    def _scheduler_flags(self) -> list[str]:
        return [
            f"--kubeconfig={self._client('kube-scheduler')}",
            "--leader-elect=false",
            *("--bind-address=127.0.0.1", f"--cert-dir={self.machine.folder}"),
        ]

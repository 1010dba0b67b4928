"""A hundred tasks: from CreateService to all RUNNING, beside a bare Deployment of the same pods.

One after the other, since a node takes 110 pods. The Deployment has the pod of a task as it is (image,
probe, limits), without what names it; its time ends when Kubernetes says that all its pods are available.
"""

from __future__ import annotations

import time
from typing import Any

from benchmarks.cluster import Setting
from benchmarks.table import Row, beside

ROUNDS = 3
COUNT = 100
NAMESPACE = "bare"
KEPT = ("containers", "terminationGracePeriodSeconds", "automountServiceAccountToken", "enableServiceLinks")
WAIT_SECONDS = 240


def measure(setting: Setting) -> list[Row]:
    """Run all measures of this module."""
    ours, peer = [], []
    setting.run("one", 1)
    (pod,) = setting.pods("one")
    setting.delete("one")
    setting.cluster.kubectl("create", "namespace", NAMESPACE)
    for turn in range(ROUNDS):
        ours.append(setting.run(f"hundred-{turn}", COUNT))
        setting.delete(f"hundred-{turn}")
        peer.append(_deployment(setting, pod))
    return [beside(f"{COUNT} tasks until RUNNING", "s", ours, {"a Deployment": peer}, at_most=1.3)]


def _deployment(setting: Setting, pod: dict[str, Any]) -> float:
    kubectl, labels = setting.cluster.kubectl, {"app": "bare"}
    template = {
        "metadata": {"labels": labels},
        "spec": {name: value for name, value in pod["spec"].items() if name in KEPT},
    }
    spec = {"replicas": COUNT, "selector": {"matchLabels": labels}, "template": template}
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "bare", "namespace": NAMESPACE},
        "spec": spec,
    }
    began = time.perf_counter()
    kubectl.apply(deployment)
    kubectl(
        *("rollout", "status", "--namespace", NAMESPACE, "deployment/bare"),
        f"--timeout={WAIT_SECONDS}s",
        seconds=WAIT_SECONDS + 10,
    )
    seconds = time.perf_counter() - began
    kubectl(
        "delete", "--namespace", NAMESPACE, "deployment/bare", "--cascade=foreground", seconds=WAIT_SECONDS
    )
    return seconds

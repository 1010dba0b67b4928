"""Manifests of the harness's own pods, without KECS: for its tests, and for comparisons with a bare one."""

from __future__ import annotations

from typing import Any

from tests.cluster.harness.images import BUSYBOX, SERVER


def server(name: str, namespace: str = "default", **spec: Any) -> dict[str, Any]:
    """Return a pod of the test server, ready when its HTTP port listens."""
    container = {
        "name": "server",
        "image": SERVER,
        "env": [{"name": "VERSION", "value": "1"}, {"name": "KECS_TASK", "value": name}],
        "ports": [{"name": "http", "containerPort": 8080}],
        "readinessProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 1},
    }
    return _pod(name, namespace, container, spec)


def shell(name: str, script: str, namespace: str = "default", **spec: Any) -> dict[str, Any]:
    """Return a pod that runs a shell script."""
    return _pod(name, namespace, {"name": "shell", "image": BUSYBOX, "command": ["sh", "-c", script]}, spec)


def node_port(name: str, namespace: str = "default") -> dict[str, Any]:
    """Return a Service of type NodePort in front of the pod of that name; Kubernetes chooses the port."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"type": "NodePort", "selector": {"app": name}, "ports": [{"port": 80, "targetPort": 8080}]},
    }


def _pod(name: str, namespace: str, container: dict[str, Any], spec: dict[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": {"app": name}},
        "spec": {"restartPolicy": "Never", "terminationGracePeriodSeconds": 1, "containers": [container]}
        | spec,
    }

"""Objects for tests."""

from __future__ import annotations

LABELS = {"kecs.dev/instance-id": "i1"}


def pod(name="web", namespace="default", labels=LABELS, **spec):
    return {
        "kind": "Pod",
        "apiVersion": "v1",
        "metadata": {"name": name, "namespace": namespace, "labels": dict(labels)},
        "spec": {"containers": [{"name": "web", "image": "web:1"}], **spec},
    }


def service(name="web", node_port=30100):
    return {
        "kind": "Service",
        "apiVersion": "v1",
        "metadata": {"name": name, "namespace": "default", "labels": dict(LABELS)},
        "spec": {"type": "NodePort", "ports": [{"port": 80, "nodePort": node_port}]},
    }

"""Names: which ones ECS allows, and which legal Kubernetes name stands for one.

ECS allows capitals, `_` and 255 characters, Kubernetes does not; `kubernetes_name` never gives two
names of ECS the same one of Kubernetes, and leaves alone what is legal already.
"""

from __future__ import annotations

import hashlib
import re

from kecs.ecs.errors import InvalidParameterException, ModelledError

_NAME = re.compile(r"[A-Za-z0-9_-]{1,255}")
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")
_HASHED = re.compile(r".*-[0-9a-f]{8}")


def is_name(text: str) -> bool:
    """Tell whether `text` can name a cluster, a service, a family or a container."""
    return _NAME.fullmatch(text) is not None


def check(text: str, what: str, error: type[ModelledError] = InvalidParameterException) -> None:
    """Raise `error` when `text` cannot name a `what` ("Cluster", "Service", …)."""
    if is_name(text):
        return
    raise error(
        f"{what} name is not valid: '{text[:300]}'. Up to 255 letters (uppercase and lowercase), numbers, "
        "underscores, and hyphens are allowed."
    )


def namespace(instance: str, instance_id: str, region: str, cluster: str) -> str:
    """Return the namespace of an instance's ECS cluster: `kecs-<instance>-<cluster>-<hash>`.

    The hash is of the instance's id, the region and the cluster, so that two instances of the same name on
    one Kubernetes cluster, and one ECS cluster in two regions, never share a namespace.
    """
    digest = hashlib.sha256(f"{instance_id}/{region}/{cluster}".encode()).hexdigest()[:8]
    words = re.sub(r"[^a-z0-9-]", "-", f"kecs-{instance}-{cluster}".lower())[: 63 - 9].strip("-")
    return f"{words}-{digest}"


def pod_name(name: str, task_id: str) -> str:
    """Return the name of a task's Pod; `name` is that of its service, or of its family."""
    return f"{kubernetes_name(name, 30)}-{task_id}"


def service_name(service: str) -> str:
    """Return the name of the Kubernetes Service of an ECS service: a DNS name of it (RFC 1035 label)."""
    name = kubernetes_name(service, 55)
    return name if name[0].isalpha() and not name.startswith("task-") else f"svc-{name}"


def task_service_name(task_id: str) -> str:
    """Return the name of the Kubernetes Service of a standalone task."""
    return f"task-{task_id}"


def port_name(container_port: int, protocol: str) -> str:
    """Return the name of a container port in Pods and Services: `tcp-80` (IANA service name, RFC 6335)."""
    return f"{protocol}-{container_port}"


def kubernetes_name(name: str, limit: int = 63) -> str:
    """Return a legal Kubernetes label for a name of ECS: lower-cased, cut, hashed when changed.

    A legal name that ends like one of ours (`-` and 8 hexadecimal digits) is hashed too: otherwise
    it could be taken for the changed form of another.
    """
    if len(name) <= limit and _LABEL.fullmatch(name) and not _HASHED.fullmatch(name):
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    legal = re.sub(r"[^a-z0-9-]", "-", name.lower())[: limit - 9].strip("-")
    return f"{legal}-{digest}" if legal else f"x-{digest}"

"""From ECS to Kubernetes: the objects that an instance makes in a cluster. Pure.

`runtime.KubernetesRuntime` applies what is made here. All of it carries the labels and annotations of
`identity`; fields are left out where Kubernetes' default is meant, so that server-side apply owns only
what KECS decides.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from typing import Any

from kecs.ecs import names, pod_order
from kecs.runtimes.base import ContainerSpec, ExposedPort, Exposure, TaskSpec
from kecs.runtimes.kubernetes import containers, identity, notes, pod_network, probes, volumes
from kecs.runtimes.kubernetes.identity import Owner, owned, selector

__all__ = [
    "DRAIN", "Owner", "exposure_of", "namespace", "owned", "pod", "secret", "selector", "service",
]  # fmt: skip

DRAIN = 5
"""Seconds for which a Pod serves on after its deletion: kube-proxy has let go of it by then."""
NODE_GONE = 10
"""Seconds after which a Pod is given up on a node that is not ready or does not answer."""


def namespace(name: str, owner: Owner, region: str, cluster: str) -> dict[str, Any]:
    """Return the Namespace of an ECS cluster."""
    return {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {
            "name": name,
            "labels": identity.labels(owner, cluster=cluster),
            "annotations": identity.true_names(region=region, cluster=cluster),
        },
    }


def secret(task: TaskSpec, owner: Owner) -> dict[str, Any] | None:
    """Return the Secret that holds what a task's `secrets` are; None when it has none."""
    data = {
        containers.secret_key(one.name, name): base64.b64encode(value.encode()).decode()
        for one in task.containers
        for name, value in containers.hidden(one).items()
    }
    if not data:
        return None
    return {"apiVersion": "v1", "kind": "Secret", "metadata": _metadata(task, owner), "data": data}


def service(exposure: Exposure, owner: Owner) -> dict[str, Any]:
    """Return the Service of an exposure: of type NodePort when a port of it has one, else ClusterIP."""
    of = {"cluster": exposure.cluster, "service": exposure.service, "task_id": exposure.task_id}
    chosen = {"cluster": exposure.cluster, "service": exposure.service}
    if exposure.task_id is not None:
        chosen = {"task_id": exposure.task_id}
    public = any(port.node_port for port in exposure.ports)
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": exposure.name,
            "namespace": exposure.namespace,
            "labels": identity.labels(owner, **of),
            "annotations": identity.true_names(region=exposure.region, **of),
        },
        "spec": {
            "type": "NodePort" if public else "ClusterIP",
            "selector": {
                label: value
                for label, value in identity.labels(owner, **chosen).items()
                if label not in (identity.INSTANCE, identity.MANAGED_BY)
            },
            "ports": [_service_port(port) for port in exposure.ports],
        },
    }


def exposure_of(item: Mapping[str, Any]) -> Exposure | None:
    """Return what a Service of this kind exposes; None when it is none of KECS's."""
    metadata, spec = item["metadata"], item["spec"]
    said = metadata.get("annotations") or {}
    if identity.INSTANCE_ID not in (metadata.get("labels") or {}) or identity.CLUSTER not in said:
        return None
    return Exposure(
        namespace=metadata["namespace"],
        name=metadata["name"],
        region=said.get(identity.REGION, ""),
        cluster=said[identity.CLUSTER],
        service=said.get(identity.SERVICE),
        task_id=said.get(identity.TASK_ID),
        ports=[
            ExposedPort(
                container_port=port["port"],
                protocol="udp" if port.get("protocol") == "UDP" else "tcp",
                node_port=port.get("nodePort"),
            )
            for port in spec.get("ports", [])
        ],
    )


def pod(task: TaskSpec, owner: Owner, *, sleep_action: bool) -> dict[str, Any]:
    """Return the Pod of a task; `sleep_action`: the cluster knows `preStop.sleep` (1.30 and later).

    Raises `pod_order.OrderError` for an order that registration would have refused.
    """
    places = {place.name: place for place in pod_order.place(_members(task))}
    by_name = {one.name: one for one in task.containers}
    pre_stop = _pre_stop(sleep_action=sleep_action) if _serves(task) else None
    made = [
        (place, containers.container(by_name[name], task, place, pre_stop)) for name, place in places.items()
    ]
    metadata = _metadata(task, owner)
    metadata["annotations"] = pod_network.docker_labels(task) | {
        **metadata["annotations"],
        identity.CONTAINERS: notes.written([_note(one, places[one.name]) for one in task.containers]),
    }
    spec: dict[str, Any] = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": _grace(task),
        "tolerations": [
            {"key": f"node.kubernetes.io/{taint}", "operator": "Exists", "effect": "NoExecute",
             "tolerationSeconds": NODE_GONE}
            for taint in ("not-ready", "unreachable")
        ],
        "initContainers": [each for place, each in made if place.role != "main"],
        "containers": [each for place, each in made if place.role == "main"],
        "volumes": volumes.volumes(task),
        **pod_network.spec(task),
    }  # fmt: skip
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": {member: value for member, value in spec.items() if value not in ([], {}, None)},
    }


def _metadata(task: TaskSpec, owner: Owner) -> dict[str, Any]:
    """Return name, labels and annotations of what belongs to a task."""
    deployment = task.started_by if task.service is not None else None
    return {
        "name": task.pod,
        "namespace": task.namespace,
        "labels": identity.labels(
            owner,
            cluster=task.cluster,
            service=task.service,
            task_id=task.id,
            family=task.family,
            revision=str(task.revision),
            deployment=deployment.rpartition("/")[2] if deployment else None,
        ),
        "annotations": identity.true_names(
            region=task.region,
            cluster=task.cluster,
            service=task.service,
            task_arn=task.arn,
            family=task.family,
            deployment=deployment,
        ),
    }


def _members(task: TaskSpec) -> list[pod_order.Member]:
    return [
        pod_order.Member(
            one.name, one.essential, tuple((it.container, it.condition) for it in one.depends_on)
        )
        for one in task.containers
    ]


def _note(one: ContainerSpec, place: pod_order.Placed) -> notes.Note:
    return notes.Note(
        name=one.name,
        container=names.kubernetes_name(one.name),
        role=place.role,
        essential=one.essential,
        depends_on=[(it.container, it.condition) for it in one.depends_on],
        start_timeout=one.start_timeout,
        unhealthy_after=probes.unhealthy_after(one) if place.role != "init" else None,
        image_tried=one.image_tried,
    )


def _serves(task: TaskSpec) -> bool:
    return any(one.ports for one in task.containers)


def _pre_stop(*, sleep_action: bool) -> dict[str, Any]:
    """Return what holds the stop signal back while kube-proxy lets go of the Pod.

    An image without `sleep` gets the signal at once on a cluster that does not know the action.
    """
    return {"sleep": {"seconds": DRAIN}} if sleep_action else {"exec": {"command": ["sleep", str(DRAIN)]}}


def _grace(task: TaskSpec) -> int:
    """Return the seconds from deletion to SIGKILL: containers that others depend on stop after these.

    So it is the sum of stop timeouts along the longest chain of `dependsOn`, after the time for draining.
    """
    by_name = {one.name: one for one in task.containers}

    def chain(name: str) -> float:
        one = by_name[name]
        below = [chain(it.container) for it in one.depends_on if it.condition in ("START", "HEALTHY")]
        return one.stop_timeout + max(below, default=0.0)

    longest = max((chain(name) for name in by_name), default=0.0)
    return max(1, math.ceil(longest)) + (DRAIN if _serves(task) else 0)


def _service_port(port: ExposedPort) -> dict[str, Any]:
    name = names.port_name(port.container_port, port.protocol)
    return {
        "name": name,
        "port": port.container_port,
        "protocol": port.protocol.upper(),
        "targetPort": name,
        **({"nodePort": port.node_port} if port.node_port else {}),
    }

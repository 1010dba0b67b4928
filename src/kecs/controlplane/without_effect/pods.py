"""Settings that do nothing, or not all that they say, where a task is a Pod, with the reason. Pure.

What is in no table is honoured: how, say the modules of `kecs.runtimes.kubernetes`. What would mean
something else is refused by `kecs.ecs.pod_rules` and never comes here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from kecs.controlplane.without_effect.said import said
from kecs.ecs import pod_order, pod_rules
from kecs.runtimes.kubernetes import pod_network

_CREDENTIALS = "the cluster pulls images with its own credentials"

IN_TASK_DEFINITION = {
    "taskRoleArn": "no credentials are given to containers",
    "executionRoleArn": _CREDENTIALS,
    "placementConstraints": "Kubernetes chooses the node",
    "runtimePlatform": "nodes of it are preferred; an image for several platforms runs on any other",
    "proxyConfiguration": "App Mesh is not built",
    "ephemeralStorage": "a container writes to its node's disk",
    "inferenceAccelerators": "none can be attached",
    "enableFaultInjection": "fault injection is not built",
    "trustedExecutionConfiguration": "there are no enclaves here",
}
"""Members of a task definition."""

IN_CONTAINER = {
    "repositoryCredentials": _CREDENTIALS,
    "logConfiguration": "what the container writes is shown by `kecs logs`",
    "firelensConfiguration": "what the container writes is shown by `kecs logs`",
    "volumesFrom": "its mount points are shared, volumes that its image declares are not",
    "ulimits": "a container has the limits of its node's container runtime",
    "disableNetworking": "the containers of a pod share one network",
    "credentialSpecs": "there is no Active Directory here",
    "versionConsistency": "the node keeps the image that it has; tags are not resolved to digests",
    "restartPolicy": "a container that ends is not restarted in place",
    "linuxParameters.initProcessEnabled": "there is no init process; with pidMode `task` the pod has one",
    "linuxParameters.devices": "Kubernetes hands out devices by plugins only",
    "linuxParameters.maxSwap": "a container swaps as its node is set up to",
    "linuxParameters.swappiness": "a container swaps as its node is set up to",
}
"""Members of a container definition; a dot leads into one."""

IN_SERVICE = {
    "loadBalancers": "load balancers are not built yet; use `kecs port-forward`",
    "serviceRegistries": "service discovery is not built yet; use `kecs port-forward`",
    "serviceConnectConfiguration": "Service Connect is not built yet; use `kecs port-forward`",
    "volumeConfigurations": "no volume is attached: an empty folder of the task stands for it",
    "placementConstraints": "Kubernetes chooses the node",
    "placementStrategy": "Kubernetes chooses the node",
    "vpcLatticeConfigurations": "VPC Lattice is not built",
    "role": "there is no load balancer to call with it",
    "roleArn": "there is no load balancer to call with it",
}
"""Members of a service that are kept in `Service.settings`."""

SUBNETS = "pods are in the cluster's network"
SECURITY_GROUPS = "the cluster's own policies decide who may connect"
"""What becomes of the members of a NetworkConfiguration, which are accepted unchecked."""

_VOLUMES = {
    "efsVolumeConfiguration": "EFS",
    "fsxWindowsFileServerVolumeConfiguration": "FSx",
    "s3filesVolumeConfiguration": "S3",
    "configuredAtLaunch": "EBS",
}
"""Storage of AWS that a volume can be, by the member that says so."""
_HONOURED_OPTIONS = ("no-new-privileges",)
"""Docker's security options that Kubernetes has a field for."""


def of_definition(document: Mapping[str, Any]) -> Iterator[str]:
    """Yield one sentence for each setting of a task definition that a Pod does not, or not quite, honour."""
    containers = document.get("containerDefinitions", [])
    yield from said(document, IN_TASK_DEFINITION)
    yield from _of_sizes(document, containers)
    yield from _of_modes(document, containers)
    for volume in document.get("volumes", []):
        yield from _of_volume(volume)
    for container in containers:
        yield from said(container, IN_CONTAINER, f" of container {container['name']}")
        yield from _of_container(container)
    yield from _of_order(containers)
    yield from _of_shared(containers)


def _of_sizes(document: Mapping[str, Any], containers: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    if len(containers) > 1:
        for member in ("cpu", "memory"):
            if document.get(member):
                yield f"{member}: each container may use it; Kubernetes does not limit their sum"
    timeouts = {container.get("stopTimeout", 30) for container in containers}
    if len(timeouts) > 1:
        yield "stopTimeout: a pod has one grace period: the longest holds for all its containers"


def _of_modes(document: Mapping[str, Any], containers: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    if document.get("networkMode") == "none":
        yield "networkMode: a pod always has a network"
    if document.get("ipcMode") == "none":
        yield "ipcMode: the containers of a pod share IPC"
    if document.get("networkMode") != "bridge":
        return
    for container in containers:
        if any(not mapping.get("hostPort") for mapping in container.get("portMappings", [])):
            where = f"portMappings of container {container['name']}"
            yield f"{where}: without a hostPort no port of the node is opened"


def _of_volume(volume: Mapping[str, Any]) -> Iterator[str]:
    what = f"volumes: {volume.get('name')} is an empty folder of the task"
    for member, storage in _VOLUMES.items():
        if volume.get(member):
            yield f"{what}; no volume of {storage} is mounted"
    docker = volume.get("dockerVolumeConfiguration") or {}
    if docker.get("scope") == "shared":
        yield f"{what}: it is not shared with other tasks and goes with the task"
    if docker.get("driver", "local") != "local" or docker.get("driverOpts"):
        yield f"{what}; no driver of Docker is asked"


def _of_container(container: Mapping[str, Any]) -> Iterator[str]:
    where = f"of container {container['name']}"
    options = [it for it in container.get("dockerSecurityOptions", []) if it not in _HONOURED_OPTIONS]
    if options:
        yield f"dockerSecurityOptions {where}: {', '.join(options)} cannot be said to Kubernetes"
    if container.get("hostname") and not pod_network.is_hostname(container["hostname"]):
        yield f"hostname {where}: a pod's is lower-case letters, digits and hyphens"
    labels = [name for name in container.get("dockerLabels") or {} if not pod_network.is_annotation(name)]
    if labels:
        yield f"dockerLabels {where}: {', '.join(sorted(labels))} cannot be an annotation of a pod"
    if any(it.get("type") == "InferenceAccelerator" for it in container.get("resourceRequirements", [])):
        yield f"resourceRequirements {where}: inference accelerators cannot be attached"
    for tmpfs in (container.get("linuxParameters") or {}).get("tmpfs", []):
        if set(tmpfs.get("mountOptions", [])) - {"ro", "rw"}:
            path = tmpfs["containerPath"]
            yield f"linuxParameters.tmpfs {where}: of the mount options of {path} only `ro` is kept"
    for dependency in container.get("dependsOn", []):
        if dependency["condition"] == "COMPLETE":
            yield (
                f"dependsOn {where}: container {dependency['containerName']} must end with exit code 0: "
                "Kubernetes starts nothing after an init container that failed"
            )


def _of_order(containers: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    try:
        roles = {it.name: it.role for it in pod_order.place(pod_rules.members_of(containers))}
    except pod_order.OrderError:
        return  # registered where a task is no Pod
    serves = any(container.get("portMappings") for container in containers)
    for container in containers:
        name, role = container["name"], roles[container["name"]]
        if role == "init" and container.get("healthCheck"):
            yield f"healthCheck of container {name}: others wait for it to end, so it is an init container"
        if role == "main" and serves and not container["essential"]:
            yield (
                f"essential of container {name}: once it has ended the pod does not count as ready for the "
                "cluster, and its Service passes no connections on; forwards reach the task by tunnels"
            )


def _of_shared(containers: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield what containers say differently of what the Pod has only one of."""
    for member in ("hostname", "dnsServers", "dnsSearchDomains"):
        values = [container[member] for container in containers if container.get(member)]
        if any(value != values[0] for value in values):
            shared = "the first one's is taken" if member == "hostname" else "all of them hold for each"
            yield f"{member}: the containers of a pod share it: {shared}"
    servers = {server for container in containers for server in container.get("dnsServers", [])}
    if len(servers) > pod_network.MOST_NAMESERVERS:
        yield f"dnsServers: a pod has {pod_network.MOST_NAMESERVERS} at most: the first ones are taken"

"""What has no effect on `local`, where a container is a process of this machine. Pure.

Each table maps a member of the API to why it does nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from kecs.controlplane.without_effect.said import said

IN_TASK_DEFINITION = {
    "cpu": "a local process may use the whole machine",
    "memory": "a local process may use the whole machine",
    "volumes": "a local process sees this machine's own files",
    "taskRoleArn": "no credentials are given to local processes",
    "executionRoleArn": "nothing is pulled with it",
    "placementConstraints": "there is one machine",
    "runtimePlatform": "local processes run on this machine's own platform",
    "proxyConfiguration": "local processes have no network of their own",
    "ephemeralStorage": "a local process writes to this machine's own disk",
    "pidMode": "local processes share this machine's processes",
    "ipcMode": "local processes share this machine's IPC",
    "inferenceAccelerators": "none can be attached",
}
"""Members of a task definition."""

IN_CONTAINER = {
    "image": "it is recorded and not pulled: `command` runs on this machine",
    "cpu": "a local process may use the whole machine",
    "memory": "a local process may use the whole machine",
    "memoryReservation": "a local process may use the whole machine",
    "logConfiguration": "what the container writes is shown by `kecs logs`",
    "firelensConfiguration": "what the container writes is shown by `kecs logs`",
    "mountPoints": "a local process sees this machine's own files",
    "volumesFrom": "a local process sees this machine's own files",
    "linuxParameters": "a local process has no container to set them for",
    "ulimits": "a local process has the limits of KECS",
    "privileged": "a local process runs with your own rights",
    "readonlyRootFilesystem": "a local process may write where you may",
    "dockerLabels": "there is no Docker container",
    "dockerSecurityOptions": "there is no Docker container",
    "hostname": "a local process has this machine's name",
    "extraHosts": "a local process uses this machine's /etc/hosts",
    "dnsServers": "a local process uses this machine's resolver",
    "dnsSearchDomains": "a local process uses this machine's resolver",
    "disableNetworking": "a local process has this machine's network",
    "links": "containers reach each other on 127.0.0.1",
    "repositoryCredentials": "nothing is pulled",
    "resourceRequirements": "a local process may use the whole machine",
    "systemControls": "kernel settings are this machine's own",
    "credentialSpecs": "there is no Active Directory here",
    "interactive": "a local process has no terminal",
    "pseudoTerminal": "a local process has no terminal",
    "restartPolicy": "a container that ends is not restarted in place",
}
"""Members of a container definition."""

IN_SERVICE = {
    "loadBalancers": "load balancers are not built yet; use `kecs port-forward`",
    "serviceRegistries": "service discovery is not built yet; use `kecs port-forward`",
    "serviceConnectConfiguration": "Service Connect is not built yet; use `kecs port-forward`",
    "volumeConfigurations": "a local process sees this machine's own files",
    "placementConstraints": "there is one machine",
    "placementStrategy": "there is one machine",
    "vpcLatticeConfigurations": "VPC Lattice is not built",
    "role": "there is no load balancer to call with it",
    "roleArn": "there is no load balancer to call with it",
}
"""Members of a service that are kept in `Service.settings`."""


SUBNETS = "local processes use this machine's network"
SECURITY_GROUPS = "KECS listens on loopback only"
"""What becomes of the members of a NetworkConfiguration, which are accepted unchecked."""


def of_definition(document: Mapping[str, Any]) -> Iterator[str]:
    """Yield one sentence for each setting of a task definition without effect."""
    yield from said(document, IN_TASK_DEFINITION)
    for container in document.get("containerDefinitions", []):
        yield from said(container, IN_CONTAINER, f" of container {container['name']}")

"""Amazon Resource Names of ECS, built and taken apart. Long formats only are built.

Formats: Amazon ECS Developer Guide, "Amazon Resource Names (ARNs) and IDs". The short formats of
services and tasks (without the cluster) are still understood where AWS understands them.
"""

from __future__ import annotations

from dataclasses import dataclass

from kecs.ecs.context import ACCOUNT


@dataclass(frozen=True)
class Arn:
    """An ARN of ECS, taken apart."""

    region: str
    account: str
    kind: str
    """What stands before the first slash: `cluster`, `service`, `task`, `task-definition`, …"""
    path: tuple[str, ...]
    """What stands after it: `("prod", "web")` for a service in the long format."""


def partition(region: str) -> str:
    """Return the partition of a region: `aws`, `aws-cn` or `aws-us-gov`."""
    if region.startswith("cn-"):
        return "aws-cn"
    return "aws-us-gov" if region.startswith("us-gov-") else "aws"


def _arn(region: str, account: str, resource: str) -> str:
    return f"arn:{partition(region)}:ecs:{region}:{account}:{resource}"


def cluster_arn(region: str, cluster: str, account: str = ACCOUNT) -> str:
    """Return a cluster's ARN."""
    return _arn(region, account, f"cluster/{cluster}")


def service_arn(region: str, cluster: str, service: str, account: str = ACCOUNT) -> str:
    """Return a service's ARN."""
    return _arn(region, account, f"service/{cluster}/{service}")


def task_arn(region: str, cluster: str, task_id: str, account: str = ACCOUNT) -> str:
    """Return a task's ARN."""
    return _arn(region, account, f"task/{cluster}/{task_id}")


def container_arn(region: str, cluster: str, task_id: str, container_id: str, account: str = ACCOUNT) -> str:
    """Return a container's ARN."""
    return _arn(region, account, f"container/{cluster}/{task_id}/{container_id}")


def task_definition_arn(region: str, family: str, revision: int, account: str = ACCOUNT) -> str:
    """Return the ARN of a revision of a task definition."""
    return _arn(region, account, f"task-definition/{family}:{revision}")


def capacity_provider_arn(region: str, name: str, account: str = ACCOUNT) -> str:
    """Return a capacity provider's ARN."""
    return _arn(region, account, f"capacity-provider/{name}")


def looks_like_arn(text: str) -> bool:
    """Tell whether `text` is meant as an ARN."""
    return text.startswith("arn:")


def parse(text: str) -> Arn:
    """Take an ARN of ECS apart; raises ValueError when it is none."""
    pieces = text.split(":", 5)
    if len(pieces) != 6 or pieces[0] != "arn" or pieces[2] != "ecs" or not pieces[1].startswith("aws"):
        raise ValueError(f"not an ARN of ECS: {text}")
    kind, *path = pieces[5].split("/")
    if not path or not all(path):
        raise ValueError(f"no resource is named: {text}")
    return Arn(region=pieces[3], account=pieces[4], kind=kind, path=tuple(path))


def parse_kind(text: str, kind: str) -> Arn:
    """Take apart an ARN that must be of `kind`; raises ValueError when it is another."""
    arn = parse(text)
    if arn.kind != kind:
        raise ValueError(f"not the ARN of a {kind}: {text}")
    return arn


def parse_cluster(text: str) -> str:
    """Return the cluster's name, given its name or ARN; raises ValueError."""
    if not looks_like_arn(text):
        return text
    arn = parse_kind(text, "cluster")
    if len(arn.path) != 1:
        raise ValueError(f"not the ARN of a cluster: {text}")
    return arn.path[0]


def parse_service(text: str) -> tuple[str | None, str]:
    """Return (cluster or None, name) of a service, given its name or ARN; raises ValueError."""
    return _in_cluster(text, "service")


def parse_task(text: str) -> tuple[str | None, str]:
    """Return (cluster or None, id) of a task, given its id or ARN; raises ValueError."""
    return _in_cluster(text, "task")


def _in_cluster(text: str, kind: str) -> tuple[str | None, str]:
    if not looks_like_arn(text):
        return None, text
    path = parse_kind(text, kind).path
    if len(path) > 2:
        raise ValueError(f"not the ARN of a {kind}: {text}")
    return (path[0], path[1]) if len(path) == 2 else (None, path[0])


def parse_task_definition(text: str) -> tuple[str, int | None]:
    """Return (family, revision or None) of `family`, `family:revision` or an ARN; raises ValueError."""
    if looks_like_arn(text):
        path = parse_kind(text, "task-definition").path
        if len(path) != 1:
            raise ValueError(f"not the ARN of a task definition: {text}")
        text = path[0]
    family, colon, revision = text.partition(":")
    if not colon:
        return family, None
    if not (revision.isascii() and revision.isdigit()) or int(revision) < 1:
        raise ValueError(f"Invalid revision number. Number: {revision}")
    return family, int(revision)

"""What RegisterTaskDefinition refuses where a task is a Pod, because a Pod would make something else of it.

Called by `kecs.ecs.task_definitions` on such a runtime, after all rules of ECS itself. What merely has no
effect there is not refused: `kecs explain` names it. All errors are ClientExceptions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kecs.ecs import container_definitions, pod_order
from kecs.ecs.errors import ClientException


def check(definition: dict[str, Any]) -> None:
    """Raise ClientException when a filled definition asks for what a Pod cannot be."""
    containers = definition["containerDefinitions"]
    _check_order(containers)
    _check_ports(containers)
    for container in containers:
        user = container.get("user")
        if user and user_ids(user) is None:
            raise ClientException(
                f"Invalid 'user' setting for container '{container['name']}': '{user}'. Kubernetes runs "
                "containers as numbers: use 'uid' or 'uid:gid'."
            )


def user_ids(user: str) -> tuple[int, int | None] | None:
    """Return (uid, gid) of a container's `user`; None when it is a name, which only the image could resolve.

    `root` is 0 in every image.
    """
    name, colon, group = user.partition(":")
    uid, gid = _number(name), _number(group) if colon else None
    return None if uid is None or (colon and gid is None) else (uid, gid)


def members_of(containers: Sequence[Mapping[str, Any]]) -> list[pod_order.Member]:
    """Return containers of a filled definition as `pod_order` takes them."""
    return [
        pod_order.Member(
            container["name"],
            container["essential"],
            tuple((it["containerName"], it["condition"]) for it in container.get("dependsOn", ())),
        )
        for container in containers
    ]


def _number(text: str) -> int | None:
    if text == "root":
        return 0
    return int(text) if text.isascii() and text.isdigit() else None


def _check_order(containers: Sequence[dict[str, Any]]) -> None:
    try:
        pod_order.place(members_of(containers))
    except pod_order.OrderError as error:
        raise ClientException(
            f"Invalid 'dependsOn' setting: this order of containers cannot be kept on Kubernetes: {error}."
        ) from error


def _check_ports(containers: Sequence[dict[str, Any]]) -> None:
    """Refuse a port that two containers have: the containers of a Pod share one network."""
    owners: dict[tuple[int, str], str] = {}
    for container in containers:
        for port, _, protocol, _ in container_definitions.ports_of(container):
            other = owners.setdefault((port, protocol), container["name"])
            if other != container["name"]:
                raise ClientException(
                    f"Invalid 'containerPort' setting: containers '{other}' and '{container['name']}' share "
                    f"one network on Kubernetes, and both have port {port}/{protocol}."
                )

"""The order of containers within a Pod: what stands for `dependsOn` on a runtime of Pods.

Used by `kecs.ecs.pod_rules` (an order that cannot be kept is refused at registration) and by the runtime
that writes the Pod. A Pod starts its init containers one after the other, each when the last has ended,
or, for a native sidecar (an init container with `restartPolicy: Always`), when that has started and its
startup probe has passed; then all other containers at once (KEP-753).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

Role = Literal["init", "sidecar", "main"]
_TO_THE_END = frozenset({"COMPLETE", "SUCCESS"})


@dataclass(frozen=True)
class Member:
    """A container as far as its order matters."""

    name: str
    essential: bool
    depends_on: tuple[tuple[str, str], ...] = ()
    """(container, condition) of each item of `dependsOn`."""


@dataclass(frozen=True)
class Placed:
    """A container and its place in the Pod."""

    name: str
    role: Role
    gates: bool = False
    """A sidecar for whose health others wait: they start once its health check has passed."""


class OrderError(ValueError):
    """A Pod cannot keep this order; the text says why."""


def place(members: Sequence[Member]) -> list[Placed]:
    """Return the init containers and sidecars in the order of their start, then the others.

    What others wait to end (COMPLETE, SUCCESS) is an init container. What they wait to start or to be healthy
    (START, HEALTHY) is a sidecar, which must be essential: its end ends the task, so that it never runs
    on after the kubelet has started it again. An essential container that waits for no init container is
    a sidecar too where there are init containers: in ECS it would start at once, and one of those may need
    it. Raises `OrderError`.
    """
    roles = _roles(members)
    _lift(members, roles)
    if not any(member.essential and roles[member.name] == "main" for member in members):
        raise OrderError(
            "a task lasts there as long as the containers that no other one waits for, and none of these is "
            "essential"
        )
    healthy = {name for member in members for name, condition in member.depends_on if condition == "HEALTHY"}
    return [
        Placed(name, roles[name], gates=roles[name] == "sidecar" and name in healthy)
        for name in [*_sorted(members, roles), *(one.name for one in members if roles[one.name] == "main")]
    ]


def _roles(members: Sequence[Member]) -> dict[str, Role]:
    roles: dict[str, Role] = {}
    for member in members:
        conditions = {
            condition for other in members for name, condition in other.depends_on if name == member.name
        }
        for condition in sorted(conditions - _TO_THE_END):
            if not member.essential:
                raise OrderError(
                    f"others wait for container '{member.name}' with the condition {condition}, "
                    "and it is not essential"
                )
        if not conditions:
            roles[member.name] = "main"
        else:
            roles[member.name] = "init" if conditions & _TO_THE_END else "sidecar"
    return roles


def _lift(members: Sequence[Member], roles: dict[str, Role]) -> None:
    """Make sidecars of the essential containers that need not wait, if one that waits is essential too."""
    if "init" not in roles.values():
        return
    mains = [member.name for member in members if member.essential and roles[member.name] == "main"]
    waiting = {name for name in mains if any(roles[it] == "init" for it in _needs(members, [name]))}
    if waiting:
        for name in mains:
            if name not in waiting:
                roles[name] = "sidecar"


def _needs(members: Sequence[Member], names: Iterable[str]) -> set[str]:
    """Return all that these containers wait for, directly or not."""
    depends_on = {member.name: [name for name, _ in member.depends_on] for member in members}
    found: set[str] = set()
    left = list(names)
    while left:
        for name in depends_on.get(left.pop(), ()):
            if name not in found:
                found.add(name)
                left.append(name)
    return found


def _sorted(members: Sequence[Member], roles: dict[str, Role]) -> list[str]:
    """Sort what comes before the others: dependencies first, then sidecars, then as in the definition."""
    waiting = {
        member.name: {name for name, _ in member.depends_on}
        for member in sorted(members, key=lambda one: roles[one.name] != "sidecar")
        if roles[member.name] != "main"
    }
    result: list[str] = []
    while waiting:
        free = next((name for name, needs in waiting.items() if not needs & waiting.keys()), None)
        if free is None:
            raise OrderError("containers wait for each other")
        result.append(free)
        del waiting[free]
    return result

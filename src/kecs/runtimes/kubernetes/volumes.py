"""Volumes of a task's Pod and where its containers have them.

A volume with a path of the host is a hostPath; every other one an emptyDir, which lives and dies with the
task: ECS means just that for most, and `kecs explain` names those that would be kept or shared there.
tmpfs and /dev/shm are emptyDirs in memory, which count for a container's memory limit as on ECS.
"""

from __future__ import annotations

from typing import Any

from kecs.ecs.names import kubernetes_name
from kecs.runtimes.base import ContainerSpec, TaskSpec

_LONGEST = 55
"""Characters of a name behind `volume-`: together a DNS label."""


def volumes(task: TaskSpec) -> list[dict[str, Any]]:
    """Return `volumes` of the Pod: those of the definition, then what containers have in memory."""
    of_task = [_volume(volume) for volume in task.definition.get("volumes", [])]
    in_memory = [
        {"name": name, "emptyDir": {"medium": "Memory", **({"sizeLimit": f"{size}Mi"} if size else {})}}
        for container in task.containers
        for name, size, _ in _in_memory(container)
    ]  # fmt: skip
    return of_task + in_memory


def mounts(container: ContainerSpec, task: TaskSpec) -> list[dict[str, Any]]:
    """Return `volumeMounts` of a container; where a path is mounted twice, its own mount counts."""
    by_path: dict[str, dict[str, Any]] = {}
    for source in container.definition.get("volumesFrom", []):
        other = next((one for one in task.containers if one.name == source.get("sourceContainer")), None)
        for mount in _mount_points(other) if other is not None else []:
            by_path[mount["mountPath"]] = _mount(
                mount["name"], mount["mountPath"], mount.get("readOnly", False) or source.get("readOnly")
            )
    for mount in [*_mount_points(container), *(mount for _, _, mount in _in_memory(container))]:
        by_path[mount["mountPath"]] = mount
    return list(by_path.values())


def _volume(volume: dict[str, Any]) -> dict[str, Any]:
    path = (volume.get("host") or {}).get("sourcePath")
    if path:
        # Of no type, so that it may be a file, a socket or a folder, which the node makes as Docker does.
        return {"name": _name(volume["name"]), "hostPath": {"path": path}}
    return {"name": _name(volume["name"]), "emptyDir": {}}


def _mount_points(container: ContainerSpec) -> list[dict[str, Any]]:
    return [
        _mount(_name(point["sourceVolume"]), point["containerPath"], point.get("readOnly"))
        for point in container.definition.get("mountPoints", [])
        if point.get("sourceVolume") and point.get("containerPath")
    ]


def _in_memory(container: ContainerSpec) -> list[tuple[str, int, dict[str, Any]]]:
    """Return (volume, MiB or 0, its mount) of each tmpfs of a container, and of its /dev/shm."""
    linux = container.definition.get("linuxParameters") or {}
    short = kubernetes_name(container.name, _LONGEST - 3)
    found: list[tuple[str, int, dict[str, Any]]] = []
    for number, tmpfs in enumerate(linux.get("tmpfs", [])):
        name = f"tmpfs-{short}-{number}"
        read_only = "ro" in tmpfs.get("mountOptions", [])
        found.append((name, tmpfs.get("size", 0), _mount(name, tmpfs["containerPath"], read_only)))
    if linux.get("sharedMemorySize"):
        name = f"shm-{short}"
        found.append((name, linux["sharedMemorySize"], _mount(name, "/dev/shm", None)))  # noqa: S108
    return found


def _mount(name: str, path: str, read_only: object) -> dict[str, Any]:
    return {"name": name, "mountPath": path, **({"readOnly": True} if read_only else {})}


def _name(volume: str) -> str:
    return f"volume-{kubernetes_name(volume, _LONGEST)}"

"""Where a task runs: platform versions, the family of its system, its network configuration.

Sources: API reference (CreateService, RunTask, AwsVpcConfiguration) and Developer Guide, "Fargate platform
versions"; for the public address docs/design/contracts.md, 7.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kecs.ecs.errors import (
    InvalidParameterException,
    PlatformTaskDefinitionIncompatibilityException,
    PlatformUnknownException,
)
from kecs.ecs.model import TaskDefinition

LATEST = "LATEST"
NEWEST_LINUX, NEWEST_WINDOWS = "1.4.0", "1.0.0"
"""What LATEST means."""
LINUX_VERSIONS = ("1.3.0", "1.4.0")
DEFAULT_STORAGE = 20
"""GiB of ephemeral storage of a Fargate task that asks for none."""
MOST_SUBNETS, MOST_SECURITY_GROUPS = 16, 5
_CPU_OF_NEWEST = 8192
"""CPU units from which on Fargate needs platform 1.4.0."""


def check_version(asked: str | None, definition: TaskDefinition, *, fargate: bool) -> str | None:
    """Return the platform version to keep, `LATEST` when none was asked for; None on EC2.

    Raises InvalidParameterException, PlatformUnknownException, PlatformTaskDefinitionIncompatibility….
    """
    if not fargate:
        if asked is not None:
            raise InvalidParameterException(
                "The platform version must be null when specifying an EC2 launch type."
            )
        return None
    if asked is None or asked == LATEST:
        return LATEST
    if asked not in ((NEWEST_WINDOWS,) if is_windows(definition) else LINUX_VERSIONS):
        raise PlatformUnknownException
    document = definition.definition
    needs_newest = (
        "ephemeralStorage" in document
        or int(document.get("cpu", 0)) >= _CPU_OF_NEWEST
        or any("efsVolumeConfiguration" in volume for volume in document["volumes"])
    )
    if needs_newest and not is_windows(definition) and asked != NEWEST_LINUX:
        raise PlatformTaskDefinitionIncompatibilityException(
            "One or more of the requested capabilities are not supported."
        )
    return asked


def resolved(version: str | None, family: str | None) -> str | None:
    """Return the number that LATEST stands for."""
    if version != LATEST:
        return version
    return NEWEST_LINUX if family in (None, "Linux") else NEWEST_WINDOWS


def family(definition: TaskDefinition) -> str:
    """Return `platformFamily`: `Linux`, or such as `Windows_Server_2022_Core`."""
    system: str = definition.definition.get("runtimePlatform", {}).get("operatingSystemFamily", "LINUX")
    return "_".join(word.capitalize() for word in system.split("_"))


def is_windows(definition: TaskDefinition) -> bool:
    """Tell whether the definition asks for Windows."""
    return family(definition).startswith("Windows")


def cpu_architecture(definition: TaskDefinition) -> str:
    """Return the value of the attribute `ecs.cpu-architecture`: `x86_64` or `arm64`."""
    asked = definition.definition.get("runtimePlatform", {}).get("cpuArchitecture", "X86_64")
    return str(asked).lower()


def wants_public_ip(configuration: Mapping[str, Any] | None) -> bool:
    """Tell whether a request's networkConfiguration says `assignPublicIp: ENABLED`."""
    return bool(((configuration or {}).get("awsvpcConfiguration") or {}).get("assignPublicIp") == "ENABLED")


def check_network(
    configuration: Mapping[str, Any] | None, definition: TaskDefinition
) -> dict[str, Any] | None:
    """Return the network configuration with its defaults; None in other modes than awsvpc.

    Subnet and security group ids are taken unchecked. Raises InvalidParameterException.
    """
    awsvpc = (configuration or {}).get("awsvpcConfiguration")
    if definition.definition["networkMode"] != "awsvpc":
        if awsvpc is not None:
            raise InvalidParameterException(
                "Network Configuration is not valid for the given networkMode of this task definition."
            )
        return None
    if awsvpc is None:
        raise InvalidParameterException(
            "Network Configuration must be provided when networkMode 'awsvpc' is specified."
        )
    subnets, groups = awsvpc["subnets"], awsvpc.get("securityGroups", [])
    if not subnets:
        raise InvalidParameterException("subnets can not be empty.")
    if len(subnets) > MOST_SUBNETS:
        raise InvalidParameterException(f"subnets can have at most {MOST_SUBNETS} items.")
    if len(groups) > MOST_SECURITY_GROUPS:
        raise InvalidParameterException(f"securityGroups can have at most {MOST_SECURITY_GROUPS} items.")
    return {
        "awsvpcConfiguration": {
            "subnets": subnets,
            "securityGroups": groups,
            "assignPublicIp": awsvpc.get("assignPublicIp", "DISABLED"),
        }
    }


def check_compatible(definition: TaskDefinition, *, fargate: bool, implied: bool) -> None:
    """Raise InvalidParameterException when the definition cannot be launched so.

    `implied`: the request named neither launch type nor strategy. One that is taken as FARGATE only because
    it asks for a public IP need not have Fargate's sizes (docs/design/contracts.md, 7).
    """
    if fargate and implied:
        return
    launch_type = "FARGATE" if fargate else "EC2"
    if launch_type not in definition.definition["compatibilities"]:
        raise InvalidParameterException(f"Task definition does not support launch_type {launch_type}.")

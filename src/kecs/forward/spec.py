"""What a forward is asked to be: its target, its ports, its promises."""

from __future__ import annotations

import re
from typing import Literal

import msgspec

DEFAULT_CLUSTER = "default"
HOLD_SECONDS = 30.0
HOLD_CONNECTIONS = 1024


class Target(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """What a forward leads to: a service, one task by id, or tasks found by tags."""

    type: Literal["service", "task"]
    cluster: str = DEFAULT_CLUSTER
    service: str | None = None
    task: str | None = None
    """Task id, whole or a unique prefix of 8 or more hexadecimal digits."""
    tags: dict[str, str] = {}
    region: str | None = None

    def __str__(self) -> str:
        """`prod/web`, or `prod/0123abcd…` for a task."""
        return f"{self.cluster}/{self.service or self.task or '*'}"


class ForwardSpec(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """A forward as a person asked for it; None means: choose."""

    target: Target
    name: str | None = None
    local_port: int | None = None
    target_port: int | str | None = None
    """Container port, or the name of a port mapping."""
    address: list[str] = []
    """Addresses to listen on; empty means 127.0.0.1, and ::1 where IPv6 exists."""
    auto_reconnect: bool = True
    hold_seconds: float = HOLD_SECONDS
    hold_connections: int = HOLD_CONNECTIONS


class TargetSyntaxError(ValueError):
    """What was typed does not name a target; the message says what is wrong with it."""


_NAME = re.compile(r"[A-Za-z0-9_-]{1,255}")
_FORWARD_NAME = re.compile(r"[A-Za-z0-9._-]{1,63}")
_TASK = re.compile(r"[0-9a-f]{8,32}")

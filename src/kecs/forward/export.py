"""Forwards that exist, written as a port-forward file that asks for the same ones.

Used by `kecs port-forward export`. What is a default is not written. Pure: text out.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
import yaml

from kecs.forward.document import Hold
from kecs.forward.spec import IDLE_SECONDS, ForwardSpec, Retry

_HEAD = (
    "# Written by `kecs port-forward export`; `kecs port-forward run --config FILE` starts what it defines.\n"
)


def export(forwards: Iterable[ForwardSpec], *, region: str, names: bool = False) -> str:
    """Return the text of a file; `kecs.forward.file.parse` reads the same forwards from it.

    All have a name and a target port, as those that exist have. `region` is the instance's own: it is not
    written, so that the file serves on instances of other regions too.
    """
    document: dict[str, Any] = {"version": "1"}
    if names:
        document["names"] = True
    document["forwards"] = [_forward(one, region) for one in forwards]
    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    return _HEAD + str(yaml.dump(document, Dumper=dumper, sort_keys=False, allow_unicode=True, width=110))


def _forward(spec: ForwardSpec, region: str) -> dict[str, Any]:
    """Return one forward in the order in which a person would write it."""
    target = spec.target
    hold = Hold(seconds=spec.hold_seconds, connections=spec.hold_connections)
    members = {
        "name": spec.name,
        "type": target.type,
        "cluster": target.cluster,
        "region": target.region if target.region != region else None,
        "service": target.service,
        "task": target.task,
        "tags": target.tags or None,
        "strict": spec.strict or None,
        "localPort": spec.local_port,
        "targetPort": spec.target_port,
        "publish": spec.publish,
        "protocol": spec.protocol if spec.protocol != "tcp" else None,
        "autoReconnect": None if spec.auto_reconnect else False,
        "address": spec.address or None,
        "route": spec.route if spec.route != "auto" else None,
        "hold": _other_than(hold, Hold()),
        "idle": spec.idle_seconds if spec.idle_seconds != IDLE_SECONDS else None,
        "retry": _other_than(spec.retry, Retry()),
        "probe": msgspec.to_builtins(spec.probe),
        "notify": msgspec.to_builtins(spec.notify) or None,
    }
    return {key: value for key, value in members.items() if value is not None}


def _other_than(value: msgspec.Struct, default: msgspec.Struct) -> dict[str, Any] | None:
    """Return the members of `value` that are not as in `default`; None when all are."""
    usual = msgspec.structs.asdict(default)
    return {key: one for key, one in msgspec.structs.asdict(value).items() if one != usual[key]} or None

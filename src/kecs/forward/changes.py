"""What is different between two specs of one forward, in the words of a port-forward file.

Used by plans (`kecs.forward.apply`): `localPort 8080 -> 8081`. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from kecs.forward.spec import ForwardSpec, Notify, Probe, Target


@dataclass(frozen=True, slots=True)
class Change:
    """One key of a forward that is other than before."""

    key: str
    """As the file calls it: `localPort`, `retry.max`."""
    before: str
    after: str

    def __str__(self) -> str:
        """`localPort 8080 -> 8081`."""
        return f"{self.key} {self.before} -> {self.after}"


def changes(before: ForwardSpec, after: ForwardSpec) -> list[Change]:
    """Return the changes from `before` to `after`; both have names, ports and regions."""
    return [
        Change(key, old, new)
        for key, words in _WORDS.items()
        if (old := words(before)) != (new := words(after))
    ]


def _target(target: Target) -> str:
    where = "" if target.region is None else f" in {target.region}"
    in_order = msgspec.structs.replace(target, tags=dict(sorted(target.tags.items())))
    return f"{target.type} {in_order}{where}"


def _listed(values: list[str]) -> str:
    return ", ".join(sorted(values)) or "loopback"


def _probe(probe: Probe | None) -> str:
    if probe is None:
        return "none"
    what = "tcp" if probe.type == "tcp" else f"http {probe.path}"
    return f"{what} every {probe.interval:g} s (timeout {probe.timeout:g} s, failures {probe.failures})"


def _notify(notify: Notify | None) -> str:
    if not notify:
        return "nobody"
    command = [f"command {' '.join(notify.command)}"] if notify.command else []
    webhook = [f"webhook {notify.webhook}"] if notify.webhook is not None else []
    return ", ".join([*(["desktop"] if notify.desktop else []), *command, *webhook])


def _number(value: float) -> str:
    return f"{value:.12g}"


def _yes(value: bool) -> str:
    return "true" if value else "false"


_WORDS: Mapping[str, Callable[[ForwardSpec], Any]] = {
    "target": lambda spec: _target(spec.target),
    "localPort": lambda spec: str(spec.local_port),
    "targetPort": lambda spec: str(spec.target_port),
    "publish": lambda spec: "none" if spec.publish is None else str(spec.publish),
    "protocol": lambda spec: spec.protocol or "tcp",
    "address": lambda spec: _listed(spec.address),
    "autoReconnect": lambda spec: _yes(spec.auto_reconnect),
    "strict": lambda spec: _yes(spec.strict),
    "route": lambda spec: spec.route,
    "hold.seconds": lambda spec: _number(spec.hold_seconds),
    "hold.connections": lambda spec: str(spec.hold_connections),
    "idle": lambda spec: _number(spec.idle_seconds),
    "retry.initial": lambda spec: _number(spec.retry.initial),
    "retry.factor": lambda spec: _number(spec.retry.factor),
    "retry.max": lambda spec: _number(spec.retry.max),
    "retry.jitter": lambda spec: _number(spec.retry.jitter),
    "retry.attempts": lambda spec: str(spec.retry.attempts),
    "probe": lambda spec: _probe(spec.probe),
    "notify": lambda spec: _notify(spec.notify),
}
"""Each key that can change, and its value in words: all of a spec but its name, which a test holds."""

"""What an ECS operation may know besides its parameters and the rows: passed in, never looked up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

ACCOUNT = "123456789012"
"""The one account of every instance."""


@dataclass(frozen=True)
class RuntimeTraits:
    """What the instance's runtime can do, as far as operations must know it."""

    name: str = "local"
    """`local`, `kubernetes` or `k3d`."""
    instance: str = "default"
    """Name and id of the instance: what is made in a cluster is named after them (`kecs.ecs.names`)."""
    instance_id: str = ""
    node_ports: range | None = None
    """Where node ports of public services and tasks are taken from; None: the runtime has none (`local`)."""
    published: range | None = None
    """Those TCP node ports that also answer on 127.0.0.1 of this machine, under the same number."""
    published_by: str | None = None
    """The node behind them; None: which one it is is not known."""

    @property
    def runs_pods(self) -> bool:
        """True where a task is a Pod: its image runs, and it has a network of its own.

        On `local` a task is processes of this machine: `image` is recorded and not pulled, and each
        container port gets a KECS port.
        """
        return self.name != "local"


@dataclass(frozen=True)
class Knobs:
    """Times that can be tuned (docs/reference/settings.md); seconds."""

    healthy_after: float = 1.0
    """A task without a health check counts as healthy so long after RUNNING (AWS: 40 s)."""
    ready_timeout: float = 30.0
    """A task that does not listen is RUNNING all the same after this."""
    drain: float = 5.0
    """Longest wait for open connections before a planned stop."""
    time_scale: float = 1.0
    """Multiplies `healthy_after`, health-check intervals and stopTimeout, nothing else."""


@dataclass(frozen=True)
class Context:
    """One call's circumstances."""

    region: str
    now: float
    """Epoch seconds."""
    new_id: Callable[[], str]
    """A fresh random id of 32 hexadecimal digits."""
    account: str = ACCOUNT
    runtime: RuntimeTraits = field(default_factory=RuntimeTraits)
    knobs: Knobs = field(default_factory=Knobs)
    free_port: Callable[[set[int]], int | None] | None = None
    """Names a port of this machine that is free and not among these; None: services keep none there."""

"""Which runtime a new instance has: what a person named, or what `auto` finds.

Used by `kecs.client.lifetime` before anything is written. `kecs.k3d` is imported to look for it only.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from kecs.errors import ExitCode, KecsError

RUNTIMES = ("auto", "k3d", "kubernetes", "local")
"""What `--runtime` takes."""
AUTO = "auto"
OF_K3D = {
    "load_balancer": "--load-balancer",
    "agents": "--agents",
    "k3s_image": "--k3s-image",
    "k3s_args": "--k3s-arg",
    "registries": "--registry",
    "import_images": "--import",
}
"""Wishes that only an instance on k3d can have, with their options."""
OF_A_CLUSTER = {"kubeconfig": "--kubeconfig", "context": "--context"}
"""Wishes that only an instance on somebody's cluster can have."""


class Chosen(NamedTuple):
    """The runtime of a new instance."""

    runtime: str
    auto: str | None
    """Why `auto` chose it; None: a person named it."""


def choose(runtime: str, environment: Mapping[str, str]) -> Chosen:
    """Return the runtime for a new instance; `auto` takes k3d where it and Docker answer, else `local`."""
    if runtime != AUTO:
        return Chosen(runtime, None)
    from kecs.k3d import tools

    why = tools.why_not(environment)
    if why is None:
        return Chosen("k3d", "Docker and k3d answer")
    return Chosen("local", why)


def check(chosen: Chosen, given: Mapping[str, object]) -> None:
    """Raise a usage error where a new instance is given what its runtime has not.

    `given` has the wishes that were told, by their names in `lifetime.Wishes`.
    """
    runtimes: dict[str, tuple[str, ...]] = {
        **dict.fromkeys(OF_K3D, ("k3d",)),
        **dict.fromkeys(OF_A_CLUSTER, ("kubernetes",)),
        "node_ports": ("k3d", "kubernetes"),
    }
    for name in given:
        if chosen.runtime in runtimes.get(name, (chosen.runtime,)):
            continue
        option = OF_K3D.get(name) or OF_A_CLUSTER.get(name) or "--node-ports"
        kinds: dict[tuple[str, ...], str] = {("k3d",): "on k3d", ("kubernetes",): "on your own cluster"}
        kind = kinds.get(runtimes[name], "on a cluster")
        found = f", and `auto` chose `{chosen.runtime}`: {chosen.auto}" if chosen.auto else ""
        wanted = " or ".join(f"`--runtime {each}`" for each in runtimes[name])
        raise KecsError(
            f"`{option}` is for instances {kind}{found}",
            f"add {wanted}, or leave `{option}` out",
            ExitCode.USAGE,
        )


def check_node_ports(runtime: str, text: str | None) -> None:
    """Raise a usage error for what is no range of node ports; on k3d it may be how many, too."""
    if text is None:
        return
    if runtime == "k3d":
        from kecs.client import k3d_ports

        k3d_ports.parse(text)
        return
    from kecs.ecs import node_ports

    try:
        node_ports.parse(text)
    except ValueError as error:
        raise KecsError(
            str(error), f"write it as first and last port: `{node_ports.DEFAULT_RANGE}`", ExitCode.USAGE
        ) from error


def told(chosen: Chosen) -> str | None:
    """Return what a person is told of a choice that was not theirs, and how another is made."""
    if chosen.auto is None:
        return None
    others = "|".join(name for name in RUNTIMES if name not in (AUTO, chosen.runtime))
    what = {"local": "processes of this machine", "k3d": "containers of a cluster of its own"}
    return (
        f"tasks will be {what[chosen.runtime]} (runtime `{chosen.runtime}`), since {chosen.auto}; "
        f"for another: `kecs destroy`, then `kecs start --runtime {others}`"
    )

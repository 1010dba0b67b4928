"""The table of checks of `kecs doctor`, and running them all."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from kecs.client.doctor import clusters, daemons, home, ports, system
from kecs.client.doctor.finding import Finding, error
from kecs.client.doctor.machine import Machine

CHECKS: dict[str, Callable[[Machine], Iterable[Finding]]] = {
    "home": home.check_home,
    "files": home.check_files,
    "stale files": home.check_stale,
    "daemons": daemons.check_daemons,
    "API port": ports.check_api_ports,
    "kept ports": ports.check_kept_ports,
    "descriptors": system.check_descriptors,
    "proxies": system.check_proxies,
    "clock": system.check_clock,
    "kubeconfig": clusters.check_kubeconfig,
    "Docker": clusters.check_docker,
    "k3d": clusters.check_k3d,
}
"""Name of a check, as its findings carry it, -> the check; in the order in which they are told."""


def examine(machine: Machine) -> Iterator[Finding]:
    """Run all checks, telling what each finds as soon as it has. One that fails is a finding, too."""
    for name, check in CHECKS.items():
        try:
            found = list(check(machine))
        except OSError as why:
            found = [error(name, f"this could not be looked at: {why}", "see that KECS_HOME can be read")]
        yield from found

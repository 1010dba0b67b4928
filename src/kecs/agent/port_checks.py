"""Which port of a target a forward means, what its protocol cannot have, and the words for both. No I/O.

Called by `kecs.agent.checks`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from kecs.client.endpoints import EndpointPort
from kecs.errors import ExitCode, KecsError
from kecs.forward.ports import port_text
from kecs.forward.spec import HOLD_CONNECTIONS, HOLD_SECONDS, IDLE_SECONDS, ForwardSpec, Protocol


def check_protocol(spec: ForwardSpec, protocol: Protocol) -> None:
    """Refuse what a forward of this protocol has not."""
    if protocol == "tcp":
        if spec.idle_seconds != IDLE_SECONDS:
            raise KecsError(
                f"`--idle` is for UDP, and the port of `{spec.target}` is TCP's, where connections end",
                "leave it away, or name a UDP port: `--target-port 53/udp`",
                ExitCode.USAGE,
            )
        return
    if spec.route == "tunnel":
        raise KecsError(
            "a tunnel carries TCP only, so a UDP port cannot be reached by one",
            "leave `--route` away: UDP goes to the address of a task, or of a node of the cluster",
            ExitCode.USAGE,
        )
    if spec.probe is not None:
        raise KecsError(
            "a probe connects by TCP, so a UDP port has none",
            "leave `--probe` away, or probe a forward to a TCP port of the same task",
            ExitCode.USAGE,
        )
    if (spec.hold_seconds, spec.hold_connections) != (HOLD_SECONDS, HOLD_CONNECTIONS):
        raise KecsError(
            "UDP has no connections to hold: datagrams that no task takes are dropped, and counted",
            "leave `--hold` away",
            ExitCode.USAGE,
        )


def find_port(spec: ForwardSpec, possible: Sequence[EndpointPort]) -> tuple[int, str | None, Protocol]:
    """Return the container port, its mapping's name when it was asked for by name, and its protocol.

    TCP is meant where a port is there in both, and where no port was named and only one is TCP's.
    """
    wanted, where = spec.target_port, str(spec.target)
    if not possible:
        raise KecsError(
            f"`{where}` has no port mappings, so nothing of it can be reached",
            "add `portMappings` to its task definition",
        )
    named = (
        possible
        if wanted is None
        else [port for port in possible if wanted in (port.container_port, port.name)]
    )
    found = [port for port in named if spec.protocol in (None, port.protocol)]
    if not found:
        asked = "" if wanted is None else f" `{wanted}`"
        if spec.protocol is not None:
            asked = f" of {spec.protocol.upper()}" if wanted is None else f" `{wanted}/{spec.protocol}`"
        raise KecsError(
            f"`{where}` has no port{asked}", f"its ports: {_mappings(possible)}", ExitCode.NOT_FOUND
        )
    protocol: Protocol = "tcp" if any(port.protocol == "tcp" for port in found) else "udp"
    found = [port for port in found if port.protocol == protocol]
    if wanted is None and len({port.container_port for port in found}) > 1:
        example = min(port.container_port for port in found)
        raise KecsError(
            f"`{where}` has several ports: {_mappings(possible)}",
            f"choose one by `--target-port {example}`, or write `:{example}`",
            ExitCode.USAGE,
        )
    return found[0].container_port, wanted if isinstance(wanted, str) else None, protocol


def _mappings(ports: Iterable[EndpointPort]) -> str:
    """`80 (http), 81, 53/udp`."""
    shown = {
        (port.container_port, port.protocol): port_text(port.container_port, port.protocol)
        + (f" ({port.name})" if port.name else "")
        for port in ports
    }
    return ", ".join(text for _, text in sorted(shown.items()))

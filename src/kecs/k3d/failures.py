"""What went wrong, from what k3d said: its exit code and last words often tell less, or something else.

Used by `cluster`, `images` and `balancer`. `k3d cluster delete` ends with 0 when Docker is down, `kubeconfig
get` then says that there is no such cluster; so the daemon is looked for first, then ports.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from kecs.errors import ExitCode, KecsError
from kecs.k3d.run import Said, redacted

_DOWN = re.compile(
    r"Cannot connect to the Docker daemon[^\"\n]*|[^\"\n:]*permission denied while trying to connect[^\"\n]*"
    r"|error during connect: [^\"\n]*|failed to connect to the docker API[^\"\n]*"
)
_TAKEN = re.compile(r"already allocated|address already in use|port is already|Ports are not available")
_NOISE = re.compile(r">>> Rolling Back|^Cluster creation FAILED|default kubeconfig")
_ADDRESS = re.compile(r"(?P<address>\d+\.\d+\.\d+\.\d+|0\.0\.0\.0|\[::\]|::1):(?P<port>\d{2,5})\b")


class DockerDown(KecsError):  # noqa: N818 - it names the state
    """The Docker daemon did not answer, or refused us."""


class PortTaken(KecsError):  # noqa: N818 - it names the state
    """A port that the cluster needs is held by something else."""

    def __init__(self, message: str, hint: str, port: int) -> None:
        super().__init__(message, hint, ExitCode.CONFLICT)
        self.port = port


def docker_down(said: Said) -> DockerDown | None:
    """Return the error when Docker was not reached, whatever the exit code says."""
    match = _DOWN.search(said.stderr)
    if match is None:
        return None
    words = redacted(match[0]).strip().rstrip("\\")
    if "permission denied" in words:
        hint = "let this user use Docker: `sudo usermod -aG docker $USER`, then log in again"
    else:
        hint = "start Docker, see that `docker info` works, then try again"
    return DockerDown(f"Docker does not answer: {words}", hint, ExitCode.UNREACHABLE)


def port_taken(said: Said) -> int | None:
    """Return the host port that Docker could not publish, or None when that was not the reason."""
    for text in said.complaints or [said.stderr]:
        if _TAKEN.search(text) and (found := _ADDRESS.findall(text)):
            return int(found[-1][1] if "already allocated" in text else found[0][1])
    return None


def failure(what: str, said: Said, hint: str, port: Callable[[int], str] | None = None) -> KecsError:
    """Return the error for `what` (`creating the cluster …`) that failed as `said` tells.

    `port` words the hint when a port was taken.
    """
    if down := docker_down(said):
        return down
    taken = port_taken(said)
    if taken is not None:
        words = port(taken) if port else f"free port {taken} (`docker ps` and `ss -ltnp` tell who has it)"
        return PortTaken(
            f"{what} failed: port {taken} is taken by another program or container", words, taken
        )
    words = (_reason(said) or said.words).rstrip(".")
    return KecsError(f"{what} failed: {words[:600]}", hint)


def _reason(said: Said) -> str | None:
    """Return the first error of those that tell a reason; k3d says last only that it gave up."""
    worst_first = sorted(
        (line for line in said.messages if line.level != "info" and not _NOISE.search(line.text)),
        key=lambda line: line.level == "warning",
    )
    return worst_first[0].text if worst_first else None

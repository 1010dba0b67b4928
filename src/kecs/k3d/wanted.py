"""What a cluster is made of, and how k3d is asked for it. Used by `cluster`; pure."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from kecs.errors import ExitCode, KecsError

LABEL = "kecs.dev/instance-id"
"""Label of the server's container: the id of the instance whose cluster this is."""
LONGEST = 32
"""Characters of a k3d cluster's name."""
PHASE = 300
"""Seconds that k3d itself waits in each phase of a create or start (its `--timeout`)."""
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")
_FREE = "free port {} (`docker ps` and `ss -ltnp` tell who has it)"


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What a cluster is to be made of."""

    name: str
    instance_id: str
    api_port: int
    """Where the server's own container publishes the Kubernetes API, on 127.0.0.1."""
    balancer_api_port: int | None
    """Where the load balancer publishes it too; needed with `load_balancer`, nothing of ours uses it."""
    node_ports: range
    """Published one to one on 127.0.0.1 by the first server; may be empty."""
    load_balancer: bool
    agents: int = 0
    image: str | None = None
    k3s_args: tuple[str, ...] = ()
    registries: tuple[str, ...] = ()


def check_name(name: str) -> None:
    """Raise a usage error for a name that k3d does not take."""
    if len(name) > LONGEST or not _NAME.fullmatch(name):
        raise KecsError(
            f"`{name}` cannot name a k3d cluster: at most {LONGEST} of a-z, 0-9 and `-`",
            "use a shorter instance name",
            ExitCode.USAGE,
        )


def creation(wanted: Wanted) -> list[str]:
    """Return the words of `k3d cluster create`."""
    words = ["cluster", "create", wanted.name, "--servers", "1", "--agents", str(wanted.agents)]
    words += ["--kubeconfig-update-default=false", "--kubeconfig-switch-context=false"]
    words += ["--wait", "--timeout", f"{PHASE}s", "--runtime-label", f"{LABEL}={wanted.instance_id}@server:*"]
    if wanted.load_balancer:
        words += ["--api-port", f"127.0.0.1:{wanted.balancer_api_port or 'random'}"]
        # A second door to the API that an edit of the load balancer does not close.
        words += ["-p", f"127.0.0.1:{wanted.api_port}:6443@server:0:direct"]
    else:
        words += ["--no-lb", "--api-port", f"127.0.0.1:{wanted.api_port}"]
    if block := wanted.node_ports:
        ports = f"{block[0]}-{block[-1]}" if len(block) > 1 else f"{block[0]}"
        words += ["-p", f"127.0.0.1:{ports}:{ports}@server:0:direct"]
    for part in ("traefik", "servicelb"):
        words += ["--k3s-arg", f"--disable={part}@server:*"]
    if wanted.image:
        words += ["--image", wanted.image]
    for argument in wanted.k3s_args:
        words += ["--k3s-arg", argument]
    for registry in wanted.registries:
        words += ["--registry-use", registry]
    return words


def when_taken(wanted: Wanted) -> Callable[[int], str]:
    """Return what words the hint when a port of a new cluster is taken."""

    def hint(port: int) -> str:
        if port in wanted.node_ports:
            return f"{_FREE.format(port)}, or choose other node ports: `kecs start --node-ports FIRST-LAST`"
        return f"{_FREE.format(port)}, then start again"

    return hint


def when_taken_meanwhile(port: int) -> str:
    """Word the hint when a port of a cluster that exists is taken."""
    return (
        f"{_FREE.format(port)}, then start again; a cluster keeps its ports: others come with a new one, by"
        " `kecs destroy` and `kecs start`"
    )

"""What `kecs start` was told: as a new instance, as a change of one that exists, or against what that is.

Used by `kecs.client.lifetime` and `k3d_start`. It looks at nothing but its arguments and writes nothing.
"""

from __future__ import annotations

import secrets
import string
import time
from collections.abc import Mapping
from pathlib import Path

import msgspec

from kecs.client import choice, metrics_address
from kecs.client.choice import Chosen
from kecs.client.instance import Desired, ImportImages, Instance, K3d, Kubernetes
from kecs.errors import ExitCode, KecsError
from kecs.paths import InstancePaths

DEFAULT_REGION = "us-east-1"
_KEPT_VARIABLES = ("PATH", "HOME", "USER", "LANG", "TMPDIR")
_KEY_LETTERS = string.ascii_uppercase + "234567"
_WHILE_STOPPED = frozenset({"port", "require-key", "import"})
"""Settings that may be changed while the instance is stopped; on somebody's cluster `node-ports`, too."""


class Wishes(msgspec.Struct, frozen=True, kw_only=True):
    """What `kecs start` was told; None means: as it was, or choose."""

    port: int | None = None
    """0 chooses one, or keeps the one that was chosen."""
    runtime: str | None = None
    """One of `choice.RUNTIMES`; `auto` contradicts no instance."""
    default_runtime: str = choice.AUTO
    """The same for a new instance whose runtime was not told."""
    region: str | None = None
    require_key: bool | None = None
    kubeconfig: str | None = None
    context: str | None = None
    node_ports: str | None = None
    """`FIRST-LAST`; on k3d also how many."""
    load_balancer: bool | None = None
    agents: int | None = None
    k3s_image: str | None = None
    k3s_args: tuple[str, ...] | None = None
    registries: tuple[str, ...] | None = None
    import_images: ImportImages | None = None
    metrics_address: str | None = None
    """`ADDR:PORT`, or `off`."""
    knobs: dict[str, float] = {}
    environment: Mapping[str, str]
    """The caller's environment, whole."""
    directory: str

    def given(self) -> dict[str, object]:
        """Return the options that were told, by their names here."""
        names = (*choice.OF_K3D, *choice.OF_A_CLUSTER, "node_ports")
        return {name: value for name in names if (value := getattr(self, name)) is not None}


def created(
    paths: InstancePaths,
    wishes: Wishes,
    chosen: Chosen,
    *,
    desired: Desired = "running",
    kubernetes: Kubernetes | None = None,
    k3d: K3d | None = None,
    published: str | None = None,
) -> Instance:
    """Return a new instance with a random id and a random key."""
    env = wishes.environment
    region = wishes.region or env.get("AWS_REGION") or env.get("AWS_DEFAULT_REGION") or DEFAULT_REGION
    return Instance(
        name=paths.name,
        id=secrets.token_hex(4),
        runtime=chosen.runtime,
        auto=chosen.auto,
        region=region,
        api_port=wishes.port or 0,
        desired=desired,
        access_key_id="KECS" + "".join(secrets.choice(_KEY_LETTERS) for _ in range(16)),
        require_key=bool(wishes.require_key),
        environment=kept_environment(env),
        directory=wishes.directory,
        knobs=wishes.knobs,
        kubernetes=kubernetes,
        k3d=k3d,
        node_ports=wishes.node_ports if k3d is None else None,
        published=published,
        metrics_address=metrics_address.wanted(wishes.metrics_address, None),
        created_at=time.time(),
    )


def changed(paths: InstancePaths, before: Instance, wishes: Wishes) -> Instance:
    """Apply `wishes` to an instance that exists. Raises `KecsError` (exit 4) where they contradict it."""
    check(paths, before, wishes)
    if before.desired == "running":
        return msgspec.structs.replace(before, agent="running")
    k3d = before.k3d
    if k3d is not None and wishes.import_images is not None:
        k3d = msgspec.structs.replace(k3d, import_images=wishes.import_images)
    return msgspec.structs.replace(
        before,
        desired="running",
        agent="running",
        ended=False,
        api_port=wishes.port or before.api_port,
        require_key=before.require_key if wishes.require_key is None else wishes.require_key,
        environment=kept_environment(wishes.environment),
        directory=wishes.directory,
        knobs=wishes.knobs,
        k3d=k3d,
        node_ports=before.node_ports if k3d is not None else wishes.node_ports or before.node_ports,
        metrics_address=metrics_address.wanted(wishes.metrics_address, before.metrics_address),
    )


def check(paths: InstancePaths, before: Instance, wishes: Wishes) -> None:
    """Raise `KecsError` (exit 4) where wishes contradict what an instance is."""
    running = before.desired == "running"
    chosen, k3d = before.kubernetes if before.k3d is None else None, before.k3d
    runtime = None if wishes.runtime == choice.AUTO else wishes.runtime
    off = metrics_address.OFF
    metrics = metrics_address.wanted(wishes.metrics_address, before.metrics_address)
    while_running: list[tuple[str, object, object]] = [
        ("port", (wishes.port or None) if before.api_port else None, before.api_port),
        ("require-key", wishes.require_key, before.require_key),
        ("node-ports", wishes.node_ports if k3d is None else None, before.node_ports),
        ("metrics-address", metrics or off, before.metrics_address or off),
    ]
    of_k3d: list[tuple[str, object, object]] = []
    if k3d is not None:
        of_k3d = [
            *([("import", wishes.import_images, k3d.import_images)] if running else []),
            ("load-balancer", wishes.load_balancer, k3d.load_balancer),
            ("agents", wishes.agents, k3d.agents),
            ("k3s-image", wishes.k3s_image, k3d.image),
            ("k3s-arg", wishes.k3s_args, k3d.k3s_args),
            ("registry", wishes.registries, k3d.registries),
        ]
    for what, wish, is_now in (
        ("runtime", runtime, before.runtime),
        ("region", wishes.region, before.region),
        *(while_running if running else ()),
        ("kubeconfig", _full(wishes.kubeconfig), chosen.kubeconfig if chosen is not None else None),
        ("context", wishes.context, chosen.context if chosen is not None else None),
        *of_k3d,
    ):
        if wish is not None and wish != is_now:
            raise _conflict(paths, what, wish, is_now)
    if k3d is None:
        for option in (choice.OF_K3D[name] for name in wishes.given() if name in choice.OF_K3D):
            raise KecsError(
                f"`{option}` is for instances on k3d, and `{paths.name}` has the runtime `{before.runtime}`",
                f"leave `{option}` out; an instance on k3d: `kecs start --instance NAME --runtime k3d`",
                ExitCode.CONFLICT,
            )
    if k3d is not None and wishes.node_ports is not None:
        _check_block(paths, before, wishes.node_ports)


def kept_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return what a local process gets of the caller's environment (docs/design/contracts.md, 7)."""
    return {
        name: value
        for name, value in sorted(environment.items())
        if name in _KEPT_VARIABLES or name.startswith("LC_")
    }


def _check_block(paths: InstancePaths, before: Instance, wish: str) -> None:
    """Raise `KecsError` (exit 4) for another block than the published one: a server's ports never change."""
    from kecs.client import k3d_ports

    is_now, wanted = k3d_ports.read(before.published), k3d_ports.parse(wish)
    if (len(is_now) if isinstance(wanted, int) else is_now) != wanted:
        raise _conflict(paths, "node-ports", wish, before.published, for_ever=True)


def _full(path: str | None) -> str | None:
    return None if path is None else str(Path(path).expanduser().absolute())


def _conflict(
    paths: InstancePaths, what: str, wish: object, is_now: object, *, for_ever: bool = False
) -> KecsError:
    if what == "metrics-address":
        hint = f"while it runs: `kecs port-forward agent restart --metrics-address {wish}`"
    elif what in _WHILE_STOPPED or (what == "node-ports" and not for_ever):
        hint = "stop it first: `kecs stop`"
    else:
        hint = f"the {what} was chosen at the first start; for another: `kecs start --instance NAME`"
    return KecsError(
        f"the instance `{paths.name}` has {what} {_shown(is_now)}, not {_shown(wish)}",
        hint,
        ExitCode.CONFLICT,
    )


def _shown(value: object) -> str:
    if value is None or value == ():
        return "none"
    if isinstance(value, tuple):
        return " ".join(f"`{each}`" for each in value)
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else f"`{value}`"

"""The cluster of an instance with the runtime `kubernetes`: chosen at its first start, and the same for ever.

Used by `kecs.client.lifetime` in the command line, before anything is written or deleted; `kecs.kube` is
imported when an instance has a cluster, and not before.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from kecs.client.instance import Instance, Kubernetes
from kecs.errors import ExitCode, KecsError

if TYPE_CHECKING:
    from kecs.kube.access import Access
    from kecs.kube.client import KubeClient

T = TypeVar("T")
OLDEST = (1, 29)
"""The first Kubernetes that starts native sidecars without being asked to (KEP-753): an older one would take
them for init containers that have to end, and wait for ever."""
LOOK_LIMIT = 20.0
"""Seconds for the cluster to say which one it is; a credential plugin may have to ask somebody else."""
DESTROY_LIMIT = 180.0
"""Seconds for namespaces to go: their pods get up to 120 s, as ECS's longest stopTimeout is."""


def choose(kubeconfig: str | None, context: str | None) -> Kubernetes:
    """Return the cluster that a kubeconfig names (None: kubectl's own, and its current context).

    Raises `KecsError` (exit 5) when it cannot be reached, does not let us in or is too old.
    """
    from kecs.kube.access import Access

    access = Access.load(Path(kubeconfig) if kubeconfig is not None else None, context)
    uid, version = _ask(access, _uid_and_version, LOOK_LIMIT)
    if version < OLDEST:
        has, needs = (".".join(map(str, each)) for each in (version, OLDEST))
        raise KecsError(
            f"the cluster of context `{access.context}` is Kubernetes {has}; {needs} or newer is needed",
            "update the cluster, or name another by `--context`",
            ExitCode.UNREACHABLE,
        )
    return Kubernetes(kubeconfig=str(access.kubeconfig), context=access.context, cluster_uid=uid)


def confirm(chosen: Kubernetes, limit: float = LOOK_LIMIT) -> None:
    """Raise `KecsError` unless the cluster is there (exit 5) and still the chosen one (exit 4).

    It has `limit` seconds to say which one it is.
    """
    access = _access(chosen)
    if _ask(access, _uid, limit) != chosen.cluster_uid:
        raise another_cluster(chosen)


def clear(instance: Instance, note: Callable[[str], None]) -> int:
    """Delete all namespaces that the instance made, wait until they are gone, return how many there were.

    Raises `KecsError` (exit 5) when the cluster cannot be reached.
    """
    from kecs.runtimes.kubernetes.manifests import Owner
    from kecs.runtimes.kubernetes.namespaces import destroy

    if instance.kubernetes is None:
        return 0
    owner = Owner(instance.name, instance.id)
    return _ask(_access(instance.kubernetes), lambda client: destroy(client, owner, note), DESTROY_LIMIT)


def is_reached(instance: Instance, note: Callable[[str], None], *, force: bool) -> bool:
    """Tell whether the instance has a cluster that can be cleared.

    One that cannot is an error (exit 5, or 4 when it is another one now); with `force` it is given up.
    """
    if instance.kubernetes is None:
        return False
    try:
        confirm(instance.kubernetes)
    except KecsError as error:
        later = left_behind(instance)
        if not force:
            raise nothing_deleted(error, "what is on the cluster", later) from error
        note(f"{error.message}: what the instance has on its cluster stays there, until {later}")
        return False
    return True


def nothing_deleted(error: KecsError, left: str, later: str) -> KecsError:
    """Return the error for a `destroy` that could not begin: `later` deletes what `--force` leaves."""
    hint = f"`kecs destroy --force` deletes what is on this machine and leaves {left} to you: {later}"
    return KecsError(f"nothing was deleted: {error.message}", error.hint_and(hint, "; or "), error.exit_code)


def left_behind(instance: Instance) -> str:
    """Return the command that deletes what an instance has on its cluster."""
    context = instance.kubernetes.context if instance.kubernetes is not None else "NAME"
    return f"`kubectl --context {context} delete namespace --selector kecs.dev/instance-id={instance.id}`"


def another_cluster(chosen: Kubernetes) -> KecsError:
    """Return the error for a context behind which there is another cluster than at the first start."""
    return KecsError(
        f"the context `{chosen.context}` leads to another cluster than at the first start of the instance",
        "let it lead to that cluster again; for another one: `kecs start --instance NAME`",
        ExitCode.CONFLICT,
    )


def _access(chosen: Kubernetes) -> Access:
    from kecs.kube.access import Access

    return Access.load(Path(chosen.kubeconfig), chosen.context)


def _ask(access: Access, what: Callable[[KubeClient], Awaitable[T]], limit: float) -> T:
    """Do something with a client of the cluster; what it says no to becomes an error for a person."""
    from kecs.kube.advice import advice
    from kecs.kube.client import KubeClient
    from kecs.kube.errors import ApiError, Unreachable

    async def main() -> T:
        client = KubeClient(access)
        try:
            async with asyncio.timeout(limit):
                return await what(client)
        finally:
            await client.close()

    try:
        return asyncio.run(main())
    except (ApiError, Unreachable) as error:
        raise advice(error, access) from error
    except TimeoutError as error:
        raise KecsError(
            f"the cluster of context `{access.context}` was not done within {limit:g} s",
            f"look at it by `kubectl --context {access.context} get namespaces`, then run the command again",
            ExitCode.UNREACHABLE,
        ) from error


async def _uid(client: KubeClient) -> str:
    from kecs.kube.identity import cluster_uid

    return await cluster_uid(client)


async def _uid_and_version(client: KubeClient) -> tuple[str, tuple[int, int]]:
    return await _uid(client), await client.version()

"""Kept ports: where the tasks of this machine find a service, whatever tasks it has (`local` only).

`kecs.ecs.services` calls `settle_service` in the transaction of a request, and the daemon `settle_all` at its
start. A service with a TCP port gets a
port for its life; the agent listens on it (`kecs.agent.kept`), and `kecs.ecs.urls` tells tasks of it.
Which port is free is the context's to know.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from kecs.ecs.context import Context
from kecs.ecs.model import LocalPort, Service
from kecs.ecs.state import Reader, Tx
from kecs.ecs.urls import first_port


def settle_service(tx: Tx, service: Service, ctx: Context) -> None:
    """Give a service its port, unless it has one; where none is free it goes without."""
    if ctx.free_port is None or service.kept_port is not None:
        return
    if first_port(tx, service) is None:
        return
    port = ctx.free_port(ports_in_rows(tx))
    if port is not None:
        tx.put(msgspec.structs.replace(service, kept_port=port))


def settle_all(tx: Tx, context: Callable[[str], Context]) -> None:
    """Give a port to each service that has none: made by a version without them, or when none was free."""
    for service in tx.scan(Service):
        if service.status == "ACTIVE":
            settle_service(tx, service, context(service.region))


def ports_in_rows(state: Reader) -> set[int]:
    """Return the ports of this machine that rows name: those of tasks, and kept ones."""
    kept = {one.kept_port for one in state.scan(Service) if one.status != "INACTIVE" and one.kept_port}
    return kept | {row.port for row in state.scan(LocalPort)}

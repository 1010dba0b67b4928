"""A forward as people see it in `list`. No I/O: `kecs.agent.runner` brings the facts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import msgspec

from kecs.agent.resolution import Resolution
from kecs.agent.routes import id_of, kind_of
from kecs.agent.state import Entry
from kecs.client.rpc_types import Bytes, Connections, EndpointRow, ForwardRow, LastError
from kecs.forward import machine as m
from kecs.net.messages import Counters, Endpoint


def row_of(
    entry: Entry,
    state: m.State,
    reason: str | None,
    resolution: Resolution,
    counted: Counters,
    *,
    addresses: Sequence[str],
    last_error: LastError | None,
    error_of: Callable[[Endpoint], str | None],
) -> ForwardRow:
    """Return the row; `error_of` says how the last try on an endpoint failed."""
    if entry.protocol == "udp" and state in (m.State.ENDED, m.State.FAILED):
        # Without its socket it has no client, and the loop, which forgets such a forward, counts no more.
        counted = replace(counted, open=0, by_endpoint=())
    route = _route(resolution, counted)
    if reason is None:
        reason = resolution.note
    if reason is None and route is None and state is m.State.ACTIVE:
        reason = _why_no_route(resolution, error_of)
    return ForwardRow(
        id=entry.id,
        name=entry.name,
        type=entry.type,
        region=entry.region,
        cluster=entry.cluster,
        service=entry.service,
        task_id=entry.task_id,
        tags=entry.tags,
        address=list(addresses),
        local_port=entry.local_port,
        target_port=entry.target_port or entry.port,
        protocol=entry.protocol,
        state=state.value,
        reason=reason,
        endpoints=_endpoints(resolution, dict(counted.by_endpoint)),
        route=route,
        route_wanted=entry.route,
        connections=Connections(
            open=counted.open, total=counted.total, held=counted.held, dropped=counted.dropped
        ),
        bytes=Bytes(in_=counted.received, out=counted.sent),
        last_error=last_error,
        created_at=entry.created_at,
        auto_reconnect=entry.auto_reconnect,
        owner=entry.owner,
        auto=entry.auto,
        publish=entry.publish,
        matched=resolution.matched,
        chosen=resolution.chosen,
    )


def _endpoints(resolution: Resolution, opened: Mapping[str, int]) -> list[EndpointRow]:
    """Return the endpoints, but for tasks that were passed over and have no connection left."""
    rows = [msgspec.structs.replace(row, open=opened.get(id_of(row), 0)) for row in resolution.rows]
    return [row for row in rows if row.open or row.task_id not in resolution.older]


def _route(resolution: Resolution, counted: Counters) -> str | None:
    """Return the kind of route that the next connection takes, as of the last counters."""
    taking = set(counted.taking)
    kinds = {kind_of(endpoint) for endpoint in resolution.endpoints if endpoint.id in taking}
    return kinds.pop() if len(kinds) == 1 else "mixed" if kinds else None


def _why_no_route(resolution: Resolution, error_of: Callable[[Endpoint], str | None]) -> str | None:
    """Say why new connections wait although there are tasks that take them."""
    errors: dict[str, str] = {}
    for endpoint in resolution.endpoints:
        if not endpoint.draining and (error := error_of(endpoint)):
            errors[kind_of(endpoint)] = error
    if not errors:
        return None
    listed = ", ".join(f"{kind}: {error}" for kind, error in sorted(errors.items()))
    return f"the control plane says ready, but no route works: {listed}"

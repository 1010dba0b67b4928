"""How a forward is written in a line or a cell, from the plain JSON of a `ForwardRow`, which is quick."""

from __future__ import annotations

from typing import Any

from kecs.cli import output as out
from kecs.forward.ports import port_text

Row = dict[str, Any]


def line(row: Row) -> str:
    """Return `NAME  http://127.0.0.1:PORT -> prod/web:80  STATE` (docs/design/contracts.md, 3).

    Behind it stand the reason of a state that is not ACTIVE, and the task that was chosen by tags.
    """
    return f"{row['name']}  {url(row)} -> {target(row)}  {state(row)}"


def state(row: Row) -> str:
    """Return the state, why it is not ACTIVE, and the chosen task."""
    notes = [out.clean(row["reason"])] if row["reason"] and row["state"] != "ACTIVE" else []
    if text := chosen(row):
        notes.append(text)
    return str(row["state"]) + (f" ({'; '.join(notes)})" if notes else "")


def chosen(row: Row) -> str:
    """Return `task 0123abcd, 5m old, the newest of 3`; empty without a task that was chosen."""
    one, matched = row.get("chosen"), row.get("matched")
    if not one:
        return ""
    text = f"task {one['taskId'][:8]}, {out.ago(one['createdAt'])} old"
    if matched is None:
        return text
    return f"{text}, {f'the newest of {matched}' if matched > 1 else 'the only match'}"


def url(row: Row) -> str:
    """Return where a browser or curl finds the forward; one of UDP is no web server."""
    return f"{'udp' if _is_udp(row) else 'http'}://{local(row)}"


def published(row: Row) -> str:
    """Return where Docker holds a port for the forward."""
    return f"http://127.0.0.1:{row['publish']} (published on k3d's load balancer)"


def local(row: Row) -> str:
    """Return where the forward listens: `127.0.0.1:8080`. Of UDP its target tells."""
    return host_port(row["address"], row["localPort"])


def host_port(addresses: list[str], port: int) -> str:
    """Return an address to connect to: of several, one that is not ::1."""
    address = next((one for one in addresses if one != "::1"), addresses[0] if addresses else "127.0.0.1")
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def target(row: Row) -> str:
    """Return what it leads to: `prod/web:80`, `prod/0123abcd:53/udp`, `prod/Env=dev,Part=worker:80`."""
    tags = ",".join(f"{key}={value}" for key, value in row["tags"].items())
    what = row["service"] or tags or (row["taskId"] or "*")[:8]
    return out.clean(f"{row['cluster']}/{what}:{port_text(row['targetPort'], row.get('protocol'))}")


def _is_udp(row: Row) -> bool:
    return row.get("protocol") == "udp"


def by_name(row: Row, here: str, port: int) -> str | None:
    """Return where a service answers by its name on the one `port` of names; None for a task, and for UDP.

    `here` is the region of the instance.
    """
    if row["service"] is None or _is_udp(row):
        return None
    from kecs.client import names

    return names.url_of(row["service"], row["cluster"], row["region"], here, port)


def names(port: int) -> str:
    """Return the line that says where services answer by name."""
    return f"services answer by name: http://SERVICE.CLUSTER.localhost:{port}/"


def header(*, wide: bool) -> list[str]:
    """Return the names of the columns."""
    names = ["NAME", "STATE", "LOCAL", "TARGET", "OPEN", "TOTAL", "HELD", "REASON"]
    if wide:
        names[7:7] = ["ID", "ROUTE", "PUBLISH", "ENDPOINTS", "CHOSEN", "IN", "OUT"]
        names[-1:-1] = ["REGION", "OWNER", "LAST ERROR"]
    return names


def cells(row: Row, *, wide: bool) -> list[str]:
    """Return the row of the table."""
    counts = row["connections"]
    found = [row["name"], row["state"], local(row), target(row)]
    found += [str(counts["open"]), str(counts["total"]), str(counts["held"])]
    if wide:
        error = row["lastError"]
        found += [
            row["id"],
            _route(row),
            f"127.0.0.1:{row['publish']}" if row.get("publish") else "-",
            ", ".join(_endpoint(endpoint) for endpoint in row["endpoints"]) or "-",
            chosen(row) or "-",
            out.size(row["bytes"]["in"]),
            out.size(row["bytes"]["out"]),
            row["region"],
            row.get("owner") or "-",
            f"{out.clean(error['message'])} ({out.ago(error['time'])} ago)" if error else "-",
        ]
    return [*found, out.clean(row["reason"] or "-")]


def _route(row: Row) -> str:
    """Return the route of the next connection; on a node port Kubernetes chooses the task.

    Where others are published on this machine, a tunnel says why this one is not.
    """
    route, wanted = row["route"] or "-", row["routeWanted"]
    if route == "published" or (route == "direct" and any(one["byNode"] for one in row["endpoints"])):
        return f"{route} (kube-proxy balances)"
    if wanted not in ("auto", route):
        return f"{route} (only {wanted})"
    why = (
        one["route"].get("unpublished") for one in row["endpoints"] if (route, wanted) == ("tunnel", "auto")
    )
    found = next(filter(None, why), None)
    return f"{route} ({out.clean(found)})" if found else route


def _endpoint(endpoint: Row) -> str:
    route = endpoint["route"]
    where = f"{route.get('host') or route.get('pod')}:{route['port']}"
    state = " draining" if endpoint["draining"] else "" if endpoint["ready"] else " not ready"
    if endpoint.get("failing"):
        state = " failing its probe"
    by_node = "published" if route.get("published") else "node"
    whose = by_node if endpoint["byNode"] else endpoint["taskId"][:8]
    return f"{whose} {where}{state}"

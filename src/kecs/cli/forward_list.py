"""`kecs port-forward list`: the command that has to be fast, so it reads plain JSON and imports little."""

from __future__ import annotations

from typing import Any

from kecs import __version__
from kecs.cli import output as out
from kecs.cli.commands import command, pass_session, rows_option
from kecs.cli.session import Session
from kecs.client.agent import AgentClient, NotRunning, WentAway

Row = dict[str, Any]


@command("list")
@rows_option("wide", "json", "yaml")
@pass_session
def list_forwards(session: Session, output: str | None) -> None:
    """List the forwards: state and why, connections, and with `-o wide` endpoints, route and last error.

    On a stopped instance the list is empty, and nothing is started.
    """
    answer = ask(session)
    rows: list[Row] = answer["forwards"]
    for warning in answer.get("warnings", ()):
        session.warn(warning)
    if output in ("json", "yaml"):
        out.document(rows, output)
    elif rows:
        print_rows(rows, wide=output == "wide")
    elif "note" in answer:
        session.note(answer["note"])
    else:
        session.note("there is no port forward")


def ask(session: Session) -> Any:
    """Return the agent's answer to `forward.list`; of one of another version only after it was replaced."""
    with AgentClient(session.paths) as agent:
        try:
            hello, answer = agent.ask_all([("agent.hello", {}), ("forward.list", {})])
        except (NotRunning, WentAway):
            return ask_slowly(session)
        if hello.get("version") == __version__:
            return answer
        from kecs.client import launch

        launch.replace_other_version(agent, str(hello.get("version")), session.note)
    return ask_slowly(session)


def ask_slowly(session: Session) -> Any:
    """Answer without an agent at hand: bring it back when it crashed, and say why when it is not wanted."""
    from kecs.client import instance as instances
    from kecs.client import launch, lifetime

    paths = session.paths
    instance = instances.require(paths)
    if instance.desired == "stopped":
        note = f"the instance `{paths.name}` is stopped; start it by {session.command('start')}"
    elif instance.agent == "stopped":
        note = f"the agent is stopped; start it by {session.command('port-forward agent restart')}"
    elif lifetime.has_forwards(paths):
        with launch.connect_agent(paths, session.note) as agent:
            return agent.ask("forward.list")
    else:
        launch.ensure_controlplane(paths, session.note)
        return {"forwards": []}
    return {"forwards": [], "note": note}


def print_rows(rows: list[Row], *, wide: bool) -> None:
    """Print the table of forwards."""
    header = ["NAME", "STATE", "LOCAL", "TARGET", "OPEN", "TOTAL", "HELD", "REASON"]
    if wide:
        header[7:7] = ["ID", "ROUTE", "ENDPOINTS", "IN", "OUT", "REGION", "LAST ERROR"]
    out.table(header, [_cells(row, wide=wide) for row in rows])


def local(row: Row) -> str:
    """Return where the forward listens: `127.0.0.1:8080`."""
    return host_port(row["address"], row["localPort"])


def host_port(addresses: list[str], port: int) -> str:
    """Return an address to connect to: of several, one that is not ::1."""
    address = next((one for one in addresses if one != "::1"), addresses[0] if addresses else "127.0.0.1")
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def target(row: Row) -> str:
    """Return what the forward leads to: `prod/web:80`, or `prod/0123abcd:80` for a task."""
    what = row["service"] or (row["taskId"] or "*")[:8]
    return f"{row['cluster']}/{what}:{row['targetPort']}"


def _cells(row: Row, *, wide: bool) -> list[str]:
    counts = row["connections"]
    cells = [row["name"], row["state"], local(row), target(row)]
    cells += [str(counts["open"]), str(counts["total"]), str(counts["held"])]
    if wide:
        error = row["lastError"]
        cells += [
            row["id"],
            _route(row),
            ", ".join(_endpoint(endpoint) for endpoint in row["endpoints"]) or "-",
            out.size(row["bytes"]["in"]),
            out.size(row["bytes"]["out"]),
            row["region"],
            f"{out.clean(error['message'])} ({out.ago(error['time'])} ago)" if error else "-",
        ]
    return [*cells, out.clean(row["reason"] or "-")]


def _route(row: Row) -> str:
    """Return the route of the next connection; on a node port Kubernetes chooses the task."""
    route = row["route"] or "-"
    balanced = route == "direct" and any(endpoint["byNode"] for endpoint in row["endpoints"])
    forced = f" (only {row['routeWanted']})" if row["routeWanted"] not in ("auto", route) else ""
    return f"{route} (kube-proxy balances)" if balanced else route + forced


def _endpoint(endpoint: Row) -> str:
    route = endpoint["route"]
    where = f"{route.get('host') or route.get('pod')}:{route['port']}"
    state = " draining" if endpoint["draining"] else "" if endpoint["ready"] else " not ready"
    whose = "node" if endpoint["byNode"] else endpoint["taskId"][:8]
    return f"{whose} {where}{state}"

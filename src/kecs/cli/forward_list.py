"""`kecs port-forward list`: the command that has to be fast, so it reads plain JSON and imports little."""

from __future__ import annotations

from typing import Any

import click

from kecs import __version__
from kecs.cli import output as out
from kecs.cli.commands import command, pass_session, rows_option
from kecs.cli.forward_row import Row, cells, header
from kecs.cli.session import Session
from kecs.client.agent import AgentClient, NotRunning, WentAway


@command("list")
@click.option(
    "--watch", is_flag=True, help="Stay, and show changes as they come: a table on a terminal, else lines."
)
@rows_option("wide", "json", "yaml")
@pass_session
def list_forwards(session: Session, watch: bool, output: str | None) -> None:
    """List the forwards: state and why, connections, and with `-o wide` endpoints, route and last error.

    On a stopped instance the list is empty, and nothing is started. With `--watch -o json` each line is an
    object of `forwards` that are new or have changed and of ids that were `removed`; the first has them all.
    """
    if watch:
        from kecs.cli import forward_live

        forward_live.show(session, output)
        return
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
    out.table(header(wide=wide), [cells(row, wide=wide) for row in rows])

"""`kecs explain`."""

from __future__ import annotations

import click

from kecs.cli import output as out
from kecs.cli.commands import command, pass_session, rows_option
from kecs.cli.session import Session
from kecs.cli.targets import name_of


@command("explain")
@click.argument("kind", type=click.Choice(["service", "task"]), metavar="service|task")
@click.argument("name", metavar="[CLUSTER/]NAME")
@click.option("--region", metavar="REGION", help="Region to look in; default: the instance's.")
@rows_option("json", "yaml")
@pass_session
def explain(session: Session, kind: str, name: str, region: str | None, output: str | None) -> None:
    """Explain a service or a task: what is so, which settings have no effect here, and what helps.

    A task is named by its id, the first 8 or more digits of it, or its ARN.
    """
    cluster, short = name_of(name)
    from kecs.client import launch

    answer = launch.ensure_controlplane(session.paths, session.note).explain(kind, cluster, short, region)
    if output:
        import msgspec

        out.document(msgspec.to_builtins(answer), output)
        return
    out.line(answer.title)
    for heading, texts in (
        (None, answer.facts),
        ("Without effect here:", answer.without_effect),
        ("What you can do:", answer.advice),
    ):
        if texts and heading:
            out.line(f"\n{heading}")
        for text in texts:
            out.line(f"  {out.clean(text)}")

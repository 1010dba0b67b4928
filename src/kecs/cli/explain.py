"""`kecs explain`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from kecs.cli import complete
from kecs.cli import output as out
from kecs.cli.commands import command, pass_session, rows_option
from kecs.cli.session import Session
from kecs.cli.targets import name_of
from kecs.errors import ExitCode, KecsError

if TYPE_CHECKING:
    from kecs.client.admin_types import Explain, ExplainEvent

KINDS = ("service", "task", "forward")
EVENTS = 20


@command("explain")
@click.argument("kind", type=click.Choice(KINDS), metavar="service|task|forward")
@click.argument("name", metavar="[CLUSTER/]NAME", shell_complete=complete.explained)
@click.option("--region", metavar="REGION", help="Region to look in; default: the instance's.")
@click.option(
    "-n",
    "--events",
    type=click.IntRange(min=0),
    default=EVENTS,
    show_default=True,
    metavar="N",
    help="How much of what happened is told: the last N lines. `-o` prints all that is known.",
)
@rows_option("json", "yaml")
@pass_session
def explain(
    session: Session, kind: str, name: str, region: str | None, events: int, output: str | None
) -> None:
    """Explain a service, a task or a forward: why it serves or does not, what happened, what helps.

    A task is named by its id, the first 8 or more digits of it, or its ARN; a forward by its name or id.
    """
    answer = _answer(session, kind, name, region)
    if output:
        import msgspec

        out.document(msgspec.to_builtins(answer), output)
        return
    out.line(out.clean(answer.title))
    for heading, texts in (
        (None, answer.facts),
        ("What happened:", _timeline(answer.timeline, events)),
        ("Without effect here:", answer.without_effect),
        ("What you can do:", answer.advice),
    ):
        if texts and heading:
            out.line(f"\n{heading}")
        for text in texts:
            out.line(f"  {out.clean(text)}")


def _answer(session: Session, kind: str, name: str, region: str | None) -> Explain:
    if kind == "forward":
        if region is not None:
            raise KecsError(
                "`--region` is for services and tasks: a forward has its region",
                "leave `--region` out",
                ExitCode.USAGE,
            )
        from kecs.client import explain as client

        return client.explain_a_forward(session.paths, name, session.note)
    cluster, short = name_of(name)
    from kecs.client import explain as client

    return client.explain_target(session.paths, kind, cluster, short, region, session.note)


def _timeline(events: list[ExplainEvent], most: int) -> list[str]:
    """Return the newest lines of a timeline; the day is told where it is not today."""
    shown = events[-most:] if most else []
    left = len(events) - len(shown)
    width = max((len(event.source) for event in shown), default=0)
    lines = [f"{_moment(event.time)}  {event.source:<{width}}  {event.text}" for event in shown]
    return [f"({left} more before)", *lines] if left and shown else lines


def _moment(at: float) -> str:
    then, today = time.localtime(at), time.localtime()
    return time.strftime("%H:%M:%S" if then[:3] == today[:3] else "%Y-%m-%d %H:%M:%S", then)

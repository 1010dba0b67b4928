"""`kecs port-forward run`: make the forwards of a file be what the file says; with `--watch` go on doing so.

The agent decides what that takes (`forward.apply`); this reads the file, shows the plan and waits.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from kecs.cli import config_file, forward_changes, forward_plan, forward_publish, targets
from kecs.cli import forward_options as options
from kecs.cli.commands import pass_session, rows_option
from kecs.cli.session import Session
from kecs.errors import ExitCode, KecsError

if TYPE_CHECKING:
    from kecs.cli.forward_publish import Publishing
    from kecs.client.rpc_types import ApplyReply, ApplyRequest
    from kecs.forward.file import FileSpec


class Wish(NamedTuple):
    """What was typed."""

    config: str
    owner: Path
    dry_run: bool
    wait: float | None
    names: bool
    output: str | None
    yes: bool


@click.command("run", cls=options.WaitCommand)
@config_file.option
@click.option("--dry-run", is_flag=True, help="Print the plan, and change nothing.")
@click.option(
    "--wait",
    metavar="[SECONDS]",
    help=f"Return when all forwards are ACTIVE; without a number within {options.WAIT:g} s.",
)
@click.option(
    "--watch",
    is_flag=True,
    help="Stay, follow the file, and print what happens to its forwards; Ctrl-C leaves them.",
)
@click.option(
    "--names",
    is_flag=True,
    help="Let services answer by name too, as `names: true` in the file: "
    "`http://SERVICE.CLUSTER.localhost:PORT/`.",
)
@forward_publish.yes_option
@rows_option("json", "yaml")
@pass_session
def run(
    session: Session,
    config: str,
    dry_run: bool,
    wait: str | None,
    watch: bool,
    names: bool,
    yes: bool,
    output: str | None,
) -> None:
    """Start the forwards of a file; run again, change only what differs.

    What is done is printed: `+` start, `~` change, `=` keep, `-` stop what the file no longer names. Other
    forwards are left alone; a name or port that belongs to one of them is a conflict, before anything
    changes. What does not exist yet is waited for. Ports to publish are given to k3d's load balancer in one
    edit, which cuts that one's connections for a while: it says what and asks.
    """
    wish = Wish(
        config=config,
        owner=config_file.owner(config),
        dry_run=dry_run,
        wait=None if wait is None else targets.seconds(wait),
        names=names,
        output=output,
        yes=yes,
    )
    if watch and output:
        raise KecsError("`--watch` prints plans as they come", "leave out `-o`", ExitCode.USAGE)
    follower = config_file.Follower(wish.owner)
    spec = config_file.read(wish.owner, config)
    reply = apply(session, wish, spec)
    if not watch:
        _check(wish, reply)
        return
    watched(session, wish, follower, spec, reply)


def watched(
    session: Session, wish: Wish, follower: config_file.Follower, spec: FileSpec, reply: ApplyReply
) -> None:
    """Follow the file until Ctrl-C; `spec` is applied already, with `reply`."""
    from kecs.cli.forward_follow import Teller, follow

    teller = Teller(session, wish.owner)
    at_once = wish._replace(wait=None)  # the next edit may come while forwards wait

    def apply_again(spec: FileSpec) -> None:
        with teller.turn:
            teller.knows(apply(session, at_once, spec))

    teller.knows(reply)
    for text in _late(wish, reply):
        session.warn(text)
    session.note(f"following `{wish.config}`; Ctrl-C leaves the forwards as they are")
    if not wish.dry_run:
        teller.start()
    try:
        follow(session, wish.config, follower, spec, apply_again)
    finally:
        teller.leave()


def apply(session: Session, wish: Wish, spec: FileSpec) -> ApplyReply:
    """Have the agent make the forwards be what `spec` says, wait if that was wished, print the plan."""
    from kecs.client import instance, launch
    from kecs.client.rpc_types import ApplyRequest

    request = ApplyRequest(
        owner=str(wish.owner),
        forwards=list(spec.forwards),
        auto=spec.auto,
        names=spec.names or wish.names,
        dry_run=wish.dry_run,
    )
    publishing = _publishing(session, wish, request)
    reply = launch.ask_agent(session.paths, session.note, lambda agent: agent.apply(request))
    for warning in reply.warnings:
        session.warn(warning)
    if wish.wait is not None and not wish.dry_run:
        reply = wait_for_all(session, reply, wish.wait)
    failed = _publish(publishing) if publishing is not None and not wish.dry_run else None
    if wish.output:
        forward_plan.print_document(reply, wish.output)
    else:
        here = instance.require(session.paths).region if request.names else None
        forward_plan.print_lines(reply, here=here, dry_run=wish.dry_run)
    if wish.dry_run:
        session.note(f"{forward_plan.summary(reply)}; nothing was changed")
    elif not reply.steps:
        session.note("the file names no forward, and none was stopped")
    if publishing is not None and failed is None and not wish.dry_run:
        ports = {one.publish for one in spec.forwards if one.publish is not None}
        failed = publishing.prove(forward_publish.rows(session), ports)
    if failed is not None:
        raise failed
    return reply


def _publish(publishing: Publishing) -> KecsError | None:
    """Have the load balancer lead to the forwards of the file, which stay also when it cannot."""
    try:
        publishing.add()
    except KecsError as error:
        again = "the forwards are there; the same command publishes what is missing"
        return KecsError(error.message, error.hint_and(again), error.exit_code)
    publishing.say_late()
    return None


def _publishing(session: Session, wish: Wish, request: ApplyRequest) -> Publishing | None:
    """Ask for the edits that the file needs, when everything else is known to be right; take away what goes.

    None when neither the file nor what it started publishes anything.
    """
    import msgspec

    from kecs.client import launch, published

    instance = launch.require_running(session.paths)
    for one in request.forwards:
        published.check(one.publish, instance)
    if instance.k3d is None or not instance.k3d.load_balancer:
        return None
    mine = forward_publish.of_specs(request.forwards, instance.region)
    rows = [row for row in forward_publish.rows(session) if row.get("publish")]
    before = [row for row in rows if row["owner"] == request.owner]
    if not mine and not before:
        return None
    question = msgspec.structs.replace(request, dry_run=True)
    launch.ask_agent(session.paths, session.note, lambda agent: agent.apply(question))
    others = forward_publish.of_rows(row for row in rows if row["owner"] != request.owner)
    publishing = forward_publish.Publishing(session, instance, yes=wish.yes)
    if not wish.dry_run:
        publishing.balancer.mend()
    publishing.plan([*mine, *others], {row["publish"] for row in before})
    if wish.dry_run:
        publishing.show()
        return publishing
    publishing.ask()
    publishing.remove()
    return publishing


def wait_for_all(session: Session, reply: ApplyReply, seconds: float) -> ApplyReply:
    """Return the reply with the rows as they are when all serve, or have ended, or the time is over."""
    import msgspec

    from kecs.client.rpc_types import ForwardRow

    rows = {step.forward.id: step.forward for step in reply.steps if step.forward and step.sign != "-"}
    if _are_settled(rows):
        return reply
    for changed, _ in forward_changes.changes(session, time.monotonic() + seconds):
        rows |= {row["id"]: msgspec.convert(row, ForwardRow) for row in changed if row["id"] in rows}
        if _are_settled(rows):
            break
    steps = [
        msgspec.structs.replace(
            step, forward=rows.get(step.forward.id, step.forward) if step.forward else None
        )
        for step in reply.steps
    ]
    return msgspec.structs.replace(reply, steps=steps)


def _are_settled(rows: dict[str, Any]) -> bool:
    return all(row.state in ("ACTIVE", "ENDED") for row in rows.values())


def _check(wish: Wish, reply: ApplyReply) -> None:
    """Raise when one does not serve though that was waited for."""
    if not (late := _late(wish, reply)):
        return
    raise KecsError(
        "; ".join(late),
        "they stay and go on trying; `kecs port-forward list --watch` shows when they serve, "
        "`kecs explain forward NAME` why they do not",
    )


def _late(wish: Wish, reply: ApplyReply) -> list[str]:
    """Return a sentence for each forward that was waited for in vain."""
    if wish.wait is None or wish.dry_run:
        return []
    return [
        f"`{row.name}` is {row.state} after {wish.wait:g} s" + (f": {row.reason}" if row.reason else "")
        for step in reply.steps
        if step.sign != "-" and (row := step.forward) is not None and row.state != "ACTIVE"
    ]

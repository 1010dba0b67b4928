"""How the plan of a file is printed: a sign, the name, where it is reached or what changes, and why."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from kecs.cli import forward_row
from kecs.cli import output as out
from kecs.cli.session import paint

if TYPE_CHECKING:
    from kecs.client.rpc_types import ApplyReply

Step = dict[str, Any]
"""A `rpc_types.Step` as plain JSON."""

_COLOURS = {"+": "green", "~": "yellow", "=": "faint", "-": "red"}


def print_document(reply: ApplyReply, how: str) -> None:
    """Print the plan as `json` or `yaml`."""
    from kecs.client.rpc_types import to_json

    plain = to_json(reply)
    out.document({key: plain[key] for key in ("steps", "namesPort")}, how)


def print_lines(reply: ApplyReply, *, here: str | None, dry_run: bool) -> None:
    """Print the plan for people; with `here`, the region of the instance, names of services too."""
    from kecs.client.rpc_types import to_json

    plain = to_json(reply)
    by_name = None if here is None or reply.names_port is None else (here, reply.names_port)
    terminal = sys.stdout.isatty()
    width = max((len(step["name"]) for step in plain["steps"]), default=0)
    for step in plain["steps"]:
        sign = f"{step['sign']} {step['name'].ljust(width)}"
        out.line(f"{paint(sign, _COLOURS[step['sign']], terminal)}  {outcome(step, dry_run=dry_run)}")
        for change in step["changes"]:
            out.line(f"    {out.clean(change)}")
        there = is_there(step, dry_run=dry_run)
        if there and step["forward"]["publish"]:
            out.line(f"    {forward_row.published(step['forward'])}")
        if by_name and there and (url := forward_row.by_name(step["forward"], *by_name)):
            out.line(f"    {url}")
    if by_name:
        out.line(forward_row.names(by_name[1]))


def outcome(step: Step, *, dry_run: bool) -> str:
    """Return where the forward is reached and how it is; for what is only planned or gone, its target."""
    if not is_there(step, dry_run=dry_run):
        return out.clean(step["target"])
    row = step["forward"]
    return f"{forward_row.url(row)} -> {forward_row.target(row)}  {forward_row.state(row)}"


def is_there(step: Step, *, dry_run: bool) -> bool:
    """Tell whether the forward is as the step says: not gone, and not only planned."""
    planned = dry_run and step["sign"] != "="
    return step["forward"] is not None and step["sign"] != "-" and not planned


def summary(reply: ApplyReply) -> str:
    """Return `2 to start, 1 to change, 3 to keep, 0 to stop`."""
    signs: list[str] = [step.sign for step in reply.steps]
    words = {"+": "start", "~": "change", "=": "keep", "-": "stop"}
    return ", ".join(f"{signs.count(sign)} to {word}" for sign, word in words.items())

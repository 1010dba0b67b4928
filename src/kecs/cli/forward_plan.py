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


def show(reply: ApplyReply, *, here: str, output: str | None, dry_run: bool) -> None:
    """Print the plan, as lines or as one document; `here` is the region of the instance."""
    from kecs.client.rpc_types import to_json

    plain = to_json(reply)
    if output:
        out.document({key: plain[key] for key in ("steps", "namesPort")}, output)
        return
    terminal = sys.stdout.isatty()
    width = max((len(step["name"]) for step in plain["steps"]), default=0)
    for step in plain["steps"]:
        sign = f"{step['sign']} {step['name'].ljust(width)}"
        out.line(f"{paint(sign, _COLOURS[step['sign']], terminal)}  {outcome(step, dry_run=dry_run)}")
        for change in step["changes"]:
            out.line(f"    {out.clean(change)}")
        if url := _by_name(step, here, reply.names_port):
            out.line(f"    {url}")
    if reply.names_port is not None:
        out.line(forward_row.names(reply.names_port))


def outcome(step: Step, *, dry_run: bool) -> str:
    """Return where the forward is reached and how it is; for what is only planned or gone, its target."""
    row = step["forward"]
    planned = dry_run and step["sign"] != "="
    if row is None or planned or step["sign"] == "-":
        return out.clean(step["target"])
    return f"{forward_row.url(row)} -> {forward_row.target(row)}  {forward_row.state(row)}"


def summary(reply: ApplyReply) -> str:
    """Return `2 to start, 1 to change, 3 to keep, 0 to stop`."""
    signs = [step.sign for step in reply.steps]
    words = {"+": "start", "~": "change", "=": "keep", "-": "stop"}
    return ", ".join(f"{signs.count(sign)} to {word}" for sign, word in words.items())  # type: ignore[arg-type]


def _by_name(step: Step, here: str, port: int | None) -> str | None:
    row = step["forward"]
    if row is None or port is None or step["sign"] == "-":
        return None
    return forward_row.by_name(row, here, port)

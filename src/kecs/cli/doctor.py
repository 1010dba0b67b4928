"""`kecs doctor`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from kecs.cli import output as out
from kecs.cli.commands import command, pass_session, rows_option
from kecs.cli.session import Session, paint
from kecs.errors import ExitCode

if TYPE_CHECKING:
    from kecs.client.doctor.finding import Finding

COLOURS = {"ok": "green", "warning": "yellow", "error": "red", "not used": "faint"}


@command("doctor")
@rows_option("json", "yaml")
@pass_session
def doctor(session: Session, output: str | None) -> int:
    """Look over this machine and all instances: what is well, what is not, and what to do about it.

    It changes nothing and starts nothing. Exit code 0: it found no error (there may be warnings), 1: it did.
    """
    import msgspec

    from kecs.client.doctor.examination import examine
    from kecs.client.doctor.machine import this_machine

    found: list[Finding] = []
    for finding in examine(this_machine(session.settings)):
        found.append(finding)
        if not output:
            _print(finding)
    if output:
        out.document(msgspec.to_builtins(found), output)
    errors = sum(finding.level == "error" for finding in found)
    warnings = sum(finding.level == "warning" for finding in found)
    session.note(f"{errors} errors, {warnings} warnings")
    return ExitCode.FAILED if errors else ExitCode.DONE


def _print(finding: Finding) -> None:
    level = paint(f"{finding.level:<8}", COLOURS[finding.level], sys.stdout.isatty())
    out.line(f"{level}  {finding.check:<11}  {out.clean(finding.text)}")
    if finding.advice:
        out.line(f"{'':<23}{out.clean(finding.advice)}")

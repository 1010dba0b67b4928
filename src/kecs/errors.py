"""What a person sees when something goes wrong.

Every border of the program translates foreign errors into a `KecsError`; `kecs.cli.main` prints it
as `error: <message>`, a blank line, `hint: <hint>` on standard error and exits with `exit_code`.
"""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """Exit codes of every command (docs/design/contracts.md, section 6)."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    CONFLICT = 4
    UNREACHABLE = 5
    INTERRUPTED = 130


class KecsError(Exception):
    """An error a user can act on: what happened, to what (`message`), what to do next (`hint`)."""

    def __init__(self, message: str, hint: str | None = None, exit_code: ExitCode = ExitCode.FAILED) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.exit_code = exit_code

    def hint_and(self, more: str, joint: str = "; ") -> str:
        """Return the hint with `more` behind it, or `more` alone where there is none."""
        return f"{self.hint}{joint}{more}" if self.hint else more

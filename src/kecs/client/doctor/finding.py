"""What a check of `kecs doctor` found: a sentence, how bad it is, and what to do."""

from __future__ import annotations

from typing import Literal

import msgspec

Level = Literal["ok", "warning", "error", "not used"]
"""`warning`: KECS works, something beside it may not; `error`: something of KECS does not work; `not used`:
nothing of KECS needs it here, so it was not looked at any further."""


class Finding(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One thing that a check found."""

    check: str
    """Name of the check; one check may find several things."""
    level: Level
    text: str
    """What is so, one sentence."""
    advice: str | None = None
    """What to do about it, with the command."""


def ok(check: str, text: str) -> Finding:
    """Return that all is well."""
    return Finding(check=check, level="ok", text=text)


def warning(check: str, text: str, advice: str) -> Finding:
    """Return what may be trouble."""
    return Finding(check=check, level="warning", text=text, advice=advice)


def error(check: str, text: str, advice: str) -> Finding:
    """Return what is trouble."""
    return Finding(check=check, level="error", text=text, advice=advice)


def not_used(check: str, text: str) -> Finding:
    """Return that nothing needs it."""
    return Finding(check=check, level="not used", text=text)

"""What a program said, read as k3d's log, and without the secrets that are in it. Pure.

k3d logs in logfmt when `LOG_COLORS=false`: info on standard output, the rest on standard error. It may print
the cluster's token and keys: messages are redacted, and `Said` shows nothing raw in its `repr`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

_LINE = re.compile(r'^time="[^"]*" level=(?P<level>\w+) msg="(?P<text>(?:[^"\\]|\\.)*)"')
_SECRET = re.compile(
    r"""(?P<key>K3S_[A-Z_]*(?:TOKEN|SECRET)=|"?k3d\.cluster\.token"?\s*[:=]\s*"?"""
    r"""|--[a-z-]*token[=\ ]|Bearer\ |\bK10|\btoken"?\s*:\s*"?"""
    r"""|(?:certificate-authority|client-certificate|client-key)-data"?\s*:\s*"?)"""
    r"""(?P<value>[^\s",\]}\\]+)"""
)
_PEM = re.compile(r"-----BEGIN [A-Z ]+-----.*?(?:-----END [A-Z ]+-----|\Z)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line of k3d's own log, redacted."""

    level: str
    """`info`, `warning`, `error` or `fatal`."""
    text: str


@dataclass(frozen=True, slots=True)
class Said:
    """What a program said. `stdout` and `stderr` are raw: parse them, never show or log them."""

    code: int
    """Its exit code; -N when signal N ended it."""
    stdout: str = field(repr=False)
    stderr: str = field(repr=False)
    seconds: float
    messages: tuple[LogLine, ...]
    """What it logged, on both, redacted; those of one stream in order."""

    @property
    def answer(self) -> str:
        """What it printed besides its log, raw; k3d logs on the same stream as it answers."""
        return "".join(line for line in self.stdout.splitlines(True) if log_line(line) is None)

    @property
    def complaints(self) -> list[str]:
        """The texts of warnings and worse, in order."""
        return [line.text for line in self.messages if line.level != "info"]

    @property
    def words(self) -> str:
        """What it said last against it, redacted, for a person."""
        if said := [line.text for line in self.messages if line.level in ("error", "fatal")]:
            return said[-1]
        lines = [line for line in self.stderr.splitlines() if line.strip()]
        return redacted(lines[-1].strip()) if lines else f"exit code {self.code}"


def redacted(text: str) -> str:
    """Return `text` without the values of tokens, keys and certificates."""
    return _PEM.sub("(redacted)", _SECRET.sub(r"\g<key>(redacted)", text))


def log_line(line: str) -> LogLine | None:
    """Read one line of k3d's log (logfmt); None for anything else."""
    match = _LINE.match(line)
    if match is None:
        return None
    text = re.sub(r'\\(["\\])', r"\1", match["text"]).replace("\\n", " ").replace("\\r", "").strip()
    return LogLine(match["level"], redacted(text))

"""Run `k3d` or `docker` once, within a time limit, and hear what it said.

The only place that starts them. What k3d prints may contain the cluster's token and keys: `Said` shows
neither in its `repr`, and messages, notes and errors carry redacted lines only.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import re
import shlex
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import IO, Literal

from kecs.errors import ExitCode, KecsError
from kecs.k3d.tools import Tools

logger = logging.getLogger(__name__)
Note = Callable[[str], None]
GRACE = 2.0
"""Seconds between SIGTERM and SIGKILL for a program that has to end. k3d undoes nothing at either."""
LOOK = 0.1
"""Seconds within which it is noticed that a program is to end."""
_LINE = re.compile(r'^time="[^"]*" level=(?P<level>\w+) msg="(?P<text>(?:[^"\\]|\\.)*)"')
_SECRET = re.compile(
    r"""(?P<key>K3S_TOKEN=|K3S_CLUSTER_SECRET=|"?k3d\.cluster\.token"?\s*[:=]\s*"?|--token[=\ ]"""
    r"""|(?:certificate-authority|client-certificate|client-key)-data"?\s*:\s*"?|\btoken"?\s*:\s*"?)"""
    r"""(?P<value>[^\s",\]}\\]+)"""
)
_PEM = re.compile(r"-----BEGIN [A-Z ]+-----.*?(?:-----END [A-Z ]+-----|\Z)", re.DOTALL)


def quiet(_note: str) -> None:
    """Ignore a note."""


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


class TookTooLong(KecsError):  # noqa: N818 - it names what happened
    """A program was ended because its time limit had passed."""


class Ended(KecsError):  # noqa: N818 - it names the state
    """A program was ended, or not started, because `Tools.ended` was set."""


def redacted(text: str) -> str:
    """Return `text` without the values of tokens, keys and certificates."""
    return _PEM.sub("(redacted)", _SECRET.sub(r"\g<key>(redacted)", text))


def run(
    tools: Tools,
    words: Sequence[str],
    *,
    program: Literal["k3d", "docker"] = "k3d",
    limit: float,
    note: Note | None = None,
    keep: Collection[int] = (),
    stdin: IO[bytes] | None = None,
) -> Said:
    """Run the program with `words` and wait for its end; a failure is told by `Said.code`, not raised.

    `note` hears each info line of k3d as it comes, redacted. `keep` are descriptors that the program
    inherits: a lock it then holds for as long as it lives, even when this process is killed. The program has
    a folder of its own for temporary files, because k3d leaves one there at each start, and no kubeconfig,
    because `k3d cluster delete` would otherwise edit the user's. It reads `stdin`, or nothing. Raises
    `TookTooLong` (exit 5) after `limit` seconds, `Ended` (exit 5) once `tools.ended` is set, and `KecsError`
    (exit 5) when it cannot be started; on any exception it has been ended, its group included.
    """
    if tools.ended.is_set():
        raise _ended(program, words)
    path = tools.k3d if program == "k3d" else tools.docker
    begin = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="kecs-k3d-", ignore_cleanup_errors=True) as folder:
        environment = {**tools.environment, "TMPDIR": folder, "LOG_COLORS": "false"}
        if program == "k3d":
            environment["KUBECONFIG"] = os.path.join(folder, "none")  # noqa: PTH118 - a string is needed
        try:
            process = subprocess.Popen(
                [str(path), *words],
                env=environment,
                cwd="/",
                stdin=stdin if stdin is not None else subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                pass_fds=tuple(keep),
                # Ctrl-C at the terminal is ours to act upon: k3d would die half-way and undo nothing.
                start_new_session=True,
            )
        except OSError as error:
            raise KecsError(
                f"`{path}` cannot be run: {error.strerror or error}",
                f"see that `{path} version` works",
                ExitCode.UNREACHABLE,
            ) from error
        ears = _Ears(process, note)
        try:
            if not ears.wait(begin + limit, tools.ended):
                raise _ended(program, words)
        except subprocess.TimeoutExpired:
            last = ears.messages[-1].text if ears.messages else "nothing"
            raise TookTooLong(
                f"`{_shown(program, words)}` did not end within {limit:g} s and was ended;"
                f" the last it said: {last}",
                "see that `docker ps` answers quickly, then try again",
                ExitCode.UNREACHABLE,
            ) from None
        finally:
            ears.close()
    seconds = time.monotonic() - begin
    said = Said(process.returncode, ears.stdout, ears.stderr, seconds, tuple(ears.messages))
    logger.debug("%s: exit code %d after %.1f s", _shown(program, words), said.code, seconds)
    return said


class _Ears:
    """Hears both streams of a program on a thread each."""

    def __init__(self, process: subprocess.Popen[bytes], note: Note | None) -> None:
        self.messages: list[LogLine] = []
        self._process = process
        self._note = note or quiet
        self._heard: dict[str, list[str]] = {"stdout": [], "stderr": []}
        self._threads = [
            threading.Thread(target=self._hear, args=(name, stream), name=f"k3d {name}", daemon=True)
            for name, stream in (("stdout", process.stdout), ("stderr", process.stderr))
        ]
        for thread in self._threads:
            thread.start()

    @property
    def stdout(self) -> str:
        return "".join(self._heard["stdout"])

    @property
    def stderr(self) -> str:
        return "".join(self._heard["stderr"])

    def wait(self, end: float, ended: threading.Event) -> bool:
        """Wait until the program has ended; False when `ended` is set before.

        Raises `subprocess.TimeoutExpired` at `end`.
        """
        while not ended.is_set():
            left = max(0.0, end - time.monotonic())
            try:
                self._process.wait(min(left, LOOK))
            except subprocess.TimeoutExpired:
                if left <= LOOK:
                    raise
            else:
                return True
        return self._process.poll() is not None

    def close(self) -> None:
        """End the program and what it started, if it still runs, and hear the rest."""
        if self._process.poll() is None:
            self._signal(signal.SIGTERM)
            try:
                self._process.wait(GRACE)
            except subprocess.TimeoutExpired:
                self._signal(signal.SIGKILL)
                self._process.wait()
            self._signal(signal.SIGKILL)  # a child of it that did not end with it
        for thread in self._threads:
            thread.join(GRACE)

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)

    def _hear(self, name: str, stream: IO[bytes]) -> None:
        with stream:
            for raw in stream:
                line = raw.decode(errors="replace")
                self._heard[name].append(line)
                if message := log_line(line):
                    self.messages.append(message)
                    if message.level == "info":
                        self._note(message.text)


def log_line(line: str) -> LogLine | None:
    """Read one line of k3d's log (logfmt); None for anything else."""
    match = _LINE.match(line)
    if match is None:
        return None
    text = re.sub(r'\\(["\\])', r"\1", match["text"]).replace("\\n", " ").replace("\\r", "").strip()
    return LogLine(match["level"], redacted(text))


def _ended(program: str, words: Sequence[str]) -> Ended:
    return Ended(
        f"`{_shown(program, words)}` was ended: KECS stops", "try again once it runs", ExitCode.UNREACHABLE
    )


def _shown(program: str, words: Sequence[str]) -> str:
    """Return the command up to its first option: options are many, and may hold what nobody may see."""
    named = list(itertools.takewhile(lambda word: not word.startswith("-"), words))
    return redacted(shlex.join([program, *named])) + (" …" if len(named) < len(words) else "")

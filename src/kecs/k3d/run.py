"""Run `k3d` or `docker` once, within a time limit, and hear what it said.

The only place that starts them. Notes and errors carry redacted lines only (`said`).
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import shlex
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import IO, Literal

from kecs.errors import ExitCode, KecsError
from kecs.k3d.said import LogLine, Said, log_line, redacted
from kecs.k3d.scratch import scratch
from kecs.k3d.tools import Tools

__all__ = ["Ended", "LogLine", "Note", "Said", "TookTooLong", "log_line", "quiet", "redacted", "run"]

logger = logging.getLogger(__name__)
Note = Callable[[str], None]
GRACE = 2.0
"""Seconds between SIGTERM and SIGKILL for a program that has to end. k3d undoes nothing at either."""
LOOK = 0.1
"""Seconds within which it is noticed that a program is to end."""


def quiet(_note: str) -> None:
    """Ignore a note."""


class TookTooLong(KecsError):  # noqa: N818 - it names what happened
    """A program was ended because its time limit had passed."""


class Ended(KecsError):  # noqa: N818 - it names the state
    """A program was ended, or not started, because `Tools.ended` was set."""


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
    begin = time.monotonic()
    with contextlib.ExitStack() as stack:
        folder, lock = stack.enter_context(scratch())
        # Files without a name, not pipes: when this process is killed, k3d writes on and comes to its end; a
        # pipe that nobody reads would kill it half-way, too.
        stdout, stderr = (stack.enter_context(tempfile.TemporaryFile()) for _ in range(2))
        ears = _Ears(stdout, stderr, note or quiet)
        environment = {**tools.environment, "TMPDIR": folder, "LOG_COLORS": "false"}
        if program == "k3d":
            environment["KUBECONFIG"] = os.path.join(folder, "none")  # noqa: PTH118 - a string is needed
        path = str(tools.k3d if program == "k3d" else tools.docker)
        process: subprocess.Popen[bytes] | None = None
        try:
            with _interrupted_later():
                process = _start([path, *words], environment, ears, stdin, (*keep, lock))
            has_ended = _wait(process, begin + limit, tools.ended, ears)
        finally:
            if process is not None:
                _end(process)
        if not has_ended and tools.ended.is_set():
            raise _ended(program, words)
        if not has_ended:
            last = ears.messages[-1].text if ears.messages else "nothing"
            raise TookTooLong(
                f"`{_shown(program, words)}` did not end within {limit:g} s and was ended;"
                f" the last it said: {last}",
                "see that `docker ps` answers quickly, then try again",
                ExitCode.UNREACHABLE,
            )
        said = ears.said(process.returncode, time.monotonic() - begin)
    logger.debug("%s: exit code %d after %.1f s", _shown(program, words), said.code, said.seconds)
    return said


@contextlib.contextmanager
def _interrupted_later() -> Iterator[None]:
    """Hear Ctrl-C at the end of the block: within `Popen` it would leave a program that nobody knows of."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    heard: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: heard.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if heard:
        signal.raise_signal(signal.SIGINT)


def _start(
    command: list[str],
    environment: Mapping[str, str],
    ears: _Ears,
    stdin: IO[bytes] | None,
    keep: Collection[int],
) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            command,
            env=environment,
            cwd="/",
            stdin=stdin if stdin is not None else subprocess.DEVNULL,
            stdout=ears.stdout,
            stderr=ears.stderr,
            pass_fds=tuple(keep),
            # Ctrl-C at the terminal is ours to act upon: k3d would die half-way and undo nothing.
            start_new_session=True,
        )
    except OSError as error:
        raise KecsError(
            f"`{command[0]}` cannot be run: {error.strerror or error}",
            f"see that `{command[0]} version` works",
            ExitCode.UNREACHABLE,
        ) from error


def _wait(process: subprocess.Popen[bytes], end: float, ended: threading.Event, ears: _Ears) -> bool:
    """Wait until the program has ended, hearing it; False when it is `end`, or `ended` is set, before."""
    while process.poll() is None and not ended.is_set() and (left := end - time.monotonic()) > 0:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(min(left, LOOK))
        ears.hear()
    return process.poll() is not None


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the program and what it started, if it still runs."""
    if process.poll() is not None:
        return
    _signal(process, signal.SIGTERM)
    try:
        process.wait(GRACE)
    except subprocess.TimeoutExpired:
        _signal(process, signal.SIGKILL)
        process.wait()
    _signal(process, signal.SIGKILL)  # a child of it that did not end with it


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


class _Ears:
    """Reads what a program writes into two files, as it grows."""

    def __init__(self, stdout: IO[bytes], stderr: IO[bytes], note: Note) -> None:
        self.stdout = stdout
        self.stderr = stderr
        self.messages: list[LogLine] = []
        self._note = note
        self._heard = {stdout: b"", stderr: b""}
        self._read = {stdout: 0, stderr: 0}

    def hear(self, *, last: bool = False) -> None:
        """Read what is new; a line that is not whole yet is left, unless it is the last."""
        for file in self._heard:
            # The program shares the file's position, so it is read from elsewhere without moving it.
            while data := os.pread(file.fileno(), 1 << 20, len(self._heard[file])):
                self._heard[file] += data
            new = self._heard[file][self._read[file] :]
            whole = len(new) if last else new.rfind(b"\n") + 1
            self._read[file] += whole
            for line in new[:whole].decode(errors="replace").splitlines():
                if message := log_line(line):
                    self.messages.append(message)
                    if message.level == "info":
                        self._note(message.text)

    def said(self, code: int, seconds: float) -> Said:
        """Return all that it said, now that it has ended."""
        self.hear(last=True)
        stdout, stderr = (self._heard[file].decode(errors="replace") for file in (self.stdout, self.stderr))
        return Said(code, stdout, stderr, seconds, tuple(self.messages))


def _ended(program: str, words: Sequence[str]) -> Ended:
    return Ended(
        f"`{_shown(program, words)}` was ended: KECS stops", "try again once it runs", ExitCode.UNREACHABLE
    )


def _shown(program: str, words: Sequence[str]) -> str:
    """Return the command up to its first option: options are many, and may hold what nobody may see."""
    named = list(itertools.takewhile(lambda word: not word.startswith("-"), words))
    return redacted(shlex.join([program, *named])) + (" …" if len(named) < len(words) else "")

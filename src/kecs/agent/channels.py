"""How an event reaches a program: a command of the person's, a webhook. One function each.

`kecs.agent.notifier` calls them (the desktop is `kecs.agent.desktop`'s). Each has its time limit, raises
nothing, and returns what went wrong; what a command says is returned too, for the log.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
import signal
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import IO, TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

import msgspec

from kecs.agent.notify import Event

if TYPE_CHECKING:
    import httpx2

COMMAND = 10.0
"""Seconds for a command; then it is killed, with all that it has started."""
WEBHOOK = 5.0
"""Seconds for one try of a webhook."""
TRIES = (0.0, 1.0, 5.0)
"""Seconds before each try: just after a machine woke up, its network is not there yet."""
SAID = 4096
"""Bytes of a command's output that are kept."""


class Outcome(NamedTuple):
    """What became of it."""

    error: str | None
    """None: it was delivered."""
    said: str = ""
    """The beginning of a command's output."""


async def command(argv: Sequence[str], event: Event, folder: Path) -> Outcome:
    """Run a program in `folder` with the event on its standard input, as one line of JSON."""
    return await run(argv, msgspec.json.encode(event) + b"\n", folder)


async def webhook(url: str, event: Event) -> Outcome:
    """Post the event; any answer below 300 is a success."""
    error: str | None = None
    for pause in TRIES:
        await asyncio.sleep(pause)
        error = await _post(url, msgspec.json.encode(event))
        if error is None:
            break
    return Outcome(error)


async def _post(url: str, body: bytes) -> str | None:
    # The library and its certificates take a third of a second to load: the agent's loop goes on meanwhile.
    httpx2, client = await asyncio.to_thread(_client, url)
    try:
        async with asyncio.timeout(WEBHOOK), client:
            answer = await client.post(url, content=body, headers={"Content-Type": "application/json"})
    except TimeoutError:
        return f"it did not answer within {WEBHOOK:g} s"
    except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
        return str(error) or type(error).__name__
    return None if answer.status_code < 300 else f"it answered {answer.status_code}"


def _client(url: str) -> tuple[ModuleType, httpx2.AsyncClient]:
    import httpx2

    return httpx2, httpx2.AsyncClient(trust_env=not _is_here(url), timeout=None)


def _is_here(url: str) -> bool:
    """Tell whether it is this machine, which no proxy of the environment leads to."""
    try:
        host = urlsplit(url).hostname or ""
    except ValueError:  # `http://[x`: the client refuses it in words
        return False
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost" or host.endswith(".localhost")


async def run(argv: Sequence[str], stdin: bytes, folder: Path) -> Outcome:
    """Run it to its end.

    Files stand for pipes: neither who does not read nor who inherited them can stop us.
    """
    with tempfile.TemporaryFile() as said:
        try:
            with tempfile.TemporaryFile() as given:
                given.write(stdin)
                given.seek(0)
                process = await asyncio.create_subprocess_exec(
                    *argv, stdin=given, stdout=said, stderr=said, cwd=folder, start_new_session=True
                )
        except (OSError, ValueError) as error:
            return Outcome(f"`{argv[0]}` cannot be started: {getattr(error, 'strerror', None) or error}")
        try:
            async with asyncio.timeout(COMMAND):
                code = await process.wait()
        except TimeoutError:
            return Outcome(f"it took longer than {COMMAND:g} s", _beginning(said))
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                await process.wait()
        return Outcome(f"it ended with {code}" if code else None, _beginning(said))


def _beginning(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read(SAID).decode(errors="replace").strip()

"""Published ports as Docker has them: a program that accepts on 127.0.0.1 and then looks who is behind.

Used by `test_published`, which starts it with `Publisher`; `python -m tests.cluster.docker_proxy FIRST-LAST
HOST` is the program. It does what docker-proxy does (moby's cmd/docker-proxy): a connection is accepted
first, then the target is dialled, and when that fails the connection ends without a word. Half-close is
passed on.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path

from tests.process.harness import until

NODE_PORTS = range(30000, 32768)
PIECE = 1 << 16
_taken: set[asyncio.Task[object]] = set()
ROOT = Path(__file__).parents[2]


class Publisher:
    """The program, which publishes `ports` of `host` on this machine until it is killed."""

    def __init__(self, ports: range, host: str) -> None:
        self._ports, self._host = ports, host
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        """Start it, and wait until it listens."""
        block = f"{self._ports[0]}-{self._ports[-1]}"
        command = [sys.executable, "-m", "tests.cluster.docker_proxy", block, self._host]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT)
        assert self._process.stdout is not None
        if self._process.stdout.readline() != b"listening\n":
            self.kill()
            raise AssertionError(f"{block} cannot be published")

    def kill(self) -> None:
        """End it, with all its connections; again is no error."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


async def main(block: str, host: str) -> None:
    """Publish these ports of `host`, for ever."""
    os.nice(-15)  # docker-proxy answers at once; this costs many times what that does, and must too
    first, _, last = block.partition("-")
    for port in range(int(first), int(last) + 1):
        await asyncio.start_server(partial(take, host=host, port=port), "127.0.0.1", port, backlog=512)
    print("listening", flush=True)
    await asyncio.Event().wait()


async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, host: str, port: int) -> None:
    """Serve a connection that was accepted."""
    task = asyncio.current_task()
    assert task is not None
    _taken.add(task)  # asyncio itself keeps only a weak reference
    task.add_done_callback(_taken.discard)
    there: asyncio.StreamWriter | None = None
    try:
        back, there = await asyncio.open_connection(host, port)
        await asyncio.gather(copy(reader, there), copy(back, writer))
    except OSError:
        pass
    finally:
        for end in (writer, there):
            if end is not None:
                end.close()


async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Pass on what comes, and the end of it."""
    with contextlib.suppress(OSError):
        while part := await reader.read(PIECE):
            writer.write(part)
            await writer.drain()
        writer.write_eof()


def free_block(size: int) -> range:
    """Return `size` node ports in a row that nobody has on this machine."""

    def is_free(port: int) -> bool:
        with socket.socket() as sock, contextlib.suppress(OSError):
            sock.bind(("127.0.0.1", port))
            return True
        return False

    def choose() -> range | None:
        first = random.randrange(NODE_PORTS.start, NODE_PORTS.stop - size)
        return range(first, first + size) if all(map(is_free, range(first, first + size))) else None

    return until(choose, "free ports")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))

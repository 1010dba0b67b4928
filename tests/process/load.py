"""Requests at a fixed rate, counted honestly: what failed, what was sent once more, how long it took."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from dataclasses import dataclass, field


@dataclass
class Tally:
    """What came of the requests."""

    total: int = 0
    failed: list[str] = field(default_factory=list)
    spans: list[tuple[float, float]] = field(default_factory=list)
    """When each failed request began and ended (monotonic seconds), in the order of `failed`."""
    again: list[str] = field(default_factory=list)
    """Sent once more because a *reused* connection ended before the first byte (RFC 9110, 9.2.2): for each
    such connection, the last answer that had come by it."""
    seconds: list[float] = field(default_factory=list)
    answers: dict[str, int] = field(default_factory=dict)

    def failed_outside(self, *excused: tuple[float, float]) -> list[str]:
        """Return the failures of requests that were not under way in any of these spans of time."""
        return [
            f"{why} (from {began:.3f} to {ended:.3f})"
            for (began, ended), why in zip(self.spans, self.failed, strict=True)
            if not any(began <= to and ended >= since for since, to in excused)
        ]


class Load:
    """A thread that requests `port` at `rate` a second until it is stopped, and keeps idle connections.

    With `keep_alive` connections are reused. A request takes part in the tally when it has ended.
    """

    def __init__(self, port: int, *, rate: float = 200, keep_alive: bool = False, idle: int = 0) -> None:
        self.port, self.rate, self.keep_alive, self.idle_wanted = port, rate, keep_alive, idle
        self.tally = Tally()
        self.idle_opened = 0
        self.idle_open = 0
        self.late = 0.0
        """By how many seconds it was behind its own rate, at most: what it measured then says little."""
        self._stop = threading.Event()
        self._pool: list[tuple[asyncio.StreamReader, asyncio.StreamWriter, str]] = []
        """Connections to be used again, each with the last answer that came by it."""
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    async def _run(self) -> None:
        idle = [asyncio.get_running_loop().create_task(self._idle()) for _ in range(self.idle_wanted)]
        requests: set[asyncio.Task[None]] = set()
        began, sent = time.monotonic(), 0
        while not self._stop.is_set():
            due = int((time.monotonic() - began) * self.rate)
            self.late = max(self.late, (due - sent) / self.rate)
            while sent < due:
                task = asyncio.get_running_loop().create_task(self._request())
                requests.add(task)
                task.add_done_callback(requests.discard)
                sent += 1
            await asyncio.sleep(1 / self.rate)
        if requests:
            await asyncio.wait(requests, timeout=35)
        for task in idle:
            task.cancel()
        await asyncio.gather(*idle, return_exceptions=True)
        for _, writer, _ in self._pool:
            writer.close()

    async def _idle(self) -> None:
        """Hold one connection open without a word; open it again when it is closed."""
        while True:
            writer = None
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
                self.idle_opened += 1
                self.idle_open += 1
                try:
                    await reader.read(1)
                finally:
                    self.idle_open -= 1
            except OSError:
                await asyncio.sleep(0.05)
            finally:
                if writer is not None:
                    writer.close()

    async def _request(self) -> None:
        began = time.monotonic()
        try:
            body = await asyncio.wait_for(self._get(), 40)
            self.tally.answers[body] = self.tally.answers.get(body, 0) + 1
        except (OSError, EOFError, ValueError, TimeoutError) as error:
            self.tally.failed.append(f"{type(error).__name__}: {error}")
            self.tally.spans.append((began, time.monotonic()))
        self.tally.total += 1
        self.tally.seconds.append(time.monotonic() - began)

    async def _get(self) -> str:
        if self.keep_alive and self._pool:
            reader, writer, answer = self._pool.pop()
            try:
                first = await self._send(reader, writer)
            except OSError:
                first = b""
            if first:
                return await self._receive(first, reader, writer)
            writer.close()
            self.tally.again.append(answer)
        reader, writer = await self._open()
        try:
            return await self._receive(await reader.readline(), reader, writer)
        except BaseException:
            writer.close()
            raise

    @property
    def _said(self) -> bytes:
        connection = "keep-alive" if self.keep_alive else "close"
        return f"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: {connection}\r\n\r\n".encode()

    async def _open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect and send the request in one breath.

        A server that stops closes connections on which nobody has spoken for a while (Go's after 5 s), and
        between two turns of this loop on a busy computer there can be as much.
        """
        sock = socket.socket()
        try:
            sock.setblocking(False)
            await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", self.port))
            sock.send(self._said)
            return await asyncio.open_connection(sock=sock)
        except BaseException:
            sock.close()
            raise

    async def _send(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        writer.write(self._said)
        return await reader.readline()

    async def _receive(self, first: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str:
        if not first.startswith(b"HTTP/1.1 200"):
            raise ValueError(f"answered {first!r}")
        length, close = 0, False
        while (line := await reader.readline()) != b"\r\n":
            if not line:
                raise EOFError("ended in the headers")
            name, _, value = line.decode().partition(":")
            if name.lower() == "content-length":
                length = int(value)
            close = close or (name.lower() == "connection" and value.strip() == "close")
        body = (await reader.readexactly(length)).decode()
        if self.keep_alive and not close:
            self._pool.append((reader, writer, body))
        else:
            with contextlib.suppress(OSError):
                writer.close()
        return body

"""A web server for tests: keep-alive, and on SIGTERM it finishes what it has in hand, then ends.

GET /            who answers: `<VERSION> <task id>`
GET /slow        the same, after 0.3 s
GET /big         64 MiB in one response
GET /cut         announces 64 MiB, sends 1 MiB, then resets the connection
POST /count      reads to the client's FIN and answers the number of bytes (half-close)
Environment: PORT, VERSION, FAIL=exit (ends at once), UNHEALTHY=1 (see `healthy.sh`).
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import struct
import sys

WHO = f"{os.environ.get('VERSION', '?')} {os.environ.get('KECS_TASK_ARN', '').rpartition('/')[2]}"
BIG = 64 * 1024 * 1024


class Web:
    def __init__(self) -> None:
        self.idle: set[asyncio.StreamWriter] = set()
        self.busy = 0
        self.stopping = asyncio.Event()
        self.quiet = asyncio.Event()
        self.quiet.set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                self.idle.add(writer)
                try:
                    line = await reader.readline()
                finally:
                    self.idle.discard(writer)
                if not line:
                    return
                self.busy += 1
                self.quiet.clear()
                try:
                    go_on = await self.answer(line.split(), reader, writer)
                finally:
                    self.busy -= 1
                    if not self.busy:
                        self.quiet.set()
                if not go_on or self.stopping.is_set():
                    return
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def answer(self, request, reader, writer) -> bool:
        headers = {}
        while (line := await reader.readline()) not in (b"\r\n", b""):
            name, _, value = line.decode().partition(":")
            headers[name.strip().lower()] = value.strip()
        path = request[1].decode()
        keep = headers.get("connection", "").lower() != "close" and not self.stopping.is_set()
        if path == "/count":
            size = 0
            while data := await reader.read(65536):
                size += len(data)
            self.head(writer, len(str(size)), keep=False)
            writer.write(str(size).encode())
            await writer.drain()
            return False
        if path == "/big":
            self.head(writer, BIG, keep=keep)
            for _ in range(BIG // 65536):
                writer.write(b"x" * 65536)
                await writer.drain()
            return keep
        if path == "/cut":
            self.head(writer, BIG, keep=False)
            writer.write(b"x" * 1024 * 1024)
            await writer.drain()
            sock = writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return False
        if path == "/slow":
            await asyncio.sleep(0.3)
        keep = keep and not self.stopping.is_set()
        self.head(writer, len(WHO), keep=keep)
        writer.write(WHO.encode())
        await writer.drain()
        return keep

    def head(self, writer, length: int, *, keep: bool) -> None:
        connection = "keep-alive" if keep else "close"
        writer.write(
            f"HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: {connection}\r\n\r\n".encode()
        )


async def main() -> None:
    web = Web()
    host = os.environ.get("BIND", "127.0.0.1")
    server = await asyncio.start_server(web.serve, host, int(os.environ["PORT"]), backlog=1024)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, web.stopping.set)
    print("listening", os.environ["PORT"], flush=True)
    await web.stopping.wait()
    server.close()
    for writer in list(web.idle):
        writer.close()
    await web.quiet.wait()
    await asyncio.sleep(0.05)
    print("ended", flush=True)


if __name__ == "__main__":
    if os.environ.get("FAIL") == "exit":
        sys.exit(3)
    asyncio.run(main())

"""The far end of a port-forward connection, as an API server shows the kubelet's and containerd's.

SPDY/3.1 frames, plain or in WebSocket messages, on asyncio streams. Streams are served as containerd serves
them: a dial per connection, and 1 s after one side ended both are closed; a failure is text on the error
stream and a reset of both.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct

from wsproto.frame_protocol import CloseReason, FrameProtocol, Opcode

from kecs.wire import spdy_headers

SYN_STREAM, SYN_REPLY, RST_STREAM, PING, GOAWAY = 1, 2, 3, 6, 7
FIN = 1
CANCEL = 5
LINGER = 1.0
"""Seconds between the end of one side and the end of both (containerd, sandbox_portforward_linux.go)."""


class FarEnd:
    """Serves one connection until it ends. Tests reach it through `ScriptedApi.tunnels`."""

    def __init__(self, reader, writer, api, namespace, pod, framing):
        self.namespace = namespace
        self.pod = pod
        self.framing = framing
        self.pings = 0
        self.opened = 0
        """Pairs of streams so far."""
        self.answers_pings = True
        self._reader = reader
        self._writer = writer
        self._api = api
        self._messages = FrameProtocol(client=False, extensions=[]) if framing == "websocket" else None
        self._unread = bytearray()
        self._inflater = spdy_headers.Inflater()
        self._deflater = spdy_headers.Deflater()
        self._streams = {}
        """Stream id -> its queue of bytes (data streams), or None (error streams)."""
        self._waiting = {}
        """Request id -> the first stream of its pair."""
        self._partner = {}
        self._tasks = set()

    async def serve(self):
        try:
            while True:
                first, second = struct.unpack("!II", await self._exactly(8))
                flags, body = second >> 24, await self._exactly(second & 0xFFFFFF)
                if first & 0x80000000:
                    await self._control(first & 0xFFFF, flags, body)
                else:
                    self._data(first, flags, body)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def goaway(self):
        """Take no more streams; those that are open go on."""
        self._control_frame(GOAWAY, 0, struct.pack("!II", max(self._streams, default=0), 0))

    async def _exactly(self, count):
        while len(self._unread) < count:
            chunk = await self._reader.read(65536)
            if not chunk:
                raise asyncio.IncompleteReadError(bytes(self._unread), count)
            if self._messages is None:
                self._unread += chunk
                continue
            self._messages.receive_bytes(chunk)
            for frame in self._messages.received_frames():
                if frame.opcode is Opcode.BINARY:
                    self._unread += frame.payload
                elif frame.opcode is Opcode.PING:
                    self._writer.write(bytes(self._messages.pong(frame.payload)))
                elif frame.opcode is Opcode.CLOSE:
                    self._writer.write(bytes(self._messages.close(CloseReason.NORMAL_CLOSURE)))
                    raise asyncio.IncompleteReadError(b"", count)
        data = bytes(self._unread[:count])
        del self._unread[:count]
        return data

    async def _control(self, kind, flags, body):
        if kind == SYN_STREAM:
            (stream,) = struct.unpack_from("!I", body)
            headers = spdy_headers.fields_of(self._inflater.inflate(body[10:]))
            reply = self._deflater.deflate(spdy_headers.block())
            self._control_frame(SYN_REPLY, 0, struct.pack("!I", stream) + reply)
            self._pair(stream, headers)
            if flags & FIN:
                self._data(stream, FIN, b"")
        elif kind == PING:
            self.pings += 1
            if self.answers_pings:
                self._control_frame(PING, 0, body)
        elif kind == RST_STREAM:
            (stream,) = struct.unpack_from("!I", body)
            if (queue := self._streams.pop(stream, None)) is not None:
                queue.put_nowait(None)
        await self._writer.drain()

    def _pair(self, stream, headers):
        data = headers["streamtype"] == "data"
        self._streams[stream] = asyncio.Queue() if data else None
        other = self._waiting.pop(headers["requestid"], None)
        if other is None:
            self._waiting[headers["requestid"]] = stream
            return
        self.opened += 1
        first, second = (stream, other) if data else (other, stream)
        task = asyncio.get_running_loop().create_task(self._forward(int(headers["port"]), first, second))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _data(self, stream, flags, body):
        queue = self._streams.get(stream)
        if queue is None:
            return
        if body:
            queue.put_nowait(body)
        if flags & FIN:
            queue.put_nowait(b"")

    async def _forward(self, port, data, error):
        """Serve one connection to `port`."""
        target = self._api.backends.get(port, "refuse")
        try:
            if target == "echo":
                await self._echo(data)
            elif target == "refuse":
                raise ConnectionRefusedError(f"dial tcp4 127.0.0.1:{port}: connect: connection refused")
            else:
                await self._relay(data, *target)
        except OSError as failure:
            text = (
                f"error forwarding port {port} to pod 0123456789abcdef, uid : "
                f"failed to execute portforward in network namespace: {_wording(failure)}"
            )
            self._data_frame(error, 0, text.encode())
            for stream in (data, error):
                self._control_frame(RST_STREAM, 0, struct.pack("!II", stream, CANCEL))
        else:
            self._data_frame(data, FIN, b"")
            self._data_frame(error, FIN, b"")
        self._streams.pop(data, None)
        self._streams.pop(error, None)

    async def _echo(self, data):
        queue = self._streams[data]
        while chunk := await queue.get():
            self._data_frame(data, 0, chunk)
            await self._writer.drain()

    async def _relay(self, data, host, port):
        """Copy both ways between a stream and a real connection; close both `LINGER` after one ended."""
        queue = self._streams[data]
        reader, writer = await asyncio.open_connection(host, port)

        async def up():
            while chunk := await queue.get():
                writer.write(chunk)
                await writer.drain()

        async def down():
            while chunk := await reader.read(16384):
                self._data_frame(data, 0, chunk)
                await self._writer.drain()

        copies = [asyncio.get_running_loop().create_task(each()) for each in (up, down)]
        try:
            done, left = await asyncio.wait(copies, return_when=asyncio.FIRST_COMPLETED)
            if left:
                more, left = await asyncio.wait(left, timeout=self._api.linger)
                done |= more
            for one in done:
                one.result()
        finally:
            writer.close()  # before anything is waited for: what cancelled this may do so again
            for one in copies:
                one.cancel()
            await asyncio.gather(*copies, return_exceptions=True)
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    def _control_frame(self, kind, flags, body):
        self._write(struct.pack("!HHI", 0x8003, kind, flags << 24 | len(body)) + body)

    def _data_frame(self, stream, flags, body):
        self._write(struct.pack("!II", stream, flags << 24 | len(body)) + body)

    def _write(self, frame):
        if self._writer.is_closing():
            return
        if self._messages is not None:
            frame = bytes(self._messages.send_data(bytearray(frame), fin=True))
        self._writer.write(frame)


def _wording(failure):
    """Go's words for an error of a socket."""
    if isinstance(failure, ConnectionResetError):
        return "read tcp4 127.0.0.1: read: connection reset by peer"
    if isinstance(failure, BrokenPipeError):
        return "write tcp4 127.0.0.1: write: broken pipe"
    return str(failure)

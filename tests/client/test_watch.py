"""The asyncio client of the endpoints, against a control plane that stalls, breaks off and lies."""

from __future__ import annotations

import asyncio
import shutil
from contextlib import aclosing

import msgspec
import pytest
from tests.agent.shapes import A, make_instance, port, service, short_home, snapshot, task

from kecs.client import watch
from kecs.client.watch import ControlPlaneLost
from kecs.errors import ExitCode, KecsError

LINE = snapshot(3, service(task(A, port(80, 29001))))
JSON = msgspec.json.encode(LINE) + b"\n"
PING = b'{"type":"ping","version":3}\n'
END = "end"
HANG = "hang"
ABORT = "abort"


def chunk(data):
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


STREAM = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
LAST = b"0\r\n\r\n"


def plain(status, body):
    return f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


@pytest.fixture
def paths():
    home = short_home()
    yield make_instance(home)
    shutil.rmtree(home)


def play(paths, script, scene):
    """Serve one connection by `script` (bytes to send, then END, HANG or ABORT) while `scene` runs."""
    requests = []

    async def serve(reader, writer):
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            length = 0
            for line in head.decode().lower().split("\r\n"):
                if line.startswith("content-length:"):
                    length = int(line.split(":")[1])
            requests.append((head.split(b"\r\n")[0].decode(), await reader.readexactly(length)))
            for step in script:
                if step == HANG:
                    await reader.read()
                elif step == ABORT:
                    writer.transport.abort()
                elif step != END:
                    writer.write(step)
                    await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def run():
        async with await asyncio.start_unix_server(serve, str(paths.controlplane_socket)):
            return await asyncio.wait_for(scene(), 10)

    return asyncio.run(run()), requests


async def lines_of(paths, **options):
    """Return (the lines, why it ended)."""
    lines = []
    try:
        async for line in watch.follow_endpoints(paths, **options):
            lines += [(line.type, line.version)]
    except ControlPlaneLost as error:
        return lines, error.why
    raise AssertionError("a stream never ends by itself")


def test_fetching_once(paths):
    line, requests = play(paths, [plain(200, JSON)], lambda: watch.fetch_endpoints(paths))

    assert line == LINE
    assert requests == [("GET /_kecs/endpoints HTTP/1.1", b"")]


@pytest.mark.parametrize(
    "stream",
    [
        [STREAM, chunk(JSON), chunk(PING), LAST],
        [STREAM + chunk(JSON + PING) + LAST],
        [STREAM, *(chunk(bytes([byte])) for byte in JSON + PING), LAST],
        [STREAM, *(bytes([byte]) for byte in chunk(JSON + b"\n" + PING)), LAST],
    ],
)
def test_a_stream_reads_the_same_however_it_is_cut(paths, stream):
    (lines, why), requests = play(paths, [*stream, END], lambda: lines_of(paths))

    assert lines == [("snapshot", 3), ("ping", 3)]
    assert why == "it ended the stream"
    assert requests == [("GET /_kecs/endpoints?watch=1&agent=1 HTTP/1.1", b"")]


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ([STREAM, chunk(JSON), HANG], "it does not answer"),
        ([STREAM, chunk(JSON), END], "it went away in the middle of its answer"),
        ([STREAM, chunk(JSON), chunk(b"{torn}\n"), HANG], "not understood"),
        ([STREAM, chunk(JSON), chunk(b'{"type":"magic","version":1}\n'), HANG], "not understood"),
        ([STREAM, chunk(JSON), b"zz\r\n", HANG], "not understood"),
    ],
)
def test_a_stream_that_breaks_off_is_a_loss(paths, script, why):
    (lines, said), _ = play(paths, script, lambda: lines_of(paths, silence=0.1))

    assert lines == [("snapshot", 3)]
    assert why in said


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ([END], "it went away in the middle of its answer"),
        ([ABORT], "it went away in the middle of its answer"),
        ([b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}", END], "it went away"),
        ([b"SSH-2.0\r\n\r\n", HANG], "not understood"),
        ([plain(200, b"{}\n")], "not understood"),
        ([plain(404, b"not found")], "HTTP 404"),
        ([plain(500, b"")], "HTTP 500"),
    ],
)
def test_a_wrong_answer_is_a_loss(paths, script, why):
    async def scene():
        with pytest.raises(ControlPlaneLost) as caught:
            await watch.fetch_endpoints(paths)
        return caught.value

    error, _ = play(paths, script, scene)

    assert (why in error.why, error.exit_code) == (True, ExitCode.UNREACHABLE), error.why


def test_no_answer_is_a_loss(paths, monkeypatch):
    monkeypatch.setattr(watch, "ANSWER", 0.1)

    async def scene():
        with pytest.raises(ControlPlaneLost, match="does not answer"):
            await watch.fetch_endpoints(paths)

    play(paths, [HANG], scene)


def test_a_line_without_an_end_is_a_loss(paths, monkeypatch):
    monkeypatch.setattr(watch, "MAX_LINE", 1000)

    (_, why), _ = play(paths, [STREAM, chunk(b"x" * 1001), HANG], lambda: lines_of(paths))

    assert "over 1000 bytes" in why


def test_what_is_refused_is_the_error_of_the_control_plane(paths):
    refusal = b'{"message":"no","hint":"do this","exitCode":4}'

    async def scene():
        with pytest.raises(KecsError) as caught:
            await watch.post_seen(paths, 7)
        return caught.value

    error, requests = play(paths, [plain(409, refusal)], scene)

    assert (error.message, error.hint, error.exit_code) == ("no", "do this", ExitCode.CONFLICT)
    assert requests == [("POST /_kecs/seen HTTP/1.1", b'{"version":7}')]


def test_posts(paths):
    _, requests = play(paths, [plain(204, b"")], lambda: watch.post_drained(paths, A))

    assert requests == [("POST /_kecs/drained HTTP/1.1", f'{{"taskId":"{A}"}}'.encode())]


def test_nobody_listens(paths):
    with pytest.raises(ControlPlaneLost) as caught:
        asyncio.run(watch.fetch_endpoints(paths))
    assert "kecs start" in (caught.value.hint or "")


def test_waiting_for_one_that_restarts(paths):
    async def late():
        asked = asyncio.get_running_loop().create_task(watch.await_endpoints(paths))
        await asyncio.sleep(0.06)
        assert not asked.done()

        async def serve(reader, writer):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(plain(200, JSON))
            writer.close()

        async with await asyncio.start_unix_server(serve, str(paths.controlplane_socket)):
            return await asyncio.wait_for(asked, 10)

    assert asyncio.run(late()) == LINE


def test_waiting_in_vain_tells_the_last_reason(paths):
    with pytest.raises(ControlPlaneLost, match="No such file"):
        asyncio.run(watch.await_endpoints(paths, 0.12))


def test_leaving_a_stream_closes_its_connection(paths):
    async def scene():
        async with aclosing(watch.follow_endpoints(paths)) as lines:
            async for _ in lines:
                break
        others = asyncio.all_tasks() - {asyncio.current_task()}
        async with asyncio.timeout(5):  # the server's own task ends when the client is gone
            while any("serve" in repr(one) for one in others if not one.done()):
                await asyncio.sleep(0.005)

    play(paths, [STREAM, chunk(JSON), HANG], scene)

"""Following a container's log by a real client, while the API server goes and comes back."""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing

from tests.kube.conftest import access, api, nothing_left
from tests.kube.conversation import with_client
from tests.kube.shapes import pod

from kecs import aio
from kecs.runtimes.kubernetes.log_stream import Life, follow
from kecs.runtimes.kubernetes.stamped_lines import StampedLines

__all__ = ["access", "api", "nothing_left"]


class Writer:
    """A pod that the test says everything of."""

    task_id = "0" * 32
    place = ("default", "web")

    def __init__(self) -> None:
        self.changed = asyncio.Event()
        self.now = Life.GOES_ON

    def life(self, _container: str) -> Life:
        return self.now


def line(second: int, text: str) -> bytes:
    return f"2026-01-01T00:00:{second:02}.000000000Z {text}\n".encode()


@with_client
async def test_a_restart_of_the_api_server_neither_loses_nor_doubles_a_line(client, api):
    api.put(pod())
    api.write_log("default", "web", "web", line(1, "one") + line(1, "two"))
    writer, told = Writer(), []
    async with aclosing(follow(client, writer, "web", StampedLines())) as parts:
        told.append(await anext(parts))
        await asyncio.to_thread(api.stop)
        waiting = aio.create_task(anext(parts), name="next part")
        await asyncio.sleep(0.1)
        api.write_log("default", "web", "web", line(1, "three") + line(2, "four"))
        await asyncio.to_thread(api.start)
        told.append(await waiting)
        api.write_log("default", "web", "web", line(9, "five"), end=True)
        writer.now = Life.HAS_ENDED
        told += [part async for part in parts]
    assert b"".join(told) == b"one\ntwo\nthree\nfour\nfive\n"
    asked = [seen.query for seen in api.requests if seen.path.endswith("/log")]
    assert asked[0]["follow"] == "true"
    assert "sinceTime" not in asked[0]
    assert asked[-1] == {
        "container": "web",
        "follow": "false",
        "timestamps": "true",
        "sinceTime": "2026-01-01T00:00:08Z",
    }


@with_client
async def test_ten_mebibytes_are_read_quickly(client, api):
    api.put(pod())
    text = line(1, "x" * 79) * 91_000
    api.write_log("default", "web", "web", text, end=True)
    writer = Writer()
    writer.now = Life.HAS_ENDED
    began, size = time.thread_time(), 0
    async with aclosing(follow(client, writer, "web", StampedLines())) as parts:
        async for part in parts:
            size += len(part)
    assert size == 91_000 * 80
    spent = time.thread_time() - began
    assert spent < 3.0, "two reads, as the second proves that the first had all; measured: 0.5 s"

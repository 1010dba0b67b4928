"""Reading a container's log, from the first byte to the last, while it is written and rotated."""

from __future__ import annotations

import asyncio
import itertools
import os
from pathlib import Path

import pytest
from tests.runtimes.world import World, container, in_world, of, sh

from kecs.errors import KecsError
from kecs.runtimes import tasklog
from kecs.runtimes.shim.log import Log


@in_world
async def test_a_log_has_output_and_errors_in_order(world: World) -> None:
    """Both go to one file, as they were written."""
    spec = await world.run(container("app", sh("echo 1; echo 2 >&2; echo 3")))
    await world.ended(spec)

    assert await world.log(spec, "app") == b"1\n2\n3\n"


@in_world
async def test_following_ends_with_the_container(world: World) -> None:
    """What is written later comes later; the end of the container, not of the task, is the end."""
    script = "echo one; read x < fifo; echo two; exec 3>&-"
    os.mkfifo(world.home / "fifo")
    spec = await world.run(
        container("app", sh("exec sleep 600")), container("side", sh(script), essential=False)
    )
    chunks: list[bytes] = []
    async with asyncio.timeout(10):
        async for chunk in world.runtime.logs(spec.id, "side", follow=True):
            chunks.append(chunk)
            if b"".join(chunks) == b"one\n":
                (world.home / "fifo").write_text("go\n")

    assert b"".join(chunks) == b"one\ntwo\n"
    assert not (await world.until(spec, lambda seen: of(seen, "side").status == "STOPPED")).ended
    await world.stop(spec)


@in_world
async def test_logs_stay_after_the_end_and_after_a_restart(world: World) -> None:
    """They are kept as long as the task; following one that has ended just reads."""
    spec = await world.run(container("app", sh("echo kept")))
    await world.ended(spec)
    await world.close()
    await world.open(keep=(spec.id,))

    assert b"".join([chunk async for chunk in world.runtime.logs(spec.id, "app", follow=True)]) == b"kept\n"
    assert await world.log(spec, "no-such-container") == b""
    with pytest.raises(KecsError, match="nothing is kept"):
        await world.runtime.logs("0" * 32, "app", follow=False).__anext__()


def test_following_goes_through_rotations(tmp_path: Path) -> None:
    """Every byte comes once and in order, when the file is rotated between and amid reads."""
    path = tmp_path / "app.log"

    async def scenario() -> bytes:
        log = Log(str(path), limit=100)
        lines = iter([b"%09d\n" % number for number in range(61)])
        log.write(next(lines))
        received = b""
        async for chunk in tasklog.read(path, goes_on=lambda: lines.__length_hint__() > 0):
            received += chunk
            for line in itertools.islice(lines, 7):
                log.write(line)
        log.close()
        return received

    before, tasklog._POLL = tasklog._POLL, 0.001
    try:
        received = asyncio.run(scenario())
    finally:
        tasklog._POLL = before
    assert received.split() == [b"%09d" % number for number in range(61)]
    assert Path(f"{path}.1").exists()


def test_reading_takes_the_older_file_first(tmp_path: Path) -> None:
    """Without following, both files are read, oldest first."""
    (tmp_path / "app.log.1").write_bytes(b"older\n")
    (tmp_path / "app.log").write_bytes(b"newer\n")

    async def read() -> bytes:
        return b"".join([chunk async for chunk in tasklog.read(tmp_path / "app.log", goes_on=None)])

    assert asyncio.run(read()) == b"older\nnewer\n"
    (tmp_path / "app.log").unlink()
    assert asyncio.run(read()) == b"older\n"

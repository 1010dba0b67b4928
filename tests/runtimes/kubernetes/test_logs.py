"""Logs of pods while something breaks: what is kept of a pod that goes, what those who follow are told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.runtimes.kubernetes.cluster import Cluster
from tests.runtimes.kubernetes.test_runtime import OWNER, POD, TASK, World, ended, running, scenario

from kecs import aio
from kecs.errors import ExitCode, KecsError
from kecs.kube.errors import ApiError, Unreachable
from kecs.runtimes.kubernetes import log_stream, tracked
from kecs.runtimes.kubernetes.runtime import KubernetesRuntime

AWAY = Unreachable("nothing listens at https://127.0.0.1:6443")
KUBELET_AWAY = ApiError(502, "", "dial tcp 10.0.0.1:10250: connect: connection refused")
KUBELET_STARTS = ApiError(404, "NotFound", "the server could not find the requested resource")
BUSY = ApiError(429, "TooManyRequests", "later", retry_after=0.01)
FORBIDDEN = ApiError(403, "Forbidden", 'pods "web" is forbidden: User "alice" cannot get resource "pods/log"')
REMOVED = ApiError(400, "BadRequest", "unable to retrieve container logs for containerd://aaaa")
BREAKS = {"connection": AWAY, "kubelet": None}


def kept(world: World) -> bytes:
    return (world.folder / TASK / "app.log").read_bytes()


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.01)


async def goes(world: World) -> None:
    """Let the container end, the pod go, and wait until that is observed."""
    world.cluster.update(POD, **ended(0))
    await asyncio.sleep(0)
    if world.cluster.pod(POD)["metadata"].get("deletionTimestamp"):
        world.cluster.remove("Pod", POD)
    await world.until(lambda seen: seen.ended)


@scenario
async def test_a_stop_while_the_api_server_is_away_keeps_the_log_all_the_same(world: World) -> None:
    await running(world)
    world.cluster.write(POD, "app", b"one\n")
    world.cluster.log_failures = [AWAY, AWAY, AWAY]
    world.cluster.deletion_failures = [AWAY]
    with pytest.raises(Unreachable):
        await world.runtime.stop(TASK)
    await until(lambda: len(world.cluster.log_reads) == 3)
    await world.runtime.stop(TASK)
    await until(lambda: not world.cluster.log_failures and len(world.cluster.log_reads) == 4)
    world.cluster.write(POD, "app", b"two\n", end=True)
    await goes(world)
    assert kept(world) == b"one\ntwo\n"


@scenario
async def test_an_order_to_stop_that_comes_again_has_the_log_asked_for_at_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_stream, "BACKOFF", log_stream.Backoff(first=60, cap=60))
    await running(world)
    world.cluster.log_failures = [AWAY, AWAY]
    world.cluster.deletion_failures = [AWAY]
    with pytest.raises(Unreachable):
        await world.runtime.stop(TASK)
    await until(lambda: not world.cluster.log_failures)
    await asyncio.sleep(0.05)
    await world.runtime.stop(TASK)
    await until(lambda: len(world.cluster.log_reads) == 3)


@pytest.mark.parametrize("how", BREAKS)
@scenario
async def test_a_log_that_breaks_while_it_is_captured_is_completed(world: World, how: str) -> None:
    await running(world)
    world.cluster.write(POD, "app", b"one\ntwo\nthr")
    await world.runtime.stop(TASK)
    await until(lambda: world.cluster.log_reads)
    for failure in (KUBELET_AWAY, KUBELET_STARTS, BUSY, REMOVED):
        world.cluster.log_failures.append(failure)
    world.cluster.break_logs(BREAKS[how])
    await until(lambda: not world.cluster.log_failures)
    assert not (world.folder / TASK / "app.log").exists(), "it is not whole yet"
    world.cluster.write(POD, "app", b"ee\nfour\n", end=True)
    await goes(world)
    assert kept(world) == b"one\ntwo\nthree\nfour\n"
    assert [each.name for each in (world.folder / TASK).iterdir()] == ["app.log"]


@scenario
async def test_a_read_of_what_has_ended_is_not_believed_before_another_brings_nothing(world: World) -> None:
    """The kubelet goes while the log is read of a container that had ended: the stream ends in good order."""
    await running(world)
    world.cluster.write(POD, "app", b"one\n")
    world.cluster.write(POD, "app", b"two\n", end=True)
    world.cluster.short_reads = 1
    world.cluster.update(POD, **ended(0))
    await world.until(lambda seen: seen.ended)
    assert kept(world) == b"one\ntwo\n"


@scenario
async def test_what_was_got_is_the_log_when_the_rest_does_not_come_in_time(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracked, "LOGS_WITHIN", 0.05)
    await running(world)
    world.cluster.write(POD, "app", b"one\n")
    await world.runtime.stop(TASK)
    await until(lambda: (world.folder / TASK).exists())
    world.cluster.log_failures = [KUBELET_AWAY] * 50
    world.cluster.break_logs(AWAY)
    await goes(world)
    assert kept(world) == b"one\n"
    assert world.cluster.log_failures, "it was tried no further"


@scenario
async def test_while_a_pod_cannot_be_deleted_its_log_is_tried_for(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracked, "LOGS_WITHIN", 0.05)
    monkeypatch.setattr(tracked, "RETRY_AFTER", 0.05)
    await running(world)
    world.cluster.write(POD, "app", b"one\n")
    await world.runtime.stop(TASK)
    await until(lambda: (world.folder / TASK).exists())
    world.cluster.log_failures = [AWAY] * 1000
    world.cluster.deletion_failures = [AWAY] * 3
    world.cluster.break_logs(AWAY)
    await until(lambda: len(world.cluster.log_failures) < 1000)
    world.cluster.write(POD, "app", b"two\n", end=True)
    world.cluster.update(POD, **ended(0))
    await until(lambda: len(world.cluster.deletion_failures) == 1)
    world.cluster.log_failures.clear()
    await world.until(lambda seen: seen.ended)
    assert not world.cluster.deletion_failures
    assert kept(world) == b"one\ntwo\n"


@scenario
async def test_a_refusal_is_believed_after_some_and_the_next_event_has_it_tried_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_stream, "BACKOFF", log_stream.Backoff(first=0.01, cap=0.01))
    await running(world)
    world.cluster.log_failures = [FORBIDDEN] * log_stream.REFUSALS
    world.cluster.write(POD, "app", b"one\n", end=True)
    await world.runtime.stop(TASK)
    await until(lambda: not world.runtime._logs._captures)
    await goes(world)
    assert kept(world) == b"one\n"


@asynccontextmanager
async def second(cluster: Cluster, folder: Path) -> AsyncIterator[World]:
    """Give the world of the next process, on the same cluster and folder."""
    world = World(folder)
    cluster.closed = False
    world.cluster = cluster
    world.runtime = KubernetesRuntime(cluster, OWNER, folder)  # type: ignore[arg-type]
    await world.open(TASK)
    try:
        yield world
    finally:
        await world.close()


async def cut_by_the_end_of_a_process(folder: Path) -> Cluster:
    """Return the cluster of a process that ended while a pod's log was captured."""
    world = World(folder)
    try:
        await running(world)
        world.cluster.write(POD, "app", b"one\ntw")
        await world.runtime.stop(TASK)
        await until(lambda: (folder / TASK).exists())
    finally:
        await world.close()
    assert not (folder / TASK / "app.log").exists(), "what is cut is not the log"
    return world.cluster


@pytest.mark.parametrize("orderly", [True, False], ids=["it was told to stop", "it was killed"])
def test_the_next_process_goes_on_with_a_log_that_is_not_whole(tmp_path: Path, orderly: bool) -> None:
    async def play() -> None:
        folder = tmp_path / "tasks"
        cluster = await cut_by_the_end_of_a_process(folder)
        if not orderly:
            (folder / TASK / ".app.log.mark").unlink()
        cluster.write(POD, "app", b"o\nthree\n", end=True)
        async with second(cluster, folder) as world:
            await goes(world)
        assert kept(world) == b"one\ntwo\nthree\n"
        assert [each.name for each in (folder / TASK).iterdir()] == ["app.log"]

    asyncio.run(play())


def test_what_an_earlier_process_got_is_the_log_of_a_pod_that_is_gone(tmp_path: Path) -> None:
    async def play() -> None:
        folder = tmp_path / "tasks"
        cluster = await cut_by_the_end_of_a_process(folder)
        cluster.forget("Pod", POD)
        async with second(cluster, folder) as world:
            await world.until(lambda seen: seen.ended)
            told = [chunk async for chunk in world.runtime.logs(TASK, "app", follow=False)]
        assert b"".join(told) == b"one\ntw"
        assert [each.name for each in (folder / TASK).iterdir()] == ["app.log"]

    asyncio.run(play())


class Follower:
    """Somebody who follows the log of the container."""

    def __init__(self, world: World) -> None:
        self.told = b""
        self.reading = aio.create_task(self._read(world), name="follower")

    async def _read(self, world: World) -> None:
        async for chunk in world.runtime.logs(TASK, "app", follow=True):
            self.told += chunk


@pytest.mark.parametrize("how", BREAKS)
@scenario
async def test_following_goes_on_over_breaks_until_the_container_has_ended(world: World, how: str) -> None:
    await running(world)
    world.cluster.write(POD, "app", b"one\ntwo\nthr")
    follower = Follower(world)
    await until(lambda: follower.told == b"one\ntwo\nthr")
    world.cluster.log_failures = [AWAY, KUBELET_AWAY, KUBELET_STARTS]
    world.cluster.break_logs(BREAKS[how])
    await until(lambda: not world.cluster.log_failures)
    world.cluster.write(POD, "app", b"ee\n")
    await until(lambda: follower.told == b"one\ntwo\nthree\n")
    world.cluster.break_logs(BREAKS[how])
    world.cluster.write(POD, "app", b"four\n", end=True)
    world.cluster.update(POD, **ended(0))
    await asyncio.wait_for(follower.reading, 5)
    assert follower.told == b"one\ntwo\nthree\nfour\n"


@scenario
async def test_following_ends_with_the_pod(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracked, "LOGS_WITHIN", 0.05)
    await running(world)
    world.cluster.write(POD, "app", b"one\n")
    follower = Follower(world)
    await until(lambda: follower.told)
    world.cluster.log_failures = [KUBELET_STARTS] * 50
    world.cluster.break_logs(None)
    await until(lambda: len(world.cluster.log_failures) < 50)
    world.cluster.remove("Pod", POD)
    await asyncio.wait_for(follower.reading, 5)
    assert follower.told == b"one\n"


@scenario
async def test_what_is_refused_for_good_is_said_to_those_who_follow(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_stream, "BACKOFF", log_stream.Backoff(first=0.01, cap=0.01))
    await running(world)
    world.cluster.log_failures = [FORBIDDEN] * log_stream.REFUSALS
    with pytest.raises(KecsError, match="cannot be read: 403 Forbidden") as refused:
        await Follower(world).reading
    assert refused.value.exit_code == ExitCode.UNREACHABLE


@scenario
async def test_following_ends_where_the_container_was_removed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_stream, "BACKOFF", log_stream.Backoff(first=0.01, cap=0.01))
    monkeypatch.setattr(tracked.TrackedPod, "life", lambda *_: log_stream.Life.HAS_ENDED)
    await running(world)
    world.cluster.log_failures = [REMOVED] * 50
    follower = Follower(world)
    await asyncio.wait_for(follower.reading, 5)
    assert follower.told == b""


@scenario
async def test_following_ends_with_the_client(world: World) -> None:
    await running(world)
    world.cluster.write(POD, "app", b"one\n")
    follower = Follower(world)
    await until(lambda: follower.told)
    world.cluster.closed = True
    world.cluster.break_logs(AWAY)
    with pytest.raises(KecsError, match="cannot be read: nothing listens"):
        await asyncio.wait_for(follower.reading, 5)

"""A watch tells everything that happens, over every way in which a stream can end."""

from __future__ import annotations

import asyncio
from contextlib import aclosing, asynccontextmanager

import pytest
from tests.kube.conversation import with_client
from tests.kube.objects import status
from tests.kube.scripted import Answer
from tests.kube.shapes import LABELS, pod

from kecs import aio
from kecs.kube import watch
from kecs.kube.errors import ApiError, Unreachable
from kecs.kube.watch import Backoff, Changed, Deleted, Synced, Watch

PODS = "/api/v1/pods"


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """What is promised is the order of things, not how long a pause is."""
    monkeypatch.setattr(watch, "BACKOFF", Backoff(first=0.01, cap=0.05))


class Follower:
    """Drives a watch as the runtime does, and keeps what it says."""

    def __init__(self, client, api, **options):
        self.api = api
        self.reports = asyncio.Queue()
        self._events = asyncio.Queue()
        self._watch = Watch(client._http, "Pod", None, LABELS, self.reports.put_nowait, **options)
        self.task = aio.create_task(self._follow(), name="follower")

    async def _follow(self):
        async with aclosing(self._watch.events()) as events:
            async for event in events:
                self._events.put_nowait(event)

    async def event(self):
        async with asyncio.timeout(10):
            return await self._events.get()

    async def report(self):
        async with asyncio.timeout(10):
            return await self.reports.get()

    async def synced(self):
        event = await self.event()
        assert isinstance(event, Synced), event
        return sorted(each["metadata"]["name"] for each in event.objects)

    async def changed(self):
        event = await self.event()
        assert isinstance(event, Changed), event
        return event.object["metadata"]["name"]

    async def opened(self, count):
        """Wait until the server was asked to watch `count` times and the last of these is open."""

        def so():
            return self.api.watches == 1 and len(self.requests()) >= count

        await asyncio.to_thread(self.api.wait_for, so, f"watch number {count} is open")

    def requests(self):
        return [seen for seen in self.api.requests if seen.watches]


@asynccontextmanager
async def following(client, api, **options):
    follower = Follower(client, api, **options)
    try:
        await follower.synced()
        await follower.opened(1)
        yield follower
    finally:
        await aio.cancel(follower.task)


@with_client
async def test_first_everything_then_each_change(client, api):
    api.put(pod("old"))
    api.put(pod("foreign", labels={"kecs.dev/instance-id": "i2"}))
    follower = Follower(client, api)
    try:
        assert await follower.synced() == ["old"]
        await follower.opened(1)
        api.put(pod("new"))
        assert await follower.changed() == "new"
        api.remove("Pod", "default", "old")
        event = await follower.event()
        assert isinstance(event, Deleted)
        assert event.object["metadata"]["name"] == "old"
    finally:
        await aio.cancel(follower.task)


@with_client
async def test_a_watch_asks_for_bookmarks_and_an_end(client, api):
    async with following(client, api) as follower:
        [request] = follower.requests()
        assert request.query["allowWatchBookmarks"] == "true"
        assert request.query["timeoutSeconds"] == "240"
        assert request.query["labelSelector"] == "kecs.dev/instance-id=i1"


@pytest.mark.parametrize("ending", ["end_watches", "cut_watches"])
def test_a_stream_that_ends_is_resumed_where_it_ended(api, access, ending):
    @with_client
    async def scene(client, api):
        async with following(client, api) as follower:
            api.put(pod("one"))
            assert await follower.changed() == "one"
            version = str(api.objects.version)
            getattr(api, ending)()
            await follower.opened(2)
            assert follower.requests()[1].query["resourceVersion"] == version
            api.put(pod("two"))
            assert await follower.changed() == "two"
            assert follower.reports.empty(), "nobody was without the watch"

    scene(api, access)


@with_client
async def test_what_happens_while_a_stream_is_broken_is_told_afterwards(client, api):
    async with following(client, api) as follower:
        api.answer_next(Answer(drop="reset"), watch=True, times=3)
        api.cut_watches()
        api.put(pod("meanwhile"))
        assert await follower.changed() == "meanwhile"


@with_client
async def test_a_torn_line_is_forgotten_and_comes_again_whole(client, api):
    async with following(client, api) as follower:
        api.cut_watches(torn=b'{"type":"ADDED","object":{"kind":"Pod","metadata":{"na')
        api.put(pod("whole"))
        assert await follower.changed() == "whole"


@with_client
async def test_a_line_that_is_nonsense_leads_to_a_new_list(client, api):
    async with following(client, api) as follower:
        api.put(pod("one"))
        assert await follower.changed() == "one"
        api.send_to_watches(b"nonsense\n")
        assert await follower.synced() == ["one"]


@with_client
async def test_a_bookmark_moves_the_place_to_resume_at_and_is_not_told(client, api):
    async with following(client, api) as follower:
        api.put({"kind": "Node", "metadata": {"name": "another-kind"}})
        api.bookmark()
        api.put(pod("after"))
        assert await follower.changed() == "after"
        api.remove("Pod", "default", "after")
        assert isinstance(await follower.event(), Deleted)
        api.put({"kind": "Node", "metadata": {"name": "and-one-more"}})
        version = str(api.objects.version)
        api.bookmark()
        api.end_watches()
        await follower.opened(2)
        assert follower.requests()[1].query["resourceVersion"] == version


@pytest.mark.parametrize("as_event", [False, True])
def test_a_place_that_the_server_forgot_leads_to_a_new_list(api, access, as_event):
    @with_client
    async def scene(client, api):
        api.gone_as_event = as_event
        api.put(pod("stays"))
        api.put(pod("goes"))
        follower = Follower(client, api)
        try:
            assert await follower.synced() == ["goes", "stays"]
            await follower.opened(1)
            api.answer_next(Answer(503, b""), watch=True)
            api.cut_watches()
            api.remove("Pod", "default", "goes")
            api.forget()
            seen = await follower.event()
            while not isinstance(seen, Synced):  # the first stream may have told of it before it was cut
                seen = await follower.event()
            assert [each["metadata"]["name"] for each in seen.objects] == ["stays"]
            await follower.opened(2)
            api.put(pod("new"))
            assert await follower.changed() == "new"
        finally:
            await aio.cancel(follower.task)

    scene(api, access)


@with_client
async def test_any_error_event_leads_to_a_new_list(client, api):
    async with following(client, api) as follower:
        api.send_to_watches({"type": "ERROR", "object": status(500, "InternalError", "etcd is unwell")})
        assert await follower.synced() == []


@with_client
async def test_a_half_open_stream_is_noticed_by_its_silence(client, api):
    async with following(client, api, silence=0.3) as follower:
        api.freeze_watches()
        api.put(pod("unheard"))
        assert await follower.changed() == "unheard"
        assert len(follower.requests()) >= 2
        assert follower.reports.empty(), "it was resumed at once"


@with_client
async def test_after_a_sleep_a_stream_is_resumed_at_once_on_a_new_connection(client, api):
    async with following(client, api) as follower:
        api.freeze_watches()
        api.put(pod("unheard"))
        await client.version()
        pools = list(client._http._pools)
        client.rouse()
        assert await follower.changed() == "unheard"
        await follower.opened(2)
        assert follower.reports.empty(), "it is no trouble"
        assert not set(map(id, pools)) & set(map(id, client._http._pools)), "none of before is used"
        client.rouse()
        await follower.opened(3)
        api.put(pod("after"))
        assert await follower.changed() == "after"


@with_client
async def test_after_a_sleep_a_stream_whose_reader_was_busy_is_resumed_too(client, api):
    watch = Watch(client._http, "Pod", None, LABELS, lambda _: None)
    async with aclosing(watch.events()) as events, asyncio.timeout(10):
        assert isinstance(await anext(events), Synced)
        api.put(pod("heard"))
        assert isinstance(await anext(events), Changed)
        api.freeze_watches()
        client.rouse()  # while this reader does something else
        api.put(pod("unheard"))
        changed = await anext(events)
        assert changed.object["metadata"]["name"] == "unheard"


@with_client
async def test_two_sleeps_in_a_row_end_a_stream_once(client, api):
    async with following(client, api) as follower:
        async with asyncio.timeout(10):
            while not client._http._waiting:
                await asyncio.sleep(0)
        client.rouse()
        await asyncio.sleep(0)  # the stream is being ended
        client.rouse()
        await follower.opened(2)
        api.put(pod("after"))
        assert await follower.changed() == "after"


@with_client
async def test_a_server_that_restarts_is_reported_and_found_again(client, api):
    async with following(client, api) as follower:
        api.stop()
        assert isinstance(await follower.report(), Unreachable)
        api.start()
        while (report := await follower.report()) is not None:
            assert isinstance(report, Unreachable)
        await follower.opened(2)
        api.put(pod("after"))
        assert await follower.changed() == "after"


@with_client
async def test_a_watch_that_begins_on_a_dead_server_waits_for_it(client, api):
    api.stop()
    follower = Follower(client, api)
    try:
        assert isinstance(await follower.report(), Unreachable)
        api.start()
        assert await follower.synced() == []
    finally:
        await aio.cancel(follower.task)


@with_client
async def test_a_right_that_was_taken_away_is_reported_until_it_is_given_back(client, api):
    async with following(client, api) as follower:
        api.deny("watch", "pods")
        api.end_watches()
        report = await follower.report()
        assert isinstance(report, ApiError)
        assert report.status == 403
        api.allow("watch", "pods")
        while await follower.report() is not None:
            pass
        await follower.opened(2)


@with_client
async def test_a_server_that_is_too_busy_to_watch_is_asked_again_when_it_wants(client, api):
    async with following(client, api) as follower:
        busy = Answer(429, status(429, "TooManyRequests"), {"Retry-After": "0"})
        api.answer_next(busy, watch=True, times=2)
        api.end_watches()
        await follower.opened(4)
        api.put(pod("served"))
        assert await follower.changed() == "served"


@with_client
async def test_a_huge_object_is_one_event(client, api):
    async with following(client, api) as follower:
        huge = pod("huge")
        huge["metadata"]["annotations"] = {"big": "x" * 3_000_000}
        api.put(huge)
        event = await follower.event()
        assert isinstance(event, Changed)
        assert len(event.object["metadata"]["annotations"]["big"]) == 3_000_000


@with_client
async def test_closing_the_client_ends_its_watches(client, api):
    events = Watch(client._http, "Pod", None, LABELS).events()
    async with aclosing(events):
        assert isinstance(await anext(events), Synced)
        coming = aio.create_task(anext(events), name="next event")
        await asyncio.to_thread(api.wait_for, lambda: api.watches == 1, "the watch is open")
        await client.close()
        async with asyncio.timeout(5):
            with pytest.raises(Unreachable):
                await coming


@with_client
async def test_leaving_a_watch_closes_its_connection(client, api):
    async with following(client, api):
        pass
    await asyncio.to_thread(api.wait_for, lambda: api.watches == 0, "the server sees the watch end")

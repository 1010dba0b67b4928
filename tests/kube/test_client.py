"""What the control plane may ask of an API server, and what it hears when the server is not well."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest
from tests.kube.conversation import with_client
from tests.kube.objects import status
from tests.kube.scripted import Answer
from tests.kube.shapes import LABELS, pod, service

from kecs.kube.client import KubeClient
from kecs.kube.errors import ApiError, Unreachable


@with_client
async def test_the_version_is_two_numbers_though_some_clusters_write_a_plus(client, api):
    api.version = ("1", "29+")
    assert await client.version() == (1, 29)


@with_client
async def test_an_object_is_applied_found_and_deleted_once(client, api):
    applied = await client.apply(pod())
    assert applied["metadata"]["uid"]
    assert (await client.get("Pod", "default", "web"))["spec"] == applied["spec"]
    assert await client.delete("Pod", "default", "web") is True
    assert await client.delete("Pod", "default", "web") is False
    assert await client.get("Pod", "default", "web") is None


@with_client
async def test_applying_is_done_as_one_manager_that_takes_its_fields(client, api):
    await client.apply(pod())
    [request] = [seen for seen in api.requests if seen.method == "PATCH"]
    assert request.query == {"fieldManager": "kecs", "force": "true"}
    assert request.headers["content-type"] == "application/apply-patch+yaml"


@with_client
async def test_creating_what_exists_is_a_conflict(client, api):
    await client.create(pod())
    with pytest.raises(ApiError) as raised:
        await client.create(pod())
    assert (raised.value.status, raised.value.reason) == (409, "AlreadyExists")


@with_client
async def test_another_object_of_the_same_name_is_not_deleted(client, api):
    api.put(pod())
    assert await client.delete("Pod", "default", "web", uid="of-the-first") is False
    found = await client.get("Pod", "default", "web")
    assert await client.delete("Pod", "default", "web", uid=found["metadata"]["uid"], grace=0) is True


@with_client
async def test_the_grace_of_a_deletion_reaches_the_server(client, api):
    api.objects.graceful = True
    api.put(pod())
    await client.delete("Pod", "default", "web", grace=7)
    assert b'"gracePeriodSeconds":7' in api.requests[-1].body
    assert "deletionTimestamp" in (await client.get("Pod", "default", "web"))["metadata"]


@with_client
async def test_a_list_has_every_page_and_only_what_has_the_labels(client, api):
    api.page = 3
    for number in range(8):
        api.put(pod(f"web-{number}"))
    api.put(pod("foreign", labels={"kecs.dev/instance-id": "i2"}))
    found, version = await client.list("Pod", None, LABELS)
    assert [each["metadata"]["name"] for each in found] == [f"web-{number}" for number in range(8)]
    assert version == str(api.objects.version)
    assert all(each["kind"] == "Pod" and each["apiVersion"] == "v1" for each in found)
    assert "managedFields" not in found[0]["metadata"]


@with_client
async def test_a_list_whose_next_page_was_forgotten_begins_again(client, api):
    for number in range(4):
        api.put(pod(f"web-{number}"))
    first = {"metadata": {"resourceVersion": "7", "continue": "7:1"}, "items": [pod("of-back-then")]}
    api.answer_next(Answer(200, first), path="/api/v1/pods")
    api.answer_next(Answer(410, status(410, "Expired")), path="/api/v1/pods")
    found, _ = await client.list("Pod", None, LABELS)
    assert [each["metadata"]["name"] for each in found] == [f"web-{number}" for number in range(4)]
    asked = [seen.query.get("continue") for seen in api.requests if seen.path == "/api/v1/pods"]
    assert asked == [None, "7:1", None]


@with_client
async def test_a_taken_node_port_is_told_with_its_cause(client, api):
    await client.apply(service("first"))
    with pytest.raises(ApiError) as raised:
        await client.apply(service("second"))
    [cause] = raised.value.causes
    assert raised.value.status == 422
    assert cause.field == "spec.ports[0].nodePort"
    assert "provided port is already allocated" in cause.message


@with_client
async def test_a_server_that_is_too_busy_is_asked_again_when_it_wants(client, api):
    api.put(pod())
    api.answer_next(
        Answer(429, status(429, "TooManyRequests"), {"Retry-After": "0"}), method="PATCH", times=2
    )
    await client.apply(pod())
    assert sum(seen.method == "PATCH" for seen in api.requests) == 3


@with_client
async def test_a_server_that_stays_too_busy_is_an_error_after_five_tries(client, api):
    api.answer_next(
        Answer(429, status(429, "TooManyRequests"), {"Retry-After": "0"}), method="PATCH", times=9
    )
    with pytest.raises(ApiError) as raised:
        await client.apply(pod())
    assert (raised.value.status, raised.value.retry_after) == (429, 0)
    assert sum(seen.method == "PATCH" for seen in api.requests) == 5


@with_client
async def test_a_kept_connection_that_died_is_noticed_by_nobody(client, api):
    api.answer_next(Answer(drop="reset"), method="PATCH")
    await client.apply(pod())
    assert sum(seen.method == "PATCH" for seen in api.requests) == 2


@with_client
async def test_what_may_not_be_done_twice_is_not_sent_again(client, api):
    api.answer_next(Answer(drop="reset"), method="POST")
    with pytest.raises(Unreachable):
        await client.create(pod())
    assert sum(seen.method == "POST" for seen in api.requests) == 1


@with_client
async def test_an_answer_that_breaks_off_is_no_answer(client, api):
    api.answer_next(Answer(200, pod(), cut=20), path="/api/v1/namespaces/default/pods/web")
    with pytest.raises(Unreachable):
        await client.get("Pod", "default", "web")


@with_client
async def test_something_that_is_no_api_server_is_named_so(client, api):
    api.answer_next(Answer(200, b"<html>hello</html>"), path="/version")
    with pytest.raises(Unreachable, match="not a Kubernetes API server"):
        await client.version()


@with_client
async def test_a_401_says_whose_credentials_were_refused_and_what_helps(client, api):
    api.tokens = {"another"}
    with pytest.raises(ApiError) as raised:
        await client.version()
    said = str(raised.value)
    assert f"401 Unauthorized: the API server {api.url} does not accept" in said
    assert "log in to the cluster again" in said


@with_client
async def test_a_proxys_page_is_an_error_with_its_text(client, api):
    api.answer_next(Answer(502, b"Bad Gateway"), path="/version")
    with pytest.raises(ApiError) as raised:
        await client.version()
    assert (raised.value.status, raised.value.message) == (502, "Bad Gateway")


@with_client
async def test_a_refusal_says_what_is_missing(client, api):
    api.deny("list", "pods")
    with pytest.raises(ApiError) as raised:
        await client.list("Pod", None, LABELS)
    assert raised.value.status == 403
    assert 'cannot list resource "pods"' in raised.value.message


@with_client
async def test_nobody_listening_is_unreachable_and_a_restart_heals_it(client, api):
    api.stop()
    with pytest.raises(Unreachable, match="nothing listens"):
        await client.version()
    api.start()
    assert await client.version() == (1, 35)


@with_client
async def test_logs_come_as_they_are_written_until_the_container_ends(client, api):
    api.put(pod())
    api.write_log("default", "web", "web", b"one\n")
    async with aclosing(client.logs("default", "web", "web", follow=True)) as log:
        assert await anext(log) == b"one\n"
        api.write_log("default", "web", "web", b"\xfftwo")
        assert await anext(log) == b"\xfftwo"
        api.write_log("default", "web", "web", b"", end=True)
        assert [chunk async for chunk in log] == []


@with_client
async def test_the_logs_of_a_pod_that_is_gone_are_refused(client, api):
    with pytest.raises(ApiError) as raised:
        await anext(client.logs("default", "gone", "web", follow=False))
    assert raised.value.status == 404


@with_client
async def test_leaving_a_followed_log_closes_its_connection(client, api):
    api.put(pod())
    api.write_log("default", "web", "web", b"one\n")
    log = client.logs("default", "web", "web", follow=True)
    await anext(log)
    before = api.connections
    await log.aclose()
    await asyncio.to_thread(api.wait_for, lambda: api.connections < before, "the log's connection ends")


@with_client
async def test_a_followed_log_with_times_is_given_up_when_the_machine_has_slept(client, api):
    """Its reader can go on with it on a new connection; without times it could not."""
    api.put(pod())
    api.write_log("default", "web", "web", b"one\n")
    async with (
        aclosing(client.logs("default", "web", "web", follow=True, timestamps=True)) as resumable,
        aclosing(client.logs("default", "web", "web", follow=True)) as other,
    ):
        assert (await anext(resumable), await anext(other)) == (b"one\n", b"one\n")
        client.rouse()
        with pytest.raises(Unreachable, match="older than a sleep"):
            await anext(resumable)
        api.write_log("default", "web", "web", b"two\n")
        assert await anext(other) == b"two\n"


@with_client
async def test_a_call_after_close_is_unreachable(client, api):
    await client.close()
    with pytest.raises(Unreachable, match="were closed"):
        await client.version()


def test_a_client_opens_only_on_a_server_that_answers(api, access):
    api.stop()
    with pytest.raises(Unreachable):
        asyncio.run(KubeClient.open(access))
    api.start()

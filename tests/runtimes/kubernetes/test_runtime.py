"""The Kubernetes runtime beside a cluster in memory: what becomes of pods is what is observed of tasks."""

from __future__ import annotations

import asyncio
import copy
import inspect
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from tests.runtimes.kubernetes.cluster import Cluster

from kecs import aio
from kecs.errors import KecsError
from kecs.forward.backoff import Backoff
from kecs.kube.errors import ApiError, Unreachable
from kecs.kube.watch import Changed
from kecs.runtimes.base import (
    ContainerSpec,
    ExposedPort,
    Exposure,
    NodeObserved,
    NodePortTakenError,
    PortSpec,
    TaskObserved,
    TaskSpec,
)
from kecs.runtimes.kubernetes import following, manifests, reasons, tracked
from kecs.runtimes.kubernetes.manifests import Owner
from kecs.runtimes.kubernetes.namespaces import GRACE, destroy
from kecs.runtimes.kubernetes.runtime import KubernetesRuntime

OWNER = Owner(instance="default", instance_id="0a1b2c3d")
OTHER = Owner(instance="default", instance_id="ffffffff")
TASK = "0123456789abcdef0123456789abcdef"
POD = f"web-{TASK}"
SPACE = "kecs-default-prod-01234567"
SPEC = TaskSpec(
    id=TASK,
    arn=f"arn:aws:ecs:us-east-1:123456789012:task/prod/{TASK}",
    region="us-east-1",
    cluster="prod",
    family="web",
    revision=1,
    service="web",
    namespace=SPACE,
    pod=POD,
    containers=[ContainerSpec(name="app", image="app:1", ports=[PortSpec(container_port=80)])],
)
HIDING = replace(
    SPEC,
    containers=[ContainerSpec(name="app", image="app:1", environment={"TOKEN": "s3cret"}, secrets=["TOKEN"])],
)
"""With a Secret."""
EXPOSURE = Exposure(
    namespace=SPACE,
    name="web",
    region="us-east-1",
    cluster="prod",
    service="web",
    task_id=None,
    ports=[ExposedPort(container_port=80, node_port=30080)],
)
RUNNING = {
    "phase": "Running",
    "podIP": "10.0.0.7",
    "conditions": [{"type": "Ready", "status": "True"}],
    "containerStatuses": [
        {
            "name": "app",
            "image": "app:1",
            "imageID": "",
            "ready": True,
            "started": True,
            "restartCount": 0,
            "containerID": "containerd://aaaa",
            "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}},
        }
    ],
}


def ended(code: int) -> dict[str, object]:
    """Return the status of a pod whose container ended by itself."""
    return {
        "phase": "Succeeded" if code == 0 else "Failed",
        "conditions": [{"type": "Ready", "status": "False"}],
        "containerStatuses": [
            {
                **RUNNING["containerStatuses"][0],  # type: ignore[dict-item]
                "ready": False,
                "started": False,
                "state": {
                    "terminated": {
                        "exitCode": code,
                        "reason": "Completed" if code == 0 else "Error",
                        "startedAt": "2026-01-01T00:00:00Z",
                        "finishedAt": "2026-01-01T00:00:09Z",
                        "containerID": "containerd://aaaa",
                    }
                },
            }
        ],
    }


class World:
    """A runtime, its cluster, and what was observed."""

    def __init__(self, folder: Path, *, vanished: str | None = None) -> None:
        self.cluster = Cluster()
        self.folder = folder
        self.seen: list[TaskObserved] = []
        self._news = asyncio.Event()
        self._reader: asyncio.Task[None] | None = None
        self.runtime = KubernetesRuntime(self.cluster, OWNER, folder, vanished=vanished)  # type: ignore[arg-type]

    async def open(self, *expected: str, keep: tuple[str, ...] | None = None) -> None:
        """Open the runtime and begin to read."""
        await self.runtime.open(expected, keep)
        self._reader = aio.create_task(self._read(), name="reader")

    async def close(self) -> None:
        await self.runtime.close()
        if self._reader is not None:
            await self._reader

    async def until(self, condition: Callable[[TaskObserved], object]) -> TaskObserved:
        """Return the first observation, of those since the last call, that is so."""
        async with asyncio.timeout(5):
            while True:
                while self.seen:
                    seen = self.seen.pop(0)
                    if condition(seen):
                        return seen
                self._news.clear()
                await self._news.wait()

    async def _read(self) -> None:
        async for seen in self.runtime.observations():
            self.seen.append(seen)
            self._news.set()


def scenario(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Run a test in a world of its own, which is closed after it; its other arguments are pytest's."""

    def alone(tmp_path: Path, **others: object) -> None:
        async def play() -> None:
            world = World(tmp_path / "tasks")
            try:
                await test(world, **others)
            finally:
                await world.close()

        asyncio.run(play())

    signature = inspect.signature(test)
    others = [each for name, each in signature.parameters.items() if name != "world"]
    folder = inspect.signature(alone).parameters["tmp_path"]
    alone.__signature__ = signature.replace(parameters=[folder, *others])  # type: ignore[attr-defined]
    return alone


async def running(world: World) -> None:
    """Run the task until it is observed to run."""
    await world.open()
    await world.runtime.run(SPEC)
    world.cluster.update(POD, **RUNNING)
    await world.until(lambda seen: seen.containers and seen.containers[0].status == "RUNNING")


@scenario
async def test_a_task_is_a_pod_in_a_namespace_of_its_own(world: World) -> None:
    await running(world)
    assert ("Namespace", None, SPACE) in world.cluster.objects
    assert world.cluster.pod(POD)["spec"]["restartPolicy"] == "Never"


@scenario
async def test_a_second_order_to_run_changes_nothing(world: World) -> None:
    await running(world)
    before = world.cluster.pod(POD)
    await world.runtime.run(SPEC)
    assert world.cluster.pod(POD) is before


@scenario
async def test_an_end_by_itself_is_told_with_its_exit_code_once_the_log_is_kept_and_the_pod_is_gone(
    world: World,
) -> None:
    await running(world)
    world.cluster.write(POD, "app", b"last words\n", end=True)
    world.cluster.update(POD, **ended(3))
    early = await world.until(lambda seen: seen.containers[0].status == "STOPPED")
    assert not early.ended
    last = await world.until(lambda seen: seen.ended)
    assert last.containers[0].exit_code == 3
    assert ("Pod", SPACE, POD) not in world.cluster.objects
    assert (
        b"".join([chunk async for chunk in world.runtime.logs(TASK, "app", follow=False)]) == b"last words\n"
    )


@scenario
async def test_a_stop_keeps_what_is_written_until_the_end(world: World) -> None:
    await running(world)
    world.cluster.write(POD, "app", b"one\n")
    await world.runtime.stop(TASK)
    assert world.cluster.deletions == [(("Pod", SPACE, POD), None)]
    world.cluster.write(POD, "app", b"two\n", end=True)
    world.cluster.update(POD, **ended(0))
    world.cluster.remove("Pod", POD)
    last = await world.until(lambda seen: seen.ended)
    assert not last.lost
    assert last.leaving is None
    assert b"".join([chunk async for chunk in world.runtime.logs(TASK, "app", follow=False)]) == b"one\ntwo\n"


@scenario
async def test_a_pod_that_somebody_deletes_is_leaving_at_once(world: World) -> None:
    await running(world)
    world.cluster.leave(POD)
    seen = await world.until(lambda seen: seen.leaving)
    assert seen.containers[0].status == "RUNNING"
    world.cluster.write(POD, "app", b"bye\n", end=True)
    world.cluster.remove("Pod", POD)
    await world.until(lambda seen: seen.ended)
    assert world.runtime.logs(TASK, "app", follow=False) is not None
    assert (world.folder / TASK / "app.log").read_bytes() == b"bye\n"


@scenario
async def test_what_a_relist_does_not_have_is_gone(world: World) -> None:
    await running(world)
    world.cluster.forget("Pod", POD)
    world.cluster.relist("Pod")
    await world.until(lambda seen: seen.ended)


async def until(condition: Callable[[], object]) -> None:
    """Let the loop go on until it is so."""
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.01)


@scenario
async def test_a_pod_that_is_not_understood_is_told_as_trouble_until_it_is(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "AGAIN", Backoff(first=0.01, cap=0.01))
    await running(world)
    good = world.cluster.pod(POD)
    world.cluster.put({**good, "status": "as nobody expects it"})
    await until(lambda: world.cluster.watched["Pod"] > 3)  # the list does not help either
    assert world.runtime.trouble is not None
    assert "what the cluster says of its pods is not understood" in world.runtime.trouble[1]
    world.cluster.put(good)
    await until(lambda: world.runtime.trouble is None)
    world.cluster.leave(POD)
    await world.until(lambda seen: seen.leaving)


@pytest.mark.parametrize("kind", ["Pod", "Node", "Service"])
@scenario
async def test_every_watch_begins_anew_after_what_is_not_understood(
    world: World, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(following, "AGAIN", Backoff(first=0.01, cap=0.01))
    await world.open()
    await until(lambda: world.cluster.watched[kind] == 1)
    world.cluster.send(kind, Changed({"kind": kind}))
    await until(lambda: world.cluster.watched[kind] == 2)
    world.cluster.send(kind, Changed({"kind": kind}))
    await until(lambda: world.cluster.watched[kind] == 3)


@scenario
async def test_a_list_older_than_a_new_pod_does_not_end_it(world: World) -> None:
    await world.open()
    pod = manifests.pod(SPEC, OWNER, sleep_action=True)
    follower = tracked.TrackedPod(TASK, world.runtime._tools)
    follower.created(world.cluster.put(pod))
    follower.missed()
    assert not follower.over
    assert follower._ending is None
    follower.missed()
    await world.until(lambda seen: seen.ended)


@scenario
async def test_a_task_is_adopted_by_its_label_and_a_missing_one_is_lost(world: World) -> None:
    world.cluster.put(manifests.pod(SPEC, OWNER, sleep_action=True))
    world.cluster.update(POD, **RUNNING)
    await world.open(TASK, "f" * 32)
    first = await world.until(lambda seen: seen.task_id == "f" * 32)
    assert first.lost
    assert first.ended


@scenario
async def test_an_adopted_task_can_be_stopped(world: World) -> None:
    world.cluster.put(manifests.pod(SPEC, OWNER, sleep_action=True))
    world.cluster.update(POD, **RUNNING)
    await world.open(TASK)
    await world.until(lambda seen: seen.task_id == TASK and not seen.lost)
    await world.runtime.stop(TASK)
    assert world.cluster.deletions == [(("Pod", SPACE, POD), None)]


DRAINED = "Task was stopped: its pod was deleted while its node was drained"
K3D_STOPPED = f"{DRAINED}, as k3d does whenever its cluster or Docker stops"


@pytest.mark.parametrize("vanished", [None, K3D_STOPPED])
def test_a_pod_that_is_deleted_on_a_cordoned_node_was_drained(tmp_path: Path, vanished: str | None) -> None:
    """`kubectl drain --disable-eviction`, as k3d's own, deletes pods and says nothing on them."""

    async def play() -> None:
        world = World(tmp_path / "tasks", vanished=vanished)
        try:
            await running(world)
            world.cluster.pod(POD)["spec"]["nodeName"] = "n1"
            node = {"kind": "Node", "metadata": {"name": "n1"}, "spec": {"unschedulable": True}}
            world.cluster.put(node)
            world.cluster.leave(POD)
            seen = await world.until(lambda seen: seen.leaving)
            assert seen.leaving == (vanished or DRAINED)

            world.cluster.put(node | {"spec": {}})
            async with asyncio.timeout(5):  # the next start takes the cordon away
                while world.runtime._nodes.is_cordoned("n1"):
                    await asyncio.sleep(0)
        finally:
            await world.close()

    asyncio.run(play())


def test_on_k3d_what_is_gone_unseen_went_with_a_drain(tmp_path: Path) -> None:
    async def play() -> None:
        world = World(tmp_path / "tasks", vanished=reasons.K3D_STOPPED)
        try:
            await world.open("f" * 32)
            assert (await world.until(lambda seen: seen.lost)).leaving == K3D_STOPPED
            await world.runtime.run(SPEC)
            world.cluster.update(POD, **RUNNING)
            await world.until(lambda seen: seen.containers and seen.containers[0].status == "RUNNING")
            world.cluster.forget("Pod", POD)
            world.cluster.relist("Pod")
            assert (await world.until(lambda seen: seen.ended)).leaving == K3D_STOPPED
        finally:
            await world.close()

    asyncio.run(play())


@scenario
async def test_a_pod_of_ours_that_nobody_expects_is_deleted_and_another_s_is_not(world: World) -> None:
    world.cluster.put(manifests.pod(SPEC, OWNER, sleep_action=True))
    foreign = manifests.pod(SPEC, OTHER, sleep_action=True)
    foreign["metadata"]["name"] = "theirs"
    world.cluster.put(foreign)
    await world.open()
    async with asyncio.timeout(5):
        while ("Pod", SPACE, POD) in world.cluster.objects:
            await asyncio.sleep(0)
    assert ("Pod", SPACE, "theirs") in world.cluster.objects


@scenario
async def test_a_node_that_does_not_answer_loses_its_pods(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracked, "LOST_AFTER", 0.01)
    await world.open()
    await world.runtime.run(SPEC)
    pod = world.cluster.pod(POD)
    pod["spec"]["nodeName"] = "n1"
    world.cluster.update(POD, **RUNNING)
    ready = {"type": "Ready", "status": "True"}
    node = {"kind": "Node", "metadata": {"name": "n1"}, "status": {"conditions": [ready]}}
    world.cluster.put(node)
    node["status"] = {"conditions": [ready | {"status": "Unknown"}]}
    world.cluster.put(node)
    world.cluster.leave(POD, grace=0)
    last = await world.until(lambda seen: seen.ended)
    assert last.lost
    assert "n1" in (last.failure or "")
    assert (("Pod", SPACE, POD), 0) in world.cluster.deletions


@scenario
async def test_a_pod_that_the_cluster_refuses_fails_the_task_with_its_words(world: World) -> None:
    await world.open()
    await world.runtime.run(SPEC)  # makes the namespace
    other = "e" * 32
    world.cluster.refusals.append(ApiError(422, "Invalid", "spec.containers[0].image: Required value"))
    spec = TaskSpec(
        id=other, arn="a", region="us-east-1", cluster="prod", family="web", revision=1, namespace=SPACE,
        pod=f"web-{other}", containers=SPEC.containers,
    )  # fmt: skip
    await world.runtime.run(spec)
    seen = await world.until(lambda seen: seen.task_id == other)
    assert seen.ended
    assert "spec.containers[0].image" in (seen.failure or "")


async def emptied(world: World, *kinds: str) -> None:
    """Wait until there are no objects of these kinds."""
    async with asyncio.timeout(5):
        while any(kind in kinds for kind, _, _ in world.cluster.objects):
            await asyncio.sleep(0)


@scenario
async def test_the_secret_of_a_pod_that_is_refused_goes_too(world: World) -> None:
    await world.open()
    await world.runtime.run(SPEC)  # makes the namespace

    apply = world.cluster.apply

    async def refuse_pods(manifest: dict[str, object]) -> dict[str, object]:
        if manifest["kind"] == "Pod":
            raise ApiError(403, "Forbidden", "exceeded quota")
        return await apply(manifest)  # type: ignore[arg-type]

    world.cluster.apply = refuse_pods  # type: ignore[method-assign,assignment]
    other = replace(HIDING, id="e" * 32, pod="web-" + "e" * 32)
    await world.runtime.run(other)
    seen = await world.until(lambda seen: seen.task_id == other.id)
    assert "exceeded quota" in (seen.failure or "")
    assert not [key for key in world.cluster.objects if key[0] == "Secret"]


@scenario
async def test_a_pod_that_was_made_without_an_answer_is_the_task_s(world: World) -> None:
    await world.open()
    world.cluster.unanswered.add("Pod")
    with pytest.raises(Unreachable):
        await world.runtime.run(SPEC)
    uid = world.cluster.pod(POD)["metadata"]["uid"]
    await asyncio.sleep(0.01)  # the watch tells of it
    await world.runtime.run(SPEC)
    world.cluster.update(POD, **RUNNING)
    await world.until(lambda seen: seen.containers and seen.containers[0].status == "RUNNING")
    assert world.cluster.pod(POD)["metadata"]["uid"] == uid
    assert world.cluster.deletions == []


@pytest.mark.parametrize("told", [False, True], ids=["the watch is late", "the watch told of it"])
@scenario
async def test_a_stop_ends_a_pod_that_was_made_without_an_answer(world: World, told: bool) -> None:
    await world.open()
    await asyncio.sleep(0.01)
    world.cluster.unanswered.add("Pod")
    with pytest.raises(Unreachable):
        await world.runtime.run(HIDING)
    if told:
        await asyncio.sleep(0.01)
    await world.runtime.stop(TASK)
    last = await world.until(lambda seen: seen.ended)
    assert not last.lost
    await emptied(world, "Pod", "Secret")


@scenario
async def test_a_stop_of_what_was_never_made_leaves_no_secret_and_is_no_loss(world: World) -> None:
    await world.open()
    world.cluster.unanswered.add("Secret")
    with pytest.raises(Unreachable):
        await world.runtime.run(HIDING)
    assert [key for key in world.cluster.objects if key[0] == "Secret"]
    await world.runtime.stop(TASK)
    last = await world.until(lambda seen: seen.ended)
    assert (last.lost, last.placed) == (False, False)
    await emptied(world, "Secret")


@scenario
async def test_a_pod_that_appears_after_its_task_is_over_is_deleted(world: World) -> None:
    await world.open()
    world.cluster.refusals.append(ApiError(503, "ServiceUnavailable", "later"))
    with pytest.raises(ApiError):
        await world.runtime.run(HIDING)
    await world.runtime.stop(TASK)
    await world.until(lambda seen: seen.ended)
    secret = manifests.secret(HIDING, OWNER)
    assert secret is not None
    world.cluster.put(secret)
    world.cluster.put(manifests.pod(HIDING, OWNER, sleep_action=True))
    await emptied(world, "Pod", "Secret")


@scenario
async def test_what_may_pass_is_raised_and_the_next_try_works(world: World) -> None:
    await world.open()
    world.cluster.refusals.append(ApiError(503, "ServiceUnavailable", "later"))
    with pytest.raises(ApiError):
        await world.runtime.run(SPEC)
    await world.runtime.run(SPEC)
    assert ("Pod", SPACE, POD) in world.cluster.objects


@scenario
async def test_a_task_waits_for_credentials_that_are_accepted_and_the_watches_say_why(world: World) -> None:
    await world.open()
    world.cluster.refusals.append(ApiError(401, "Unauthorized", "Unauthorized"))
    with pytest.raises(ApiError):
        await world.runtime.run(SPEC)
    assert world.cluster.roused == 1, "the watches look whether they are refused, too"
    await asyncio.sleep(0.01)
    world.cluster.reports["Pod"](ApiError(401, "Unauthorized", "Unauthorized"))
    world.cluster.refusals.append(ApiError(401, "Unauthorized", "Unauthorized"))
    with pytest.raises(ApiError):
        await world.runtime.run(SPEC)
    assert world.cluster.roused == 1, "they have said so already"
    await world.runtime.run(SPEC)
    assert ("Pod", SPACE, POD) in world.cluster.objects


@scenario
async def test_a_namespace_of_another_is_not_used(world: World) -> None:
    world.cluster.put(manifests.namespace(SPACE, OTHER, "us-east-1", "prod"))
    await world.open()
    await world.runtime.run(SPEC)
    seen = await world.until(lambda seen: seen.ended)
    assert "was not made by this instance" in (seen.failure or "")


@scenario
async def test_following_a_log_waits_for_the_container(world: World) -> None:
    await world.open()
    await world.runtime.run(SPEC)
    lines = world.runtime.logs(TASK, "app", follow=True)
    first = aio.create_task(anext(lines), name="first line")
    await asyncio.sleep(0)
    assert world.cluster.log_reads == []
    world.cluster.write(POD, "app", b"hello\n")
    world.cluster.update(POD, **RUNNING)
    assert await first == b"hello\n"
    await lines.aclose()  # type: ignore[attr-defined]


@scenario
async def test_nothing_is_kept_of_a_task_that_is_forgotten(world: World) -> None:
    await running(world)
    world.cluster.write(POD, "app", b"x", end=True)
    world.cluster.update(POD, **ended(0))
    await world.until(lambda seen: seen.ended)
    await world.runtime.forget(TASK)
    assert not (world.folder / TASK).exists()
    with pytest.raises(KecsError):
        await anext(world.runtime.logs(TASK, "app", follow=False))


@scenario
async def test_opening_deletes_the_logs_of_tasks_that_cannot_be_described(world: World) -> None:
    for task in ("kept", "gone"):
        (world.folder / task).mkdir(parents=True)
    await world.open(keep=("kept",))
    assert [each.name for each in world.folder.iterdir()] == ["kept"]


@scenario
async def test_an_exposure_is_a_service_with_its_node_port(world: World) -> None:
    await world.open()
    await world.runtime.expose(EXPOSURE)
    assert await world.runtime.exposures() == [EXPOSURE]
    await world.runtime.withdraw(SPACE, "web")
    assert await world.runtime.exposures() == []


@scenario
async def test_a_node_port_that_another_has_is_named(world: World) -> None:
    await world.open()
    await world.runtime.run(SPEC)
    text = "spec.ports[0].nodePort: Invalid value: 30080: provided port is already allocated"
    world.cluster.refusals.append(ApiError(422, "Invalid", text))
    with pytest.raises(NodePortTakenError) as caught:
        await world.runtime.expose(EXPOSURE)
    assert caught.value.port == 30080


@scenario
async def test_a_service_that_somebody_changes_or_deletes_has_drifted(world: World) -> None:
    await world.open()
    await world.runtime.expose(EXPOSURE)
    drift = world.runtime.drift()
    item = world.cluster.objects["Service", SPACE, "web"]
    item["spec"]["ports"][0]["nodePort"] = 30081
    world.cluster.put(item)
    async with asyncio.timeout(5):
        assert await anext(drift) == (SPACE, "web")
        await world.runtime.expose(EXPOSURE)
        world.cluster.remove("Service", "web")
        assert await anext(drift) == (SPACE, "web")


@pytest.mark.parametrize(
    "change",
    [
        lambda spec: spec["selector"].update({"app": "theirs"}),
        lambda spec: spec["ports"][0].update(targetPort=8080),
        lambda spec: spec.update(type="LoadBalancer"),
        lambda spec: spec["ports"].append({"port": 81, "protocol": "TCP"}),
    ],
    ids=["selector", "targetPort", "type", "another port"],
)
@scenario
async def test_a_service_that_leads_elsewhere_has_drifted(
    world: World, change: Callable[[Any], None]
) -> None:
    await world.open()
    await world.runtime.expose(EXPOSURE)
    drift = world.runtime.drift()
    item = copy.deepcopy(world.cluster.objects["Service", SPACE, "web"])
    change(item["spec"])
    world.cluster.put(item)
    async with asyncio.timeout(5):
        assert await anext(drift) == (SPACE, "web")


@scenario
async def test_what_the_cluster_adds_to_a_service_is_no_drift(world: World) -> None:
    await world.open()
    await world.runtime.expose(EXPOSURE)
    item = copy.deepcopy(world.cluster.objects["Service", SPACE, "web"])
    item["spec"] |= {"clusterIP": "10.96.0.7", "sessionAffinity": "None"}
    item["spec"]["ports"][0]["appProtocol"] = "http"
    world.cluster.put(item)
    world.cluster.put(item | {"metadata": item["metadata"] | {"resourceVersion": "2"}})
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await anext(world.runtime.drift())


@scenario
async def test_trouble_of_any_watch_is_told_until_it_goes_on(world: World) -> None:
    await world.open()
    await asyncio.sleep(0.01)
    reports = world.cluster.reports
    assert world.runtime.trouble is None
    reports["Node"](ApiError(403, "Forbidden", "nodes is forbidden"))
    assert "nodes is forbidden" in (world.runtime.trouble or (0, ""))[1]
    reports["Pod"](Unreachable("no route"))
    assert "no route" in (world.runtime.trouble or (0, ""))[1]
    reports["Pod"](None)
    assert "nodes is forbidden" in (world.runtime.trouble or (0, ""))[1]
    reports["Node"](None)
    assert world.runtime.trouble is None


@scenario
async def test_another_s_service_is_not_withdrawn(world: World) -> None:
    world.cluster.put(manifests.service(EXPOSURE, OTHER))
    await world.open()
    await world.runtime.withdraw(SPACE, "web")
    assert ("Service", SPACE, "web") in world.cluster.objects


@scenario
async def test_nodes_are_told_whole_and_only_when_something_matters(world: World) -> None:
    await world.open()
    told = world.runtime.nodes()
    ready = {"type": "Ready", "status": "True", "lastHeartbeatTime": "1"}
    addresses = [
        {"type": "Hostname", "address": "n1"},
        {"type": "InternalIP", "address": "10.77.0.2"},
        {"type": "ExternalIP", "address": "198.51.100.7"},
    ]
    node = {
        "kind": "Node",
        "metadata": {"name": "n1"},
        "status": {"conditions": [ready], "addresses": addresses},
    }
    async with asyncio.timeout(5):
        assert await anext(told) == []
        world.cluster.put(node)
        expected = NodeObserved(name="n1", addresses=["198.51.100.7", "10.77.0.2"], ready=True)
        assert await anext(told) == [expected]
        node["status"]["conditions"] = [ready | {"lastHeartbeatTime": "2"}]  # type: ignore[index]
        world.cluster.put(node)
        node["status"]["conditions"] = [ready | {"status": "Unknown"}]  # type: ignore[index]
        world.cluster.put(node)
        [seen] = await anext(told)
        assert not seen.ready


@scenario
async def test_destroy_deletes_our_namespaces_only(world: World) -> None:
    await world.open()
    await world.runtime.run(SPEC)
    world.cluster.put(manifests.namespace("theirs", OTHER, "us-east-1", "prod"))
    (pod,) = (key for key in world.cluster.objects if key[0] == "Pod")
    said: list[str] = []
    assert await destroy(world.cluster, OWNER, said.append) == 1  # type: ignore[arg-type]
    assert ("Namespace", None, SPACE) not in world.cluster.objects
    assert ("Namespace", None, "theirs") in world.cluster.objects
    assert SPACE in said[0]
    assert (pod, GRACE) in world.cluster.deletions, "and nobody waits until a pod has drained"

"""How KECS talks to a real API server: all credentials, all refusals, watches over its restarts."""

from __future__ import annotations

import asyncio
import json
import stat
import sys
import time
from contextlib import aclosing, closing

import pytest
from tests.cluster import pods
from tests.cluster.harness import certificates
from tests.cluster.harness.controlplane import ADMIN_TOKEN, POWERLESS_TOKEN

from kecs import aio
from kecs.errors import ExitCode
from kecs.kube import upgrade
from kecs.kube.access import Access
from kecs.kube.advice import advice
from kecs.kube.client import KubeClient
from kecs.kube.errors import ApiError, PodGone, Unreachable
from kecs.kube.upgrade import open_portforward
from kecs.kube.watch import Changed, Synced
from kecs.runtimes.kubernetes.log_stream import Life, follow
from kecs.runtimes.kubernetes.stamped_lines import StampedLines
from kecs.wire import portforward, websocket

NOTICED = 40.0
"""Seconds within which a server that vanished is noticed: keep-alive gives up after 25, a connect after 5."""


def call(access, action):
    """Do `action(client)`."""

    async def run():
        client = KubeClient(access)
        try:
            return await action(client)
        finally:
            await client.close()

    return asyncio.run(run())


def namespaces(access):
    return call(access, lambda client: client.list("Namespace", None, {}))


def shown(access):
    """The error that a person is shown for a refused or failed list."""
    with pytest.raises((ApiError, Unreachable)) as raised:
        namespaces(access)
    error = advice(raised.value, access)
    assert error.exit_code is ExitCode.UNREACHABLE
    return error


def plugin(folder, token):
    path = folder / "plugin"
    credential = {
        "kind": "ExecCredential",
        "apiVersion": "client.authentication.k8s.io/v1",
        "status": {"token": token},
    }
    path.write_text(f"#!{sys.executable} -IS\nprint({json.dumps(json.dumps(credential))})\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return {
        "exec": {
            "apiVersion": "client.authentication.k8s.io/v1",
            "command": str(path),
            "interactiveMode": "IfAvailable",
        }
    }


@pytest.fixture
def kubeconfig_for(own, tmp_path):
    def write(user):
        return Access.load(own.kubeconfig_for(tmp_path / "kubeconfig", user))

    return write


def test_the_clusters_own_kubeconfig_opens_it(cluster):
    found, version = namespaces(Access.load(cluster.kubeconfig))
    assert "kube-system" in {each["metadata"]["name"] for each in found}
    assert int(version) > 0


@pytest.mark.parametrize("kind", ["certificate data", "certificate files", "token", "token file", "plugin"])
def test_every_kind_of_credentials_opens_it(own, kubeconfig_for, tmp_path, kind):
    pair = own.controlplane.admin
    (tmp_path / "token").write_text(ADMIN_TOKEN + "\n")
    users = {
        "certificate data": certificates.of_client(pair),
        "certificate files": {"client-certificate": str(pair.certificate), "client-key": str(pair.key)},
        "token": {"token": ADMIN_TOKEN},
        "token file": {"tokenFile": "token"},
        "plugin": plugin(tmp_path, ADMIN_TOKEN),
    }
    access = kubeconfig_for(users[kind])
    assert namespaces(access)[0]
    with pytest.raises(PodGone):
        open_portforward(access, "default", "no-such-pod", timeout=10)


@pytest.mark.parametrize(
    "user", [{"token": "wrong"}, {"username": "alice", "password": "wrong"}], ids=["token", "password"]
)
def test_credentials_that_the_server_does_not_know_are_told(kubeconfig_for, user):
    error = shown(kubeconfig_for(user))
    assert "does not accept" in error.message
    assert "wrong" not in error.message
    assert "log in" in error.hint


def test_an_expired_certificate_is_told_with_its_date(own, kubeconfig_for):
    error = shown(kubeconfig_for(certificates.of_client(own.authority.expired("late", "system:masters"))))
    assert "expired on 2020-01-02" in error.message


def test_a_missing_right_is_named(kubeconfig_for):
    error = shown(kubeconfig_for({"token": POWERLESS_TOKEN}))
    assert "`list` on `namespaces` in the whole cluster" in error.hint


def test_a_right_to_port_forward_that_is_missing_is_named(kubeconfig_for):
    access = kubeconfig_for({"token": POWERLESS_TOKEN})
    with pytest.raises(ApiError) as raised:
        open_portforward(access, "default", "any", timeout=10)
    assert "`create` on `pods/portforward` in namespace default" in advice(raised.value, access).hint


def test_another_authority_is_told(own, tmp_path):
    other = certificates.Authority(tmp_path / "other").pair.certificate
    path = certificates.write_kubeconfig(
        tmp_path / "k", own.controlplane.server, other, {"token": ADMIN_TOKEN}
    )
    assert "not signed by the kubeconfig's authority" in shown(Access.load(path)).message


def test_a_taken_node_port_is_told_with_its_cause(cluster, namespace):
    async def take_twice(client):
        service = pods.node_port("first", namespace)
        port = (await client.apply(service))["spec"]["ports"][0]["nodePort"]
        second = pods.node_port("second", namespace)
        second["spec"]["ports"][0]["nodePort"] = port
        with pytest.raises(ApiError) as raised:
            await client.apply(second)
        assert raised.value.status == 422
        [cause] = raised.value.causes
        assert cause.field == "spec.ports[0].nodePort"
        assert "provided port is already allocated" in cause.message

    call(Access.load(cluster.kubeconfig), take_twice)


def test_another_object_of_the_same_name_is_not_deleted(cluster, namespace):
    async def scene(client):
        secret = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "one", "namespace": namespace},
            "stringData": {"a": "b"},
        }
        made = await client.create(secret)
        assert await client.delete("Secret", namespace, "one", uid="0000") is False
        assert await client.delete("Secret", namespace, "one", uid=made["metadata"]["uid"]) is True
        assert await client.delete("Secret", namespace, "one") is False

    call(Access.load(cluster.kubeconfig), scene)


def test_a_list_of_many_comes_in_pages(cluster, namespace):
    async def scene(client):
        labels = {"test": "pages"}
        for number in range(502):
            await client.create(
                {
                    "apiVersion": "v1",
                    "kind": "Event",
                    "metadata": {"name": f"e{number}", "namespace": namespace, "labels": labels},
                    "involvedObject": {"namespace": namespace},
                }
            )
        found, _ = await client.list("Event", namespace, labels)
        assert len({each["metadata"]["name"] for each in found}) == 502

    call(Access.load(cluster.kubeconfig), scene)


@pytest.fixture
def web(kubectl, namespace):
    """The namespace of a ready pod `web`."""
    kubectl.apply(pods.server("web", namespace))
    kubectl("wait", "--for=condition=Ready", "pod/web", "--namespace", namespace, "--timeout=50s")
    return namespace


@pytest.mark.parametrize("over", ["spdy", "websocket"])
def test_a_pod_answers_through_a_port_forward(cluster, web, over):
    upgraded = open_portforward(Access.load(cluster.kubeconfig), web, "web", timeout=10, over=over)
    with closing(upgraded.sock) as sock:
        assert upgraded.framing == over
        sock.settimeout(10)
        frames = websocket.Framing() if over == "websocket" else None
        client = portforward.Client()
        connection = client.open(8080)
        client.send(connection, b"GET / HTTP/1.0\r\n\r\n")
        for piece in frames.wrap(client.session.take()) if frames else client.session.take():
            sock.sendall(piece)
        answer = b""
        while b"1 web" not in answer:
            data = sock.recv(65536)
            assert data, answer
            for piece in frames.receive(data) if frames else [data]:
                answer += b"".join(what for _, what in client.receive(piece) if isinstance(what, memoryview))
    assert answer.startswith(b"HTTP/1.")


def test_what_a_container_writes_comes_while_it_runs(cluster, kubectl, namespace):
    kubectl.apply(pods.shell("talk", "echo one; read line < /dev/null; echo two", namespace))
    kubectl(
        *("wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/talk"),
        *("--namespace", namespace, "--timeout=50s"),
    )

    async def read(client):
        return b"".join(
            [part async for part in client.logs(namespace, "talk", "shell", follow=True, timestamps=True)]
        )

    lines = call(Access.load(cluster.kubeconfig), read).decode().splitlines()
    assert [line.split(" ", 1)[1] for line in lines] == ["one", "two"]


@pytest.mark.usefixtures("quiet")
def test_a_log_is_followed_over_restarts_of_the_kubelet_and_the_api_server(own, kubectl, namespace):
    """What a container writes meanwhile, half a line and lines of more than one entry too, comes once."""
    script = (
        "for n in $(seq 300); do printf half; sleep 0.1; printf ' %s\\n%020000d\\n' $n $n >&2; echo $n; done"
    )
    kubectl.apply(pods.shell("talk", script, namespace, nodeName=own.nodes[0].name))
    phase = "--for=jsonpath={.status.phase}"
    kubectl("wait", f"{phase}=Running", "pod/talk", "--namespace", namespace, "--timeout=50s")
    writer = Talking(namespace)

    async def scene(client):
        told, lines = [], 0
        breaks = {20: own.nodes[0].kubelet.restart, 320: own.controlplane.apiserver.restart}
        async with asyncio.timeout(90), aclosing(follow(client, writer, "shell", StampedLines())) as parts:
            async for part in parts:
                told.append(part)
                lines += part.count(b"\n")
                for due in [least for least in breaks if lines > least]:
                    await asyncio.to_thread(breaks.pop(due))
                if lines == 900:
                    writer.now = Life.HAS_ENDED
        assert not breaks
        return b"".join(told)

    told = call(Access.load(own.kubeconfig), scene)
    own.wait_ready()
    kubectl("wait", f"{phase}=Succeeded", "pod/talk", "--namespace", namespace, "--timeout=50s")
    assert told == kubectl("logs", "talk", "--namespace", namespace).encode()


class Talking:
    """The pod `talk`, of which the test says what is known (`log_stream.Writer`)."""

    task_id = "talk"

    def __init__(self, namespace):
        self.place = (namespace, "talk")
        self.changed = asyncio.Event()
        self.now = Life.GOES_ON

    def life(self, _container):
        return self.now


class Following:
    """A watch of one namespace's Secrets, driven by a task."""

    def __init__(self, client, namespace):
        self.namespace = namespace
        self.events = asyncio.Queue()
        self.reports = asyncio.Queue()
        self._watch = client.watch("Secret", {"test": "watch"}, namespace, report=self.reports.put_nowait)
        self._task = aio.create_task(self._follow(), name="follow")

    async def __aenter__(self):
        assert isinstance(await self.events.get(), Synced)
        return self

    async def __aexit__(self, *_):
        await aio.cancel(self._task)

    async def _follow(self):
        async with aclosing(self._watch) as events:
            async for event in events:
                self.events.put_nowait(event)

    async def _create(self, client, name):
        metadata = {"name": name, "namespace": self.namespace, "labels": {"test": "watch"}}
        await client.create({"apiVersion": "v1", "kind": "Secret", "metadata": metadata})

    async def hears(self, client, name):
        await self._create(client, name)
        async with asyncio.timeout(20):
            event = await self.events.get()
        assert isinstance(event, Changed), "nothing was listed again"
        assert event.object["metadata"]["name"] == name

    async def hears_in_a_list_or_after_it(self, client, name, known):
        """Like `hears`, of a server that may have forgotten what came after the last version told here.

        One that starts anew remembers changes from then on: whether anybody (a lease, an event) wrote
        between that version and its start is chance, and only then the watch cannot be resumed.
        """
        await self._create(client, name)
        told = set()
        async with asyncio.timeout(20):
            while name not in told:
                event = await self.events.get()
                if isinstance(event, Synced):
                    told = {item["metadata"]["name"] for item in event.objects}
                    assert told >= known
                else:
                    assert isinstance(event, Changed)
                    told.add(event.object["metadata"]["name"])
        assert told <= known | {name}


@pytest.mark.usefixtures("quiet")
def test_a_watch_goes_on_over_a_restart_of_the_api_server(own, namespace):
    async def scene(client):
        async with Following(client, namespace) as watch:
            await watch.hears(client, "before")
            own.controlplane.apiserver.restart()
            async with asyncio.timeout(60):
                assert isinstance(await watch.reports.get(), Unreachable)
                while await watch.reports.get() is not None:
                    pass
            await asyncio.to_thread(own.wait_ready)
            await watch.hears_in_a_list_or_after_it(client, "after", {"before"})

    call(Access.load(own.kubeconfig), scene)


@pytest.mark.usefixtures("quiet")
def test_an_api_server_that_vanishes_without_a_word_is_noticed(own, namespace):
    async def scene(client):
        async with Following(client, namespace) as watch:
            await watch.hears(client, "before")
            own.cut_controlplane()
            began = time.monotonic()
            try:
                async with asyncio.timeout(NOTICED):
                    assert isinstance(await watch.reports.get(), Unreachable)
            finally:
                own.mend_controlplane()
            assert time.monotonic() - began < NOTICED
            async with asyncio.timeout(30):
                while await watch.reports.get() is not None:
                    pass
            await asyncio.to_thread(own.wait_ready)
            await watch.hears(client, "after")

    call(Access.load(own.kubeconfig), scene)


@pytest.fixture(autouse=True)
def nothing_remembered(monkeypatch):
    monkeypatch.setattr(upgrade, "_worked", {})

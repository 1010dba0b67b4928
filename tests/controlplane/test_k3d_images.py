"""Images of a (scripted) Docker come into the nodes of a (scripted) k3d cluster."""

import asyncio
import subprocess
import sys
import time

import pytest
from tests.k3d.scripted import ScriptedK3d

from kecs import files
from kecs.client.instance import Instance, K3d
from kecs.controlplane import cluster as clusters
from kecs.controlplane.images import Images, Never
from kecs.controlplane.k3d_images import K3dImages
from kecs.errors import KecsError
from kecs.k3d.cluster import K3dCluster, Wanted
from kecs.k3d.lock import Lock
from kecs.k3d.tools import find
from kecs.paths import InstancePaths

ID = "sha256:" + "c" * 64
OTHER = "sha256:" + "d" * 64
TOOLS = "k3d-kecs-default-tools"


def instance(**members):
    return Instance(
        name="default", id="0123abcd", runtime="k3d", region="us-east-1", api_port=5373, access_key_id="K",
        directory="/", created_at=1.0, k3d=K3d(cluster="kecs-default", api_port=16443, **members),
    )  # fmt: skip


@pytest.fixture
def paths(short_path):
    return InstancePaths(short_path, "default")


@pytest.fixture
def docker(tmp_path, paths, monkeypatch):
    """A machine with both programs, a cluster with two nodes that run pods, and `myapp:dev` in Docker."""
    with ScriptedK3d(tmp_path / "k3d") as one:
        monkeypatch.setenv("PATH", one.environment["PATH"])
        K3dCluster(find(one.environment), "kecs-default", paths.root).create(
            Wanted(
                name="kecs-default", instance_id="0123abcd", api_port=16443, balancer_api_port=16444,
                node_ports=range(0), load_balancer=True, agents=1,
            )
        )  # fmt: skip
        one.configure(images={"myapp:dev": ID})
        one.forget_calls()
        yield one


@pytest.fixture
def source(paths, docker):
    return K3dImages(paths, instance())


def in_nodes(docker):
    return [
        sorted(name for name in each["images"] if ":" in name and not name.startswith("sha256:"))
        for each in docker.state["containers"].values()
        if each["role"] in ("server", "agent")
    ]


def quiet(_text):
    pass


async def nothing(_image, _image_id):
    pass


def test_an_image_is_known_by_its_id_in_docker(source, paths, docker):
    assert source.local_id("myapp:dev") == ID
    assert source.local_id("nosuch:dev") is None
    assert source.has("myapp:dev", ID) is False
    told = []
    source.bring("myapp:dev", ID, told.append)
    assert any("into node 'k3d-kecs-default-server-0'" in text for text in told)
    assert source.has("myapp:dev", ID) is True
    assert source.has("myapp:dev", OTHER) is False, "it was built anew"
    docker.configure(images={"myapp:dev": OTHER})
    source.bring("myapp:dev", OTHER, quiet)
    assert in_nodes(docker) == [["docker.io/library/myapp:dev"]] * 2
    assert (source.has("myapp:dev", ID), source.has("myapp:dev", OTHER)) == (False, True)
    assert K3dImages(paths, instance()).has("myapp:dev", OTHER) is True, "so says the next process"


def test_a_node_that_refuses_an_image_is_noticed_though_k3d_says_that_all_went_well(source, docker):
    docker.faults(import_refused=["tools-node", "direct", "hand"])
    with pytest.raises(KecsError) as caught:
        source.bring("myapp:dev", ID, quiet)
    for words in ("mode tools-node", "mode direct", "docker save", "failed to dial", "unexpected EOF"):
        assert words in caught.value.message


def test_what_a_node_refuses_from_k3d_it_may_take_without(source, docker):
    docker.faults(import_refused=["tools-node", "direct"])
    source.bring("myapp:dev", ID, quiet)
    assert source.has("myapp:dev", ID)


def test_close_ends_an_import_that_hangs_and_leaves_no_program_and_no_container(source, docker):
    docker.faults(import_hangs=["tools-node"])
    docker.hold("import:importing")

    async def main():
        images = Images(source)
        bringing = asyncio.gather(images.bring(["myapp:dev"], nothing), return_exceptions=True)
        [pid] = await asyncio.to_thread(docker.wait_held, "import:importing")
        docker.release("import:importing")
        assert images.progress(["myapp:dev"]).startswith("image myapp:dev is being imported from Docker")
        begun = time.monotonic()
        await images.close()
        await bringing
        return pid, begun

    pid, begun = asyncio.run(main())
    docker.wait_for(lambda states: TOOLS not in states)
    assert not docker._is_ours(pid)
    assert time.monotonic() - begun < 10
    with pytest.raises(KecsError, match="was ended"):
        source.local_id("myapp:dev")


def test_close_ends_the_wait_for_the_import_of_another_process(source, docker, paths):
    async def main():
        images = Images(source)
        waiting = "another command is working on the k3d cluster"
        with files.locked(paths.root / "k3d-import.lock"):
            bringing = asyncio.gather(images.bring(["myapp:dev"], nothing), return_exceptions=True)
            async with asyncio.timeout(20):
                while waiting not in (images.progress(["myapp:dev"]) or ""):
                    await asyncio.sleep(0.01)
            await images.close()
            await bringing
            await asyncio.to_thread(images._threads.shutdown)

    asyncio.run(main())
    assert docker.calls("image", "import") == []


def test_an_import_outlives_a_kecs_that_is_killed_and_the_next_one_waits_for_it(source, docker, paths):
    docker.hold("import:importing")
    program = (
        "import os; from pathlib import Path; from kecs.k3d import cluster, images, tools; "
        f"it = cluster.K3dCluster(tools.find(os.environ), 'kecs-default', Path({str(paths.root)!r})); "
        "images.import_image(it, 'myapp:dev')"
    )
    process = subprocess.Popen([sys.executable, "-c", program], env=docker.environment)
    docker.wait_held("import:importing")
    process.kill()
    process.wait()
    assert Lock(paths.root / "k3d-import.lock").is_busy()
    docker.release("import:importing")
    source.bring("myapp:dev", ID, quiet)
    assert source.has("myapp:dev", ID)


def test_docker_that_does_not_answer_holds_no_task_up(source, docker):
    docker.faults(docker_down=True)

    async def main():
        images = Images(source)
        try:
            [found] = await images.bring(["myapp:dev"], nothing)
        finally:
            await images.close()
        return found

    tried = asyncio.run(main()).tried
    assert "Cannot connect to the Docker daemon" in tried
    assert tried.startswith("it was not imported from Docker on this machine: ")


def test_a_machine_without_the_programs_holds_no_task_up(paths, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))

    async def main():
        images = Images(K3dImages(paths, instance()))
        try:
            return await images.bring(["myapp:dev"], nothing)
        finally:
            await images.close()

    assert "not on PATH: `k3d` and `docker`" in asyncio.run(main())[0].tried


def test_many_tasks_ask_docker_little_and_import_once(source, docker):
    async def main():
        images = Images(source)
        try:
            first = await asyncio.gather(*(images.bring(["myapp:dev", "no:1"], nothing) for _ in range(10)))
            again = await images.bring(["myapp:dev"], nothing)
        finally:
            await images.close()
        return first, again

    first, again = asyncio.run(main())
    assert {tuple(each.how for each in found) for found in first} == {("imported", "absent")}
    assert again[0].how == "there"
    assert len(docker.calls("image", "import")) == 1
    assert len(docker.calls("image", "inspect", program="docker")) < 6


def test_only_a_cluster_of_ones_own_gets_images(paths, short_path):
    never = instance(import_images="never")
    assert isinstance(clusters._images(paths, never), Never)
    assert isinstance(clusters._images(paths, instance()), Images)
    assert clusters._images(paths, Instance(
        name="default", id="0", region="r", api_port=1, access_key_id="K", directory="/", created_at=1.0
    )) is None  # fmt: skip

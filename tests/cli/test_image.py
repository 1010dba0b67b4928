"""`kecs image import` on a scripted k3d and Docker: what a person sees, and what the nodes have then."""

import os
import signal
import subprocess
import sys

import pytest
from tests.k3d.scripted import ScriptedK3d

from kecs.client.instance import K3d, Kubernetes
from kecs.errors import ExitCode
from kecs.k3d.cluster import K3dCluster, Wanted
from kecs.k3d.tools import find

ID = "sha256:" + "c" * 64
OWN = K3d(cluster="kecs-default", api_port=16443, created=True)
OTHERS = Kubernetes(kubeconfig="/k", context="kind", cluster_uid="u")


@pytest.fixture
def docker(tmp_path, home, monkeypatch):
    """A machine with both programs, the instance's cluster, and two images in Docker."""
    with ScriptedK3d(tmp_path / "k3d") as one:
        monkeypatch.setenv("PATH", one.environment["PATH"])
        home.instance(runtime="k3d", k3d=OWN, kubernetes=OTHERS)
        one.configure(images={"myapp:dev": ID, "team/db": "sha256:" + "d" * 64})
        yield one


@pytest.fixture
def cluster(docker, home):
    made = K3dCluster(find(docker.environment), "kecs-default", home.paths.root)
    made.create(
        Wanted(
            name="kecs-default", instance_id="0123abcd", api_port=16443, balancer_api_port=None,
            node_ports=range(0), load_balancer=False,
        )
    )  # fmt: skip
    return made


def in_node(docker):
    [server] = [each for each in docker.state["containers"].values() if each["role"] == "server"]
    return sorted(name for name in server["images"] if not name.startswith("sha256:"))


def test_images_are_imported_with_progress_and_the_nodes_have_them(kecs, docker, cluster):
    ran = kecs("image", "import", "myapp:dev", "team/db", "myapp:dev")
    assert (ran.code, ran.out) == (ExitCode.DONE, "")
    for name, digits in (("myapp:dev", "c" * 12), ("team/db", "d" * 12)):
        assert f"imported `{name}` ({digits}) into the cluster `kecs-default` in " in ran.err
    assert ran.err.count("imported `") == 2
    assert "into node 'k3d-kecs-default-server-0'" in ran.err
    assert in_node(docker) == ["docker.io/library/myapp:dev", "docker.io/team/db:latest"]


def test_nothing_is_imported_when_docker_lacks_one(fails, docker, cluster):
    fails(
        ExitCode.NOT_FOUND,
        *("image", "import", "myapp:dev", "nosuch:dev"),
        says="Docker on this machine has no image `nosuch:dev`; nothing was imported",
        hint="docker build -t nosuch:dev .",
    )
    assert in_node(docker) == []


def test_a_digest_cannot_be_imported(fails, docker, cluster):
    name = "myapp@sha256:" + "c" * 64
    fails(ExitCode.USAGE, "image", "import", name, says=f"named by its digest cannot be imported: `{name}`")


def test_one_that_fails_keeps_the_others_from_nothing(kecs, docker, cluster):
    docker.faults(import_lost=["tools-node", "direct"], import_refused=["hand"])
    ran = kecs("image", "import", "myapp:dev", "team/db")
    assert ran.code == ExitCode.FAILED
    message = ran.err.partition("error: ")[2]
    for words in (
        "the image `myapp:dev` could not be imported",
        "the image `team/db` could not be imported",
        "it said that all went well, but k3d-kecs-default-server-0 does not have it",
        "hint: see that `docker save myapp:dev` works",
    ):
        assert words in message


def test_an_import_that_hangs_is_ended(kecs, docker, cluster):
    docker.faults(import_hangs=["tools-node"])
    ran = kecs("image", "import", "myapp:dev", "--timeout", "3")
    assert ran.code == ExitCode.FAILED
    assert "did not end within 3 s and was ended" in ran.err
    assert "k3d-kecs-default-tools" not in docker.containers()
    docker.faults()
    assert kecs("image", "import", "myapp:dev").code == ExitCode.DONE


def test_ctrl_c_ends_an_import_and_leaves_nothing_of_it(docker, cluster):
    docker.faults(import_hangs=["tools-node"])
    docker.hold("import:importing")
    environment = {name: value for name, value in os.environ.items() if name.startswith(("KECS_", "PATH"))}
    process = subprocess.Popen(
        [sys.executable, "-m", "kecs", "image", "import", "myapp:dev"],
        env=environment | docker.environment, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        [pid] = docker.wait_held("import:importing")
        docker.release("import:importing")
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=30)[1]
    finally:
        process.kill()
    assert process.returncode == ExitCode.INTERRUPTED, said
    assert "Traceback" not in said
    assert docker.containers() == {"k3d-kecs-default-server-0": "running"}
    assert not docker._is_ours(pid)


def test_a_cluster_that_is_stopped_or_gone_says_so(fails, docker, cluster):
    cluster.stop()
    fails(
        ExitCode.UNREACHABLE,
        *("image", "import", "myapp:dev"),
        says="the cluster `kecs-default` does not run (stopped)",
        hint="kecs start",
    )
    cluster.delete()
    fails(ExitCode.UNREACHABLE, "image", "import", "myapp:dev", says="does not run (absent)")


def test_docker_that_is_down_says_so(fails, docker, cluster):
    docker.faults(docker_down=True)
    fails(
        ExitCode.UNREACHABLE,
        *("image", "import", "myapp:dev"),
        says="Cannot connect to the Docker daemon",
        hint="start Docker",
    )


@pytest.mark.parametrize(
    ("members", "hint"),
    [
        ({"runtime": "local"}, "kecs start --instance NAME --runtime k3d"),
        ({"runtime": "kubernetes", "kubernetes": OTHERS}, "kind load docker-image IMAGE"),
    ],
)
def test_an_instance_without_a_k3d_of_its_own_is_refused(fails, home, members, hint):
    home.instance(**members)
    fails(
        ExitCode.USAGE,
        *("image", "import", "myapp:dev"),
        says=f"has no k3d cluster of its own: its runtime is {members['runtime']}",
        hint=hint,
    )


def test_no_image_and_no_instance(fails, home):
    fails(ExitCode.USAGE, "image", "import")
    fails(ExitCode.NOT_FOUND, "image", "import", "myapp:dev", says="there is no instance `default`")

"""What the nodes have of an image: by its name, and whether it is the one that Docker has."""

from __future__ import annotations

import hashlib
import io
import subprocess
import tarfile

import pytest
from tests.k3d.clusters import Stage
from tests.k3d.real import RealK3d

from kecs.k3d.images import import_image, local_id
from kecs.k3d.node_images import canonical, holding, in_nodes

IMAGE = "kecs-t-image:dev"


@pytest.fixture
def stage(k3d, tmp_path):
    one = Stage(k3d, tmp_path / "instance", agents=1)
    one.create()
    return one


@pytest.fixture
def scripted_stage(scripted, tmp_path):
    one = Stage(scripted, tmp_path / "instance", agents=1)
    one.create()
    return one


def build(k3d, content):
    """Make `IMAGE` in Docker anew, with a file of this content; its id."""
    if isinstance(k3d, RealK3d):
        data = io.BytesIO()
        with tarfile.open(fileobj=data, mode="w") as tar:
            member = tarfile.TarInfo("content")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
        done = subprocess.run(
            ["docker", "import", "-", IMAGE],
            env=k3d.environment, input=data.getvalue(), capture_output=True, check=True,
        )  # fmt: skip
        return done.stdout.decode().strip()
    image_id = f"sha256:{hashlib.sha256(content).hexdigest()}"
    k3d.configure(images={IMAGE: image_id})
    return image_id


def test_an_image_that_was_built_anew_is_another_one(stage):
    first = build(stage.k3d, b"first")
    assert local_id(stage.tools, IMAGE) == first
    assert not in_nodes(stage.cluster, IMAGE)
    assert holding(stage.cluster, IMAGE, first).digests == (None, None)
    import_image(stage.cluster, IMAGE)
    assert in_nodes(stage.cluster, IMAGE)
    before = holding(stage.cluster, IMAGE, first)
    assert before.same
    second = build(stage.k3d, b"second")
    assert second != first
    assert not holding(stage.cluster, IMAGE, second).same
    import_image(stage.cluster, IMAGE)
    after = holding(stage.cluster, IMAGE, second)
    assert after.same
    assert not set(after.digests) & set(before.digests)
    assert not holding(stage.cluster, IMAGE, first).same


def test_docker_may_keep_its_images_as_containerd_does(scripted_stage):
    build(scripted_stage.k3d, b"first")
    import_image(scripted_stage.cluster, IMAGE)
    [digest] = set(holding(scripted_stage.cluster, IMAGE, "sha256:other").digests)
    assert holding(scripted_stage.cluster, IMAGE, digest).same


def test_one_node_that_lacks_it_is_enough(scripted_stage):
    image_id = build(scripted_stage.k3d, b"first")
    import_image(scripted_stage.cluster, IMAGE)
    scripted_stage.k3d.run("kill", f"k3d-{scripted_stage.name}-agent-0", program="docker")
    found = holding(scripted_stage.cluster, IMAGE, image_id)
    assert sorted(digest is None for digest in found.digests) == [False, True]
    assert not found.same
    assert not in_nodes(scripted_stage.cluster, IMAGE)


def test_nodes_that_do_not_answer_have_nothing(scripted_stage):
    image_id = build(scripted_stage.k3d, b"first")
    import_image(scripted_stage.cluster, IMAGE)
    scripted_stage.k3d.faults(ctr_fails=True)
    assert holding(scripted_stage.cluster, IMAGE, image_id).digests == (None, None)
    scripted_stage.k3d.faults()
    scripted_stage.cluster.delete()
    assert not in_nodes(scripted_stage.cluster, IMAGE)
    assert not holding(scripted_stage.cluster, IMAGE, image_id).same


@pytest.mark.parametrize(
    ("image", "name"),
    [
        ("myapp", "docker.io/library/myapp:latest"),
        ("myapp:dev", "docker.io/library/myapp:dev"),
        ("team/myapp", "docker.io/team/myapp:latest"),
        ("docker.io/myapp:1", "docker.io/library/myapp:1"),
        ("docker.io/team/myapp:1", "docker.io/team/myapp:1"),
        ("index.docker.io/library/myapp:1", "docker.io/library/myapp:1"),
        ("localhost/myapp", "localhost/myapp:latest"),
        ("localhost:5000/myapp", "localhost:5000/myapp:latest"),
        ("k3d-registry:5000/team/myapp:1", "k3d-registry:5000/team/myapp:1"),
        ("ghcr.io/team/myapp", "ghcr.io/team/myapp:latest"),
        ("1.dkr.ecr.us-east-1.amazonaws.com/web:1", "1.dkr.ecr.us-east-1.amazonaws.com/web:1"),
        ("myapp@sha256:00", "docker.io/library/myapp@sha256:00"),
    ],
)
def test_names_are_as_containerd_has_them(image, name):
    assert canonical(image) == name

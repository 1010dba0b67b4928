"""Importing images: k3d says that it went well whatever the nodes did, so the nodes are asked."""

from __future__ import annotations

import threading
import time

import pytest
from tests.k3d.clusters import Stage

from kecs.errors import ExitCode, KecsError
from kecs.k3d.images import import_image, local_id
from kecs.k3d.node_images import in_nodes, missing_in

IMAGE = "myapp:dev"
WAYS = ["tools-node", "direct", "hand"]


@pytest.fixture
def stage(scripted, tmp_path):
    scripted.configure(images={IMAGE: "sha256:" + "a" * 64})
    one = Stage(scripted, tmp_path / "instance", agents=1)
    one.create()
    return one


def modes(stage) -> list[str]:
    """The ways that were tried with k3d, in order."""
    return [words[words.index("--mode") + 1] for words in stage.k3d.calls("image", "import")]


def fails(stage, **more) -> KecsError:
    with pytest.raises(KecsError) as caught:
        import_image(stage.cluster, IMAGE, note=stage.notes.append, **more)
    return caught.value


def no_tools_are_left(stage) -> bool:
    return not any("tools" in name for name in stage.k3d.containers())


def test_an_image_comes_into_every_node(stage):
    assert local_id(stage.tools, IMAGE) == "sha256:" + "a" * 64
    assert not in_nodes(stage.cluster, IMAGE)
    import_image(stage.cluster, IMAGE, note=stage.notes.append)
    assert in_nodes(stage.cluster, IMAGE)
    assert modes(stage) == ["tools-node"]
    assert any("Importing images from tarball" in note and "agent-0" in note for note in stage.notes)
    assert no_tools_are_left(stage)


def test_docker_does_not_have_it(stage):
    assert local_id(stage.tools, "nosuch:dev") is None
    with pytest.raises(KecsError, match="the local Docker has no image `nosuch:dev`") as caught:
        import_image(stage.cluster, "nosuch:dev")
    assert caught.value.exit_code == ExitCode.NOT_FOUND
    assert "docker build -t nosuch:dev ." in caught.value.hint
    assert modes(stage) == []


@pytest.mark.parametrize("how", ["import_refused", "import_lost"])
@pytest.mark.parametrize("failing", [1, 2])
def test_what_one_way_does_not_do_another_may(stage, how, failing):
    stage.k3d.faults(**{how: WAYS[:failing]})
    import_image(stage.cluster, IMAGE)
    assert modes(stage) == ["tools-node", "direct"]
    assert in_nodes(stage.cluster, IMAGE)


def test_a_node_refuses_it_whatever_is_tried(stage):
    stage.k3d.faults(import_refused=WAYS)
    error = fails(stage)
    assert error.exit_code == ExitCode.FAILED
    said = "failed to import images in node"
    assert f"`k3d image import {IMAGE} -c {stage.name} --mode tools-node`: {said}" in error.message
    assert f"--mode direct`: {said}" in error.message
    assert f"`docker save {IMAGE} | docker exec -i " in error.message
    assert error.message.endswith("ctr: unexpected EOF")
    assert f"`kecs image import {IMAGE}`" in error.hint
    assert not in_nodes(stage.cluster, IMAGE)
    assert no_tools_are_left(stage)


def test_a_node_that_lost_it_without_a_word_is_named(stage):
    stage.k3d.faults(import_lost=WAYS[:2], import_refused=WAYS[2:])
    error = fails(stage)
    assert (
        f"it said that all went well, but k3d-{stage.name}-agent-0, {stage.server} does not have it"
        in error.message
    )


def test_a_node_whose_containerd_does_not_answer(stage):
    stage.k3d.faults(ctr_fails=True)
    assert missing_in(stage.cluster, IMAGE) == [f"k3d-{stage.name}-agent-0", stage.server]
    assert "does not have it" in fails(stage).message


@pytest.mark.parametrize("way", WAYS)
def test_an_import_that_hangs_is_ended(stage, way):
    stage.k3d.faults(import_refused=WAYS[: WAYS.index(way)], import_hangs=[way])
    begin = time.monotonic()
    error = fails(stage, limit=4.0)
    assert time.monotonic() - begin < 20
    assert "did not end within" in error.message
    assert error.message.count("failed to import images in node") == min(WAYS.index(way), 2)
    assert no_tools_are_left(stage)
    stage.k3d.faults()
    import_image(stage.cluster, IMAGE)


def test_a_stopped_cluster(stage):
    stage.cluster.stop()
    assert not in_nodes(stage.cluster, IMAGE)
    assert "does not have it" in fails(stage).message


def test_one_import_at_a_time(stage):
    """k3d's tools container has one name for all; two imports at once would remove each other's."""
    stage.k3d.hold("import:importing")
    errors = []

    def bring():
        try:
            import_image(stage.another(), IMAGE)
        except KecsError as error:
            errors.append(error)

    threads = [threading.Thread(target=bring) for _ in range(2)]
    for thread in threads:
        thread.start()
    stage.k3d.wait_held("import:importing")
    assert len(stage.k3d.calls("image", "import")) == 1
    stage.k3d.release("import:importing")
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(stage.k3d.calls("image", "import")) == 2


def test_a_stop_does_not_wait_for_an_import(stage):
    stage.k3d.hold("import:importing")
    thread = threading.Thread(target=fails, args=(stage,))
    thread.start()
    stage.k3d.wait_held("import:importing")
    stage.another().stop()
    assert stage.cluster.state()[0] == "stopped"
    stage.k3d.release("import:importing")
    thread.join()

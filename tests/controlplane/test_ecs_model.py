"""botocore's model of ECS is found and read without botocore."""

import asyncio
import gzip
import json
import subprocess
import sys
import threading

import botocore.loaders
import pytest

from kecs.controlplane import ecs_model
from kecs.controlplane.ecs_model import EcsModel
from kecs.errors import KecsError


def without_documentation(value):
    if isinstance(value, dict):
        return {
            key: without_documentation(item)
            for key, item in value.items()
            if key != "documentation" or not isinstance(item, str)
        }
    return [without_documentation(item) for item in value] if isinstance(value, list) else value


def test_the_model_is_the_one_that_botocore_itself_uses():
    """The same document as botocore's loader gives, without its texts."""
    expected = botocore.loaders.Loader().load_service_model("ecs", "service-2")

    document = ecs_model.read_document(ecs_model.find())
    assert document == without_documentation(expected)
    assert ecs_model.load().target_prefix == expected["metadata"]["targetPrefix"]


def test_reading_it_does_not_import_botocore():
    """`import botocore.session` alone would cost 0.3 s and 20 MB."""
    script = (
        "import sys; from kecs.controlplane import ecs_model; ecs_model.load();"
        "sys.exit(any(name.split('.')[0] == 'botocore' for name in sys.modules))"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=30)


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A botocore of the test's own."""
    package = tmp_path / "botocore"
    package.mkdir()
    (package / "__init__.py").write_text("raise ImportError('must not be imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "botocore")
    return package / "data" / "ecs"


def test_the_newest_version_is_taken_plain_or_gzipped(installed):
    """Folders are named by date."""
    document = {"shapes": {"A": {"documentation": "text", "members": {"documentation": {"shape": "B"}}}}}
    for version in ("2014-11-13", "2031-01-02", "2020-05-05"):
        (installed / version).mkdir(parents=True)
    (installed / "2014-11-13" / "service-2.json").write_text("{}")
    (installed / "2031-01-02" / "service-2.json.gz").write_bytes(gzip.compress(json.dumps(document).encode()))
    (installed / "2020-05-05" / "service-2.json").write_text("{}")

    path = ecs_model.find()
    assert path == installed / "2031-01-02" / "service-2.json.gz"
    assert ecs_model.read_document(path) == {"shapes": {"A": {"members": {"documentation": {"shape": "B"}}}}}


def test_a_botocore_without_the_model_is_a_clear_error(installed):
    """Not a traceback of an empty `max`."""
    with pytest.raises(KecsError, match="model of ECS is not installed"):
        ecs_model.find()


def test_it_is_read_once_off_the_loop_and_all_wait_for_it(monkeypatch):
    """Three that ask at once get one reading; one that is cancelled does not end it for the others."""
    reads = []
    release = threading.Event()

    def slow():
        reads.append(threading.current_thread())
        assert release.wait(20)
        return "model"

    async def main():
        model = EcsModel()
        model.start()
        waiting = [asyncio.ensure_future(model.get()) for _ in range(3)]  # noqa: TID251 - awaited below
        await asyncio.sleep(0)
        waiting[0].cancel()
        release.set()
        assert await asyncio.gather(*waiting[1:]) == ["model", "model"]
        assert await model.get() == "model"

    monkeypatch.setattr(ecs_model, "load", slow)
    asyncio.run(main())
    assert len(reads) == 1
    assert reads[0] is not threading.main_thread()

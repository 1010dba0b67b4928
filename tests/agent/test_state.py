"""The agent's files: read back as written, moved aside when torn, refused when newer."""

from __future__ import annotations

import asyncio
import shutil

import msgspec
import pytest
import yaml
from tests.agent.shapes import entry, make_instance, short_home

from kecs import files
from kecs.agent import state
from kecs.client.ports import named_ports
from kecs.errors import ExitCode, KecsError
from kecs.forward.spec import AutoSpec, Notify, Probe, Retry, Target


@pytest.fixture
def paths():
    home = short_home()
    yield make_instance(home)
    shutil.rmtree(home)


def test_what_is_saved_is_loaded(paths):
    entries = [
        entry(target_port_name="http", address=["127.0.0.1"], hold_seconds=5.0, owner="/x/port-forward.yaml"),
        entry(id="pf-00000002", name="t", type="task", ended="task aaaaaaaa is gone"),
    ]
    state.save(paths, state.Config(forwards=entries))

    assert state.load(paths) == (state.Config(forwards=entries), [])


def test_what_files_ask_for_is_kept_whole(paths):
    config = state.Config(
        forwards=[
            entry(
                type="task",
                service=None,
                task_id=None,
                tags={"Environment": "dev"},
                target_port=None,
                target_port_name="http",
                auto_reconnect=False,
                retry=Retry(attempts=3),
                probe=Probe(type="http", path="/up"),
                notify=Notify(desktop=True),
                strict=True,
                owner="/x/port-forward.yaml",
                auto=True,
            )
        ],
        autos=[state.AutoEntry(owner="/x/port-forward.yaml", spec=AutoSpec(clusters=["prod"]))],
        names=state.NamesEntry(port=20900, owners=["", "/x/port-forward.yaml"]),
    )
    state.save(paths, config)

    assert state.load(paths) == (config, [])
    assert named_ports(paths.home, "another") >= {20001, 20900}


def test_a_file_of_the_first_version_is_read(paths):
    old = {
        "version": 1,
        "forwards": [
            {
                "id": "pf-00000001",
                "name": "prod-web",
                "type": "service",
                "region": "us-east-1",
                "cluster": "prod",
                "service": "web",
                "localPort": 20001,
                "targetPort": 80,
                "createdAt": 1.0,
            }
        ],
    }
    paths.forwards_config.write_text(yaml.safe_dump(old))

    assert state.load(paths) == (state.Config(forwards=[entry()]), [])


def test_an_entry_says_what_was_asked_for_and_not_which_task_was_pinned():
    tagged = entry(type="task", service=None, task_id="a" * 32, tags={"A": "b"}, target_port_name="http")

    assert tagged.spec.target == Target(type="task", cluster="prod", tags={"A": "b"}, region="us-east-1")
    assert tagged.spec.target_port == "http"
    assert (tagged.target, tagged.is_pinned) == ("prod/A=b", True)


def test_no_file_is_no_forward(paths):
    assert state.load(paths) == (state.Config(forwards=[]), [])


def test_other_instances_avoid_its_ports(paths):
    state.save(paths, state.Config(forwards=[entry(local_port=20042)]))

    assert 20042 in named_ports(paths.home, "another")


AUTO = {"owner": "/x", "spec": {"clusters": ["prod"]}}


def document(**changes):
    return msgspec.to_builtins(entry()) | changes


@pytest.mark.parametrize(
    "content",
    [
        "{torn",
        "",
        "- a\n- list\n",
        "version: one\nforwards: []\n",
        "version: 1\n",
        "version: 1\nforwards: 7\n",
        yaml.safe_dump({"version": 1, "forwards": [{"id": "x"}]}),
        yaml.safe_dump({"version": 1, "forwards": [document(localPort=0)]}),
        yaml.safe_dump({"version": 1, "forwards": [document(localPort="80")]}),
        yaml.safe_dump({"version": 1, "forwards": [document(id="../../x")]}),
        yaml.safe_dump({"version": 1, "forwards": [document(name="../x")]}),
        yaml.safe_dump({"version": 1, "forwards": [document(type="tunnel")]}),
        yaml.safe_dump({"version": 1, "forwards": [document(service=None)]}),
        yaml.safe_dump({"version": 1, "forwards": [document(type="task", service=None)]}),
        yaml.safe_dump({"version": 1, "forwards": [{**document(), "targetPort": None}]}),
        yaml.safe_dump({"version": 1, "forwards": [document(retry={"jitter": 5})]}),
        yaml.safe_dump({"version": 1, "forwards": [], "autos": [AUTO, AUTO]}),
        yaml.safe_dump({"version": 1, "forwards": [], "names": {"owners": []}}),
        yaml.safe_dump({"version": 1, "forwards": [document(), document(id="pf-00000002")]}),
        yaml.safe_dump({"version": 1, "forwards": [document(), document(name="other")]}),
    ],
)
def test_what_cannot_be_understood_is_moved_aside(paths, content):
    paths.forwards_config.write_text(content)

    config, (warning,) = state.load(paths)

    (aside,) = [file for file in paths.forwards.iterdir() if "unreadable" in file.name]
    assert config == state.Config(forwards=[])
    assert aside.read_text() == content
    assert str(paths.forwards_config) in warning
    assert str(aside) in warning
    assert state.load(paths) == (config, [])


def test_a_newer_file_is_refused_and_stays(paths):
    paths.forwards_config.write_text("version: 2\nforwards: {}\n")
    with pytest.raises(KecsError, match="newer KECS") as caught:
        state.load(paths)

    assert caught.value.exit_code == ExitCode.CONFLICT
    assert paths.forwards_config.read_text() == "version: 2\nforwards: {}\n"


def test_a_member_of_a_later_version_of_the_same_format_does_no_harm(paths):
    content = {"version": 1, "forwards": [document(balance="leastOpen")]}
    paths.forwards_config.write_text(yaml.safe_dump(content))

    assert state.load(paths) == (state.Config(forwards=[entry()]), [])


def test_the_state_file_is_written_once_however_often_it_changes(paths, monkeypatch):
    writes = []
    monkeypatch.setattr(
        files, "write_atomic", lambda _, text: writes.append(yaml.safe_load(text)["forwards"])
    )
    monkeypatch.setattr(state, "WRITE_EVERY", 0.05)
    rows = ["one"]

    async def play():
        file = state.StateFile(paths.forwards_state, lambda: list(rows))
        for _ in range(100):
            file.touch()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert writes == [["one"]], "at once, and once"
        for number in range(100):
            rows[0] = str(number)
            file.touch()
            await asyncio.sleep(0)
        assert len(writes) == 1, "not within the same second"
        file.close()
        assert writes == [["one"], ["99"]], "the last state is not lost"
        file.close()
        assert len(writes) == 2, "nothing is written when nothing changed"

    asyncio.run(play())


def test_a_state_file_that_cannot_be_written_is_said_once(paths, monkeypatch, caplog):
    def fail(path, text):
        raise KecsError("no space left to write `state.yaml`")

    monkeypatch.setattr(files, "write_atomic", fail)
    monkeypatch.setattr(state, "WRITE_EVERY", 0.0)

    async def play():
        file = state.StateFile(paths.forwards_state, list)
        for _ in range(3):
            file.touch()
            file.close()

    asyncio.run(play())
    assert [record.message for record in caplog.records] == ["no space left to write `state.yaml`"]

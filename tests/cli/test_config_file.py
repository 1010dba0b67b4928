"""The file of `port-forward run`: which it is, what is wrong with it, and noticing that it changed."""

from __future__ import annotations

import os

import pytest

from kecs.cli import config_file
from kecs.errors import ExitCode, KecsError

GOOD = 'version: "1"\nforwards:\n  - {name: web, type: service, service: web, targetPort: 80}\n'


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "port-forward.yaml"
    path.write_text(GOOD)
    return path


def looks(follower: config_file.Follower, times: int = 3) -> list[bool]:
    return [follower.look() for _ in range(times)]


def test_a_file_that_stands_still_is_not_reported(file):
    assert looks(config_file.Follower(file)) == [False, False, False]


def test_a_file_that_is_written_is_reported_once_when_it_stands_still(file):
    follower = config_file.Follower(file)
    file.write_text(GOOD + "# more\n")
    assert looks(follower) == [False, True, False]


def test_a_file_that_goes_on_being_written_is_not_reported(file):
    follower = config_file.Follower(file)
    for number in range(5):
        with file.open("a") as more:
            more.write("#" * number + "\n")
        assert not follower.look()
    assert follower.look()


def test_a_file_that_is_replaced_by_a_rename_is_reported_though_it_is_as_long_and_as_old(file, tmp_path):
    follower = config_file.Follower(file)
    before = file.stat()
    other = tmp_path / "new"
    other.write_text(GOOD.replace("80", "81"))
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    other.rename(file)
    assert looks(follower) == [False, True, False]


def test_a_moment_without_the_file_is_not_reported(file, tmp_path):
    follower = config_file.Follower(file)
    file.rename(tmp_path / "away")
    assert not follower.look()
    (tmp_path / "away").rename(file)
    assert looks(follower)[-1] is False


def test_a_file_that_is_gone_and_one_that_is_back_are_reported(file):
    follower = config_file.Follower(file)
    file.unlink()
    assert looks(follower) == [False, True, False]
    file.write_text(GOOD)
    assert looks(follower) == [False, True, False]


def test_the_owner_is_the_real_path_whatever_link_leads_to_it(file, tmp_path, monkeypatch):
    (tmp_path / "link.yaml").symlink_to(file)
    monkeypatch.chdir(tmp_path)
    assert config_file.owner("link.yaml") == config_file.owner("port-forward.yaml") == file.resolve()


def test_a_file_is_read(file):
    spec = config_file.read(file, "f.yaml")
    assert [one.name for one in spec.forwards] == ["web"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"version: 1\nforwards: [{nam: x}]\n", "f.yaml:2:13: forwards[0].nam: "),
        (b"version: 1\n\tx: 1\n", "f.yaml:2:1: "),
        (b'version: "2"\n', "f.yaml:1:10: version: "),
        (b"version: 1\n# \xff\n", "f.yaml:2:3: "),
        (b"", "f.yaml:1:1: "),
    ],
)
def test_what_is_wrong_is_named_with_line_and_column(file, text, says):
    file.write_bytes(text)
    with pytest.raises(KecsError) as caught:
        config_file.read(file, "f.yaml")
    assert says in caught.value.message
    assert caught.value.exit_code == ExitCode.USAGE


def test_all_that_is_wrong_is_named_at_once(file):
    file.write_text("version: 1\ncolour: red\nsize: 1\n")
    with pytest.raises(KecsError) as caught:
        config_file.read(file, "f.yaml")
    first, *others = caught.value.message.splitlines()
    assert first == "`f.yaml` has 2 mistakes:"
    assert [line.split(" ", 3)[2] for line in others] == ["f.yaml:2:1:", "f.yaml:3:1:"]


def test_what_is_no_file_that_can_own_forwards(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "large").write_bytes(b"#" * (config_file.LARGEST + 1))
    for name, code, says in (
        ("nothing", ExitCode.NOT_FOUND, "there is no file"),
        (".", ExitCode.USAGE, "is not a file"),
        ("pipe", ExitCode.USAGE, "is not a file"),
        ("large", ExitCode.USAGE, "is larger than 4 MiB"),
    ):
        with pytest.raises(KecsError, match=says) as caught:
            config_file.read(tmp_path / name, name)
        assert caught.value.exit_code == code
        assert f"`{name}`" in caught.value.message

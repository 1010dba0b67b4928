"""The file of secrets."""

from __future__ import annotations

import pytest

from kecs.client import secrets
from kecs.errors import ExitCode, KecsError
from kecs.files import Unreadable


@pytest.fixture
def paths(home):
    home.instance()
    return home.paths


def test_what_was_put_is_loaded_from_a_private_file(paths):
    assert secrets.put(paths, "prod/db", "s3cret\n") is False
    assert secrets.put(paths, "prod/db", "other: 1") is True

    assert secrets.load(paths) == {"prod/db": "other: 1"}
    assert paths.secrets_file.stat().st_mode & 0o777 == 0o600


def test_nothing_was_ever_put(paths):
    assert secrets.load(paths) == {}


def test_remove_takes_all_names_or_none(paths):
    secrets.put(paths, "a", "1")
    secrets.put(paths, "b", "2")
    with pytest.raises(KecsError, match="`c`") as caught:
        secrets.remove(paths, ["a", "c"])
    assert caught.value.exit_code == ExitCode.NOT_FOUND
    assert secrets.load(paths) == {"a": "1", "b": "2"}

    secrets.remove(paths, ["a"])
    assert secrets.load(paths) == {"b": "2"}


@pytest.mark.parametrize("name", ["", "two words", "line\nbreak", "x" * 2049, "\x1b[31m"])
def test_a_name_that_no_value_from_could_hold_is_a_usage_error(paths, name):
    with pytest.raises(KecsError) as caught:
        secrets.put(paths, name, "v")
    assert caught.value.exit_code == ExitCode.USAGE


def test_whole_arns_are_names(paths):
    arn = "arn:aws:secretsmanager:us-east-1:123456789012:secret:prod/db-AbCdEf"
    secrets.put(paths, arn, "v")
    assert secrets.load(paths) == {arn: "v"}


def test_too_long_a_value_is_a_usage_error(paths):
    with pytest.raises(KecsError, match="65537 bytes") as caught:
        secrets.put(paths, "a", "x" * 65537)
    assert caught.value.exit_code == ExitCode.USAGE


@pytest.mark.parametrize("content", ["{", "version: 1\nsecrets: []\n", "version: 1\nsecrets: {a: 1}\n"])
def test_a_broken_file_is_named_and_left_alone(paths, content):
    paths.secrets_file.write_text(content)
    with pytest.raises(Unreadable, match=r"secrets\.yaml"):
        secrets.put(paths, "a", "v")
    assert paths.secrets_file.read_text() == content

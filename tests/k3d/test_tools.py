"""What `kecs start` finds out before it starts anything: which programs, which versions, do they answer."""

from __future__ import annotations

import time

import pytest
from tests.k3d.scripted import ScriptedK3d

from kecs.errors import ExitCode, KecsError
from kecs.k3d.tools import Versions, check, find, why_not


def test_both_are_found_and_tell_their_versions(k3d):
    versions = check(find(k3d.environment))
    assert versions.k3d.startswith("5.")
    assert versions.docker[0].isdigit()
    assert why_not(k3d.environment) is None


def test_versions_are_those_that_they_tell(scripted):
    assert check(find(scripted.environment)) == Versions("5.9.0", "27.3.1")


@pytest.mark.parametrize("missing", [["k3d"], ["docker"], ["k3d", "docker"]])
def test_a_program_is_missing(scripted, missing):
    for name in missing:
        (scripted.bin / name).unlink()
    with pytest.raises(KecsError) as caught:
        find(scripted.environment)
    names = " and ".join(f"`{name}`" for name in missing)
    assert caught.value.message.endswith(f"not on PATH: {names}")
    assert "needs the programs `k3d` (5.0 or newer) and `docker`" in caught.value.message
    assert "--runtime local" in caught.value.hint
    assert caught.value.exit_code == ExitCode.UNREACHABLE
    assert why_not(scripted.environment) == caught.value.message


def test_a_path_that_is_not_set_and_one_that_is_no_program(scripted):
    (scripted.bin / "k3d").chmod(0o644)
    assert why_not(scripted.environment).endswith("not on PATH: `k3d`")
    assert "not on PATH" in (why_not({"PATH": ""}) or "")


def test_looking_for_what_is_not_there_takes_no_time(tmp_path):
    begin = time.monotonic()
    for _ in range(10):
        assert why_not({"PATH": str(tmp_path)})
    assert time.monotonic() - begin < 0.15


@pytest.mark.parametrize("version", ["v4.4.8", "v3.0.0-rc.1"])
def test_k3d_is_too_old(scripted, version):
    scripted.configure(k3d_version=version)
    with pytest.raises(KecsError) as caught:
        check(find(scripted.environment))
    assert caught.value.message == f"`{scripted.bin}/k3d` is k3d {version[1:]}; 5.0 or newer is needed"
    assert caught.value.exit_code == ExitCode.UNREACHABLE


@pytest.mark.parametrize("version", ["v5.0.0", "v5.10.1", "v6.0.0-dev.2"])
def test_k3d_is_new_enough(scripted, version):
    scripted.configure(k3d_version=version)
    assert check(find(scripted.environment)).k3d == version[1:]


def test_something_else_is_called_k3d(scripted):
    (scripted.bin / "k3d").write_text("#!/bin/sh\necho '3D viewer 5.1'\n")
    with pytest.raises(KecsError, match="does not name a version of k3d"):
        check(find(scripted.environment))


def test_a_program_that_cannot_be_run(scripted):
    (scripted.bin / "k3d").write_text("#!/nonexistent/shell\n")
    with pytest.raises(KecsError, match="cannot be run: No such file or directory") as caught:
        check(find(scripted.environment))
    assert caught.value.exit_code == ExitCode.UNREACHABLE


@pytest.mark.parametrize(
    ("fault", "words"),
    [("docker_down", "Is the docker daemon running?"), ("docker_denied", "permission denied")],
)
def test_docker_does_not_answer(scripted, fault, words):
    scripted.faults(**{fault: True})
    with pytest.raises(KecsError) as caught:
        check(find(scripted.environment))
    assert caught.value.message.startswith("Docker does not answer: ")
    assert words in caught.value.message
    assert caught.value.exit_code == ExitCode.UNREACHABLE
    assert why_not(scripted.environment) == caught.value.message


def test_docker_hangs(scripted):
    scripted.faults(hang=["docker version"])
    begin = time.monotonic()
    words = why_not(scripted.environment, limit=0.3)
    assert time.monotonic() - begin < 5
    assert words.startswith("`docker version …` did not end within 0.3 s")


def test_two_of_them_do_not_share_anything(scripted, tmp_path):
    with ScriptedK3d(tmp_path / "other", version="v5.6.0") as other:
        assert check(find(other.environment)).k3d == "5.6.0"
        assert scripted.calls() == []

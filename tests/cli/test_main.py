"""The one place where errors become words and exit codes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from kecs.cli import main
from kecs.errors import ExitCode


@pytest.fixture
def breaks(monkeypatch):
    """Let `kecs version` raise."""

    def with_(error: BaseException) -> None:
        from kecs.cli import version

        def raising() -> None:
            raise error

        monkeypatch.setattr(version.version, "callback", raising)

    return with_


def test_an_exception_nobody_foresaw_is_one_line_and_a_file(kecs, breaks):
    breaks(ZeroDivisionError("what\nnow"))
    ran = kecs("version")

    assert ran.code == ExitCode.FAILED
    assert ran.err.startswith("error: this is a bug in KECS: ZeroDivisionError: what now\n\nhint: ")
    file = Path(ran.err.split("`")[1])
    assert "ZeroDivisionError" in file.read_text()
    assert file.stat().st_mode & 0o777 == 0o600
    file.unlink()


def test_kecs_debug_shows_the_traceback(kecs, breaks, monkeypatch):
    monkeypatch.setenv("KECS_DEBUG", "1")
    breaks(ZeroDivisionError("what now"))
    assert "Traceback" in kecs("version").err


@pytest.mark.parametrize("error", [KeyboardInterrupt(), click.Abort()])
def test_ctrl_c_is_130_without_words(kecs, breaks, error):
    breaks(error)
    ran = kecs("version")
    assert (ran.code, ran.out, ran.err) == (130, "", "")


def test_a_reader_that_leaves_is_no_error(home):
    for instance in range(60):
        home.instance(f"a-rather-long-name-{instance}")
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as out:
        done = subprocess.run(
            [sys.executable, "-m", "kecs", "list"],
            stdout=out,
            stderr=subprocess.PIPE,
            env=os.environ,
            check=False,
        )
    assert done.stderr == b""
    assert done.returncode == 0


def test_help_and_version_touch_nothing(kecs, home):
    home.path.rmdir()
    for arguments in (
        ("--help",),
        ("-h",),
        ("--version",),
        ("version",),
        ("pf", "start", "service", "--help"),
    ):
        ran = kecs(*arguments)
        assert ran.code == 0
        assert ran.out
        assert ran.err == ""
    assert not home.path.exists()


@pytest.mark.parametrize("arguments", [(), ("pf",), ("secrets",), ("port-forward", "agent")])
def test_a_group_alone_shows_its_help_as_a_usage_error(kecs, arguments):
    ran = kecs(*arguments)
    assert ran.code == 2
    assert "Commands:" in ran.err
    assert ran.out == ""


def test_pf_is_port_forward(kecs, home):
    home.instance(desired="stopped")
    assert kecs("pf", "list").err == kecs("port-forward", "list").err


@pytest.mark.parametrize(
    ("text", "ours"),
    [
        ("No such option '--x'.", "no such option `--x`"),
        ("Missing argument 'A'.", "missing argument `A`"),
        ("Two\n lines.", "two lines"),
    ],
)
def test_clicks_words_become_ours(text, ours):
    assert main.sentence(text) == ours


def test_colour_is_for_terminals_that_want_it(monkeypatch):
    from kecs.cli.session import paint

    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert paint("x", "red", True) == "\x1b[31mx\x1b[0m"
    assert paint("x", "red", False) == "x"
    monkeypatch.setenv("NO_COLOR", "1")
    assert paint("x", "red", True) == "x"
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert paint("x", "red", True) == "x"


def test_every_entry_leads_to_a_command_of_that_name():
    from kecs.cli.commands import Group

    def check(group: Group, context: click.Context) -> int:
        count = 0
        for name in group.list_commands(context):
            command = group.get_command(context, name)
            assert command is not None
            assert command.name == name
            assert command.help
            assert "instance" in {parameter.name for parameter in command.params}
            count += 1 + (check(command, context) if isinstance(command, Group) else 0)
        return count

    assert check(main.cli, click.Context(main.cli, **main.cli.context_settings)) > 20

"""Fixtures of the command line's tests."""

from __future__ import annotations

from typing import NamedTuple

import pytest
from tests.client.fakes import FakeHome

from kecs.cli.main import run


class Ran(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def home(monkeypatch):
    one = FakeHome(monkeypatch)
    yield one
    one.close()


@pytest.fixture
def kecs(home, capsys):
    """Run a command in this process; the daemons it starts are scripted ones."""

    def command(*arguments: str) -> Ran:
        capsys.readouterr()
        code = run(list(arguments))
        return Ran(code, *capsys.readouterr())

    command.home = home
    return command


@pytest.fixture
def fails(kecs):
    """Run a command that must fail as every command fails; return its standard error."""

    def command(code: int, *arguments: str, says: str = "", hint: str = "") -> str:
        ran = kecs(*arguments)
        assert ran.code == code, ran
        assert ran.out == "", "standard output is for results"
        assert ran.err.count("error: ") == 1
        message, _, help_ = ran.err.partition("\n\nhint: ")
        assert says in message.split("error: ")[1]
        assert help_.strip(), f"no hint: {ran.err}"
        assert hint in help_
        assert "Traceback" not in ran.err
        assert not message.endswith(".")
        return ran.err

    return command

"""Every command, option, setting, file, RPC method and operation is documented; no page is stale."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import click
import pytest
from scripts import reference

from kecs import settings
from kecs.client import rpc_types
from kecs.controlplane import ecs_model
from kecs.controlplane.operations import OPERATIONS
from kecs.errors import ExitCode
from kecs.paths import InstancePaths

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs" / "reference"


def page(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", reference.PAGES)
def test_a_generated_page_is_what_the_code_says(name):
    assert page(name) == reference.PAGES[name](), "run `python -m scripts.reference`"


def test_a_stale_page_fails_the_check_and_is_left_alone(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(reference, "FOLDER", tmp_path)
    assert reference.main([]) == 0
    assert reference.main(["--check"]) == 0
    (tmp_path / "cli.md").write_text("old")

    assert reference.main(["--check"]) == 1
    assert "cli.md" in capsys.readouterr().err
    assert (tmp_path / "cli.md").read_text() == "old"


def test_every_command_and_option_is_documented_and_has_words():
    text = page("cli.md")
    for path, command, _ in reference.commands():
        section = text.partition(f"## `{path}`\n")[2].partition("\n## ")[0]
        assert section, path
        assert command.help, path
        for option in command.params:
            if isinstance(option, click.Option):
                assert option.help, (path, option.name)
                if option.name != "instance":
                    assert all(f"`{name}" in section for name in option.opts), (path, option.name)


def test_every_setting_is_documented_with_its_key_and_default():
    text = page("settings.md")
    for knob in settings.KNOBS:
        assert f"| `{knob.variable}` | `{knob.key}` | {knob.default:g} | {knob.meaning} |" in text
    assert {field.name for field in fields(settings.Settings)} == {"home", "instance", "runtime"}


def test_every_variable_that_the_code_names_is_documented():
    text = page("settings.md")
    named = set()
    for file in (ROOT / "src").rglob("*.py"):
        named |= set(re.findall(r'"(KECS_[A-Z_]+)"', file.read_text(encoding="utf-8")))
    assert len(named) > 5
    assert sorted(name for name in named if f"`{name}`" not in text) == []


def test_every_file_of_an_instance_is_documented():
    text = page("files.md")
    paths = InstancePaths(Path("/h"), "default")
    names = {
        getattr(paths, name).name
        for name, member in vars(InstancePaths).items()
        if isinstance(member, property) and name != "root"
    }
    assert sorted(name for name in names if name not in text) == []


def test_every_exit_code_is_documented():
    text = page("exit-codes.md")
    assert [code for code in ExitCode if f"| {int(code)} |" not in text] == []


def test_every_rpc_method_is_documented():
    text = page("rpc.md")
    assert [method for method in rpc_types.METHODS if f"| `{method}` |" not in text] == []


def test_every_request_that_the_control_plane_serves_is_documented():
    source = (ROOT / "src/kecs/controlplane/admin.py").read_text(encoding="utf-8")
    served = set(re.findall(r'\("(GET|POST)", "(/_kecs/[a-z]+)"\)', source))
    assert len(served) > 5
    assert served == set(reference.CONTROL_PLANE)


def test_every_operation_of_the_model_is_documented():
    text = page("operations.md")
    names = ecs_model.load().operation_names
    assert set(OPERATIONS) <= set(names)
    for name in names:
        assert (f"- `{name}`\n" if name in OPERATIONS else f"| `{name}` |") in text


def test_every_page_is_in_the_index_and_every_link_leads_somewhere():
    index = page("README.md")
    for file in DOCS.glob("*.md"):
        if file.name != "README.md":
            assert f"[{file.name}]({file.name})" in index
        for link in re.findall(r"\]\(([a-z-]+\.md)\)", file.read_text(encoding="utf-8")):
            assert (DOCS / link).exists(), (file.name, link)

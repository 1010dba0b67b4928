"""The guide to probes and notifications says what the code does: members, defaults, limits."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import msgspec
import pytest
import yaml

from kecs.agent import channels, notifier, notify
from kecs.client import wake
from kecs.forward import file, spec

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "health-and-notifications.md"
TEXT = GUIDE.read_text(encoding="utf-8")


def test_every_member_of_an_event_and_every_event_is_named():
    for field in msgspec.structs.fields(notify.Event):
        assert f"`{field.encode_name}`" in TEXT, field.name
    for kind in get_args(notify.Kind):
        assert f"| `{kind}` |" in TEXT


def test_the_probe_that_is_shown_has_the_defaults():
    block = next(one for one in TEXT.split("```") if "probe:" in one and one.startswith("yaml"))
    (shown,) = yaml.safe_load(block.removeprefix("yaml"))["forwards"]
    given = msgspec.to_builtins(spec.Probe(type="http", path="/healthz")) | {}
    defaults = {field.encode_name: field.default for field in msgspec.structs.fields(spec.Probe)}

    assert shown["probe"] == defaults | given


def test_what_is_shown_of_a_file_is_right():
    forward, told = [one.removeprefix("yaml") for one in TEXT.split("```") if one.startswith("yaml")]
    (spec_of_it,) = file.parse(f'version: "1"\n{forward.rstrip()}\n{told}', "port-forward.yaml").forwards

    assert spec_of_it.probe == spec.Probe(type="http", path="/healthz")
    assert spec_of_it.notify == spec.Notify(
        desktop=True,
        command=["./tell-the-team.sh", "prod"],
        webhook="https://hooks.example.com/kecs",
    )


@pytest.mark.parametrize(
    "words",
    [
        f"for {notify.PATIENCE:g} s no task has been ready",
        f"told of once in {notify.WINDOW:g} s",
        f"it has {channels.COMMAND:g} s",
        f"webhook has {channels.WEBHOOK:g} s",
        f"within {wake.LOOK:g} s that the machine has slept",
    ],
)
def test_limits_are_those_of_the_code(words):
    assert words in TEXT


def test_so_are_those_in_words():
    assert (notifier.AT_ONCE, notifier.QUEUE, len(channels.TRIES)) == (4, 100, 3)
    assert "at most four are on" in TEXT
    assert "a hundred wait" in TEXT
    assert "three tries" in TEXT

"""The published JSON Schema of a port-forward file says what the parser says."""

from __future__ import annotations

import ipaddress
import json
import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from scripts import reference

from kecs.forward.file import WrongFile, parse
from kecs.forward.spec import ForwardSpec

ROOT = Path(__file__).resolve().parent.parent
SCHEMA = json.loads((ROOT / "docs/reference/port-forward.schema.json").read_text(encoding="utf-8"))
ANNOTATIONS = {"title", "description", "default", "$comment", "$schema", "definitions"}
TYPES = {
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "string": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    "null": lambda value: value is None,
    "integer": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
}


def same(one, other):
    """JSON knows that `true` is not 1."""
    return one == other and isinstance(one, bool) == isinstance(other, bool)


def is_ip(version, value):
    try:
        return ipaddress.ip_address(value).version == version and "%" not in value
    except ValueError:
        return False


def of_kind(kind, rule):
    """A keyword says something of values of one type only."""
    return lambda value, said, schema: not TYPES[kind](value) or rule(value, said, schema)


def properties(value, said, schema):
    return all(accepts(said[key], value[key]) for key in said if key in value)


def others(value, said, schema):
    return all(accepts(said, value[key]) for key in value if key not in schema.get("properties", {}))


KEYWORDS = {
    "type": lambda value, said, schema: TYPES[said](value),
    "enum": lambda value, said, schema: any(same(value, one) for one in said),
    "const": lambda value, said, schema: same(value, said),
    "allOf": lambda value, said, schema: all(accepts(one, value) for one in said),
    "anyOf": lambda value, said, schema: any(accepts(one, value) for one in said),
    "oneOf": lambda value, said, schema: sum(accepts(one, value) for one in said) == 1,
    "$ref": lambda value, said, schema: accepts(SCHEMA["definitions"][said.rpartition("/")[2]], value),
    "minimum": of_kind("number", lambda value, said, schema: value >= said),
    "maximum": of_kind("number", lambda value, said, schema: value <= said),
    "pattern": of_kind("string", lambda value, said, schema: re.search(said, value) is not None),
    "format": of_kind("string", lambda value, said, schema: is_ip(int(said.removeprefix("ipv")), value)),
    "minItems": of_kind("array", lambda value, said, schema: len(value) >= said),
    "items": of_kind("array", lambda value, said, schema: all(accepts(said, one) for one in value)),
    "minProperties": of_kind("object", lambda value, said, schema: len(value) >= said),
    "required": of_kind("object", lambda value, said, schema: set(said) <= set(value)),
    "properties": of_kind("object", properties),
    "additionalProperties": of_kind("object", others),
    "dependencies": of_kind(
        "object",
        lambda value, said, schema: all(accepts(one, value) for key, one in said.items() if key in value),
    ),
}
"""Of draft 7, what the schema uses: another word in it is a mistake of this table."""


def accepts(schema, value):
    """Tell whether `value` is valid."""
    if isinstance(schema, bool):
        return schema
    return all(
        KEYWORDS[word](value, said, schema) for word, said in schema.items() if word not in ANNOTATIONS
    )


def parses(document):
    try:
        parse(yaml.safe_dump(document), "f")
    except WrongFile:
        return False
    return True


WEB = {"name": "a", "type": "service", "service": "web", "targetPort": 80}
TASK = {"name": "a", "type": "task", "task": "0123abcd", "targetPort": "http"}
TAGGED = {"name": "a", "type": "task", "tags": {"A": "b"}, "targetPort": 80, "strict": True}


def one(forward, **members):
    return {"version": "1", "forwards": [forward | members]}


def test_the_sample_of_the_page_is_accepted_by_both():
    page = reference.PAGES["port-forward-file.md"]()
    (sample,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)

    assert len(parse(sample, "f").forwards) == 2
    assert accepts(SCHEMA, yaml.safe_load(sample))


@pytest.mark.parametrize(
    "document",
    [
        {"version": 1},
        one(WEB),
        one(TASK),
        one(TAGGED),
        one(WEB, localPort=65535, address=["::1"], probe=None, hold={"seconds": 1.5}),
        one(WEB, balance="least-connections"),
        one(WEB, publish=18080, localPort=8080),
        {"version": "1", "auto": True, "clusters": ["a"], "names": True, "defaults": {"address": "0.0.0.0"}},
    ],
)
def test_what_is_right_is_accepted_by_both(document):
    assert parses(document)
    assert accepts(SCHEMA, document)


@pytest.mark.parametrize(
    "document",
    [
        [],
        {},
        {"version": 2},
        {"version": True},
        {"version": "1", "forward": []},
        {"version": "1", "forwards": {}},
        {"version": "1", "clusters": ["a"]},
        {"version": "1", "auto": False, "clusters": ["a"]},
        {"version": "1", "auto": True, "clusters": []},
        {"version": "1", "defaults": {"name": "a"}},
        one({}),
        *[one({key: value for key, value in WEB.items() if key != missing}) for missing in WEB],
        one(WEB, local_port=1),
        one(WEB, localPort=0),
        one(WEB, localPort="80"),
        one(WEB, localPort=True),
        one(WEB, localPort=None),
        one(WEB, publish=0),
        one(WEB, publish="18080"),
        one(TASK, publish=18080),
        one(TAGGED, publish=18080),
        one(WEB, targetPort="80"),
        one(WEB, targetPort=""),
        one(WEB, name="agent"),
        one(WEB, name="pf-0123abcd"),
        one(WEB, name="a" * 64),
        one(WEB, cluster="a b"),
        one(WEB, task="0123abcd"),
        one(WEB, tags={"A": "b"}),
        one(WEB, strict=False),
        one(TASK, service="web"),
        one(TASK, tags={"A": "b"}),
        one(TASK, strict=True),
        one(TAGGED, tags={}),
        one(TAGGED, tags={"A": 1}),
        one(WEB, address=[]),
        one(WEB, address="here"),
        one(WEB, address=["fe80::1%eth0"]),
        one(WEB, autoReconnect="yes"),
        one(WEB, hold={"second": 1}),
        one(WEB, hold={"seconds": -1}),
        one(WEB, retry={"jitter": 1}),
        one(WEB, retry=None),
        one(WEB, probe={"type": "http", "path": "healthz"}),
        one(WEB, notify={"command": "say"}),
        one(WEB, notify={"webhook": "ftp://x"}),
        one(WEB, route="best"),
    ],
)
def test_what_is_wrong_is_refused_by_both(document):
    assert not parses(document)
    assert not accepts(SCHEMA, document)


PLAIN = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-1, 70000),
    st.floats(0, 100, allow_nan=False).filter(lambda number: not number.is_integer()),
    st.sampled_from(
        ["", "a", "a b", "::1", "0.0.0.0", "80", "http", "task", "tcp", "/x", "0123abcd", "tunnel"]
    ),
)
VALUES = st.one_of(
    PLAIN,
    st.lists(PLAIN, max_size=2),
    st.dictionaries(
        st.sampled_from(["seconds", "connections", "max", "attempts", "type", "path", "A", "command"]),
        PLAIN,
        max_size=2,
    ),
)
KEYS = st.sampled_from(
    sorted(
        {*ForwardSpec.__struct_encode_fields__, *TAGGED, *TASK, *WEB, "cluster", "hold", "region", "balance"}
        - {"target"}
    )
)


@given(
    st.sampled_from([WEB, TASK, TAGGED]),
    st.dictionaries(KEYS, VALUES, max_size=2),
    st.dictionaries(KEYS, VALUES, max_size=1),
)
def test_they_agree_on_whatever_a_forward_and_the_defaults_say(good, forward, defaults):
    """One forward only: that no two have one name or one port is beyond a schema."""
    document = {"version": "1", "defaults": defaults, "forwards": [good | forward]}

    assert accepts(SCHEMA, document) == parses(document)


def test_every_key_says_what_it_is():
    for part in (SCHEMA, *SCHEMA["definitions"].values()):
        assert part["additionalProperties"] is False
        assert part["description"]
        assert [key for key, member in part["properties"].items() if not member.get("description")] == []

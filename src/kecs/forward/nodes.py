"""YAML into plain values along a type, with the place of everything, and all that is wrong at once.

`kecs.forward.file` calls it. msgspec alone would stop at the first mistake and could not say where it is, so
the nodes of PyYAML, which know their lines, are walked along the msgspec types. Nothing in here knows what
a forward is.
"""

from __future__ import annotations

import difflib
import functools
import math
import re
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import yaml
from yaml.reader import Reader as _YamlReader

Path = tuple[str | int, ...]
"""`("forwards", 0, "localPort")`."""
WRONG: Any = object()
"""Stands for a value that a problem was noted about."""
_TAG = "tag:yaml.org,2002:"
_WHOLE = re.compile(r"[+-]?(0|[1-9][0-9]*)")
"""YAML 1.1 also knows 0x1f, 017, 1_000 and 22:30 (= 1350): none of these is what a person means by a port."""
_LONGEST_SHOWN = 60
_TAB = "no YAML: a tab indents this line, and YAML is indented by spaces alone"


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """Line and column, both from 1."""

    line: int
    column: int


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One thing that is wrong, and where."""

    place: Place
    key: str
    """`forwards[0].localPort`; empty when no key is to blame."""
    message: str


class Malformed(ValueError):  # noqa: N818 - it names the text's state
    """The text is no YAML at all."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message)
        self.problem = problem


def compose(text: str) -> yaml.Node | None:
    """Parse `text` into nodes; None when it says nothing. Raises `Malformed`."""
    if bad := _YamlReader.NON_PRINTABLE.search(text):
        before = text[: bad.start()]
        place = Place(before.count("\n") + 1, bad.start() - (before.rfind("\n") + 1) + 1)
        raise Malformed(Problem(place, "", f"the character U+{ord(bad[0]):04X} is not allowed in YAML"))
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        node: yaml.Node | None = yaml.compose(text, Loader=loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = _place(mark) if mark is not None else Place(1, 1)
        said = _TAB if _is_indented_by_tab(text, place.line) else _said(error)
        raise Malformed(Problem(place, "", said)) from error
    except (yaml.YAMLError, RecursionError) as error:
        raise Malformed(Problem(Place(1, 1), "", f"no YAML: {error}")) from error
    return node


def key_text(path: Path) -> str:
    """`forwards[0].localPort`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


class Reader:
    """Reads one document; `problems` are all that is wrong, `places` where each value stands."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self.places: dict[Path, Place] = {}
        self.keys: dict[Path, Place] = {}
        """Where the key of a value stands."""

    def complain(self, path: Path, message: str, *, at_key: bool = False) -> None:
        """Note that what is at `path`, or its key, is wrong; what is not there is blamed on what it is in."""
        places = self.keys if at_key else self.places
        found = path
        while found not in places and found:
            found = found[:-1]
        self.problems.append(Problem(places.get(found, Place(1, 1)), key_text(path), message))

    def read(self, node: yaml.Node, kind: Any, path: Path = ()) -> Any:
        """Return the value of `node` in plain types, a struct as a dictionary of the keys that are given.

        What is wrong is noted and left out; `WRONG` when nothing remains.
        """
        self.places[path] = _place(node.start_mark)
        kind, meta = _plain(kind)
        options = _options(kind)
        if options != [kind]:
            fitting = next((one for one in options if _fits(node, _plain(one)[0])), options[0])
            if len(options) == 1 or _fits(node, _plain(fitting)[0]):
                return self.read(node, fitting, path)
            return self._refuse(node, kind, meta, path)
        if not _fits(node, kind):
            return self._refuse(node, kind, meta, path)
        if isinstance(node, yaml.MappingNode):
            value: Any = (
                self._struct(node, kind, path) if _is_struct(kind) else self._mapping(node, kind, path)
            )
        elif isinstance(node, yaml.SequenceNode):
            (item,) = typing.get_args(kind)
            value = [self.read(child, item, (*path, at)) for at, child in enumerate(node.value)]
        else:
            value = _scalar(node)
        long_enough = meta is None or len(node.value) >= (meta.min_length or 0)
        if not (long_enough and _allowed(value, meta)):
            return self._refuse(node, kind, meta, path)
        return value

    def _struct(self, node: yaml.MappingNode, kind: Any, path: Path) -> dict[str, Any]:
        fields = _fields(kind)
        given: dict[str, Any] = {}
        for key, child in self._pairs(node, path):
            if key not in fields:
                self.complain((*path, key), _unknown(key, tuple(fields)), at_key=True)
            else:
                given[key] = self.read(child, fields[key].type, (*path, key))
        for key, field in fields.items():
            if field.required and key not in given:
                self.complain((*path, key), f"`{key}` is missing")
        return {key: value for key, value in given.items() if value is not WRONG}

    def _mapping(self, node: yaml.MappingNode, kind: Any, path: Path) -> dict[str, Any]:
        _, of = typing.get_args(kind)
        read = {key: self.read(child, of, (*path, key)) for key, child in self._pairs(node, path)}
        return {key: value for key, value in read.items() if value is not WRONG}

    def _pairs(self, node: yaml.MappingNode, path: Path) -> list[tuple[str, yaml.Node]]:
        """Return keys and values, each key once; whatever else is there is a problem."""
        pairs: dict[str, yaml.Node] = {}
        for key, child in node.value:
            place = _place(key.start_mark)
            if not isinstance(key, yaml.ScalarNode):
                self.problems.append(Problem(place, key_text(path), "a key must be text"))
            elif key.tag == f"{_TAG}merge":
                message = "`<<` is not supported: what forwards have in common belongs in `defaults`"
                self.problems.append(Problem(place, key_text((*path, "<<")), message))
            elif key.value in pairs:
                first = self.keys[(*path, key.value)].line
                message = f"`{key.value}` is there twice, first in line {first}"
                self.problems.append(Problem(place, key_text((*path, key.value)), message))
            else:
                self.keys[(*path, key.value)] = place
                pairs[key.value] = child
        return list(pairs.items())

    def _refuse(self, node: yaml.Node, kind: Any, meta: msgspec.Meta | None, path: Path) -> Any:
        name = next((part for part in reversed(path) if isinstance(part, str)), "the file")
        subject = "the file" if not path else f"`{name}`" if name == path[-1] else f"what `{name}` lists"
        words = _words(kind, meta)
        quoted = ""
        if str in (_plain(one)[0] for one in _options(kind)) and _is_other_scalar(node):
            quoted = f' (in quotes it is text: `"{node.value}"`)'
        self.complain(path, f"{subject} must be {words}, not {_shown(node)}{quoted}")
        return WRONG


# Types


def _plain(kind: Any) -> tuple[Any, msgspec.Meta | None]:
    if typing.get_origin(kind) is typing.Annotated:
        inner, *metas = typing.get_args(kind)
        return inner, next((one for one in metas if isinstance(one, msgspec.Meta)), None)
    return kind, None


def _options(kind: Any) -> Sequence[Any]:
    """Return the members of a union, without that a key may be missing; else `kind` alone."""
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return [one for one in typing.get_args(kind) if one is not msgspec.UnsetType]
    return [kind]


def _is_struct(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)


@functools.cache
def _fields(kind: Any) -> Mapping[str, Any]:
    return {field.encode_name: field for field in msgspec.structs.fields(kind)}


def _fits(node: yaml.Node, kind: Any) -> bool:
    """Tell whether `node` has the shape of `kind`; limits are looked at later."""
    if isinstance(node, yaml.MappingNode):
        return _is_struct(kind) or typing.get_origin(kind) is dict
    if isinstance(node, yaml.SequenceNode):
        return typing.get_origin(kind) is list
    if typing.get_origin(kind) is typing.Literal:
        value = _scalar(node)
        return any(value == one and type(value) is type(one) for one in typing.get_args(kind))
    value = _scalar(node)
    return type(value) is kind or (kind is float and type(value) is int)


def _scalar(node: yaml.Node) -> Any:
    """Return text, bool, None, int or float; `WRONG` for what no type of ours takes (dates, 0x1f, .inf)."""
    text = str(node.value)
    match node.tag.removeprefix(_TAG):
        case "str":
            return text
        case "null":
            return None
        case "bool":
            return yaml.constructor.SafeConstructor.bool_values.get(text.lower(), WRONG)
        case "int" if _WHOLE.fullmatch(text):
            return int(text)
        case "float" if ":" not in text and "_" not in text and math.isfinite(number := _float(text)):
            return number
        case _:
            return WRONG


def _float(text: str) -> float:
    try:
        return float(text)
    except ValueError:  # .inf and .nan, and what an explicit !!float stands before
        return math.nan


def _allowed(value: Any, meta: msgspec.Meta | None) -> bool:
    """Tell whether text or a number is within the limits."""
    if meta is None:
        return True
    if isinstance(value, str):
        return meta.pattern is None or re.fullmatch(meta.pattern, value) is not None
    if isinstance(value, int | float):
        return (meta.ge is None or value >= meta.ge) and (meta.le is None or value <= meta.le)
    return True


# Words


def _words(kind: Any, meta: msgspec.Meta | None = None) -> str:
    """Say what a value of this type is."""
    if meta is not None and meta.extra is not None and "words" in meta.extra:
        return str(meta.extra["words"])
    options = _options(kind)
    if len(options) > 1:
        return _either([_words(*_plain(one)) for one in options])
    if _is_struct(kind) or typing.get_origin(kind) is dict:
        return "a mapping of keys and values" + (", not an empty one" if meta is not None else "")
    if typing.get_origin(kind) is list:
        return "a list" + (" that is not empty" if meta is not None else "")
    if typing.get_origin(kind) is typing.Literal:
        return _either([f"`{one}`" for one in typing.get_args(kind)])
    if kind in (int, float):
        limits = f" from {meta.ge:g} to {meta.le:.10g}" if meta and meta.ge is not None and meta.le else ""
        return ("a whole number" if kind is int else "a number") + limits
    return {str: "text", bool: "`true` or `false`", type(None): "`null`"}[kind]


def _either(words: Sequence[str]) -> str:
    *first, last = words
    return f"{', '.join(first)} or {last}" if first else last


def _shown(node: yaml.Node) -> str:
    if isinstance(node, yaml.MappingNode):
        return "a mapping" if node.value else "an empty mapping"
    if isinstance(node, yaml.SequenceNode):
        return "a list" if node.value else "an empty list"
    text = " ".join(str(node.value).split())
    if node.tag == f"{_TAG}null" or not text:
        return "empty" if node.tag == f"{_TAG}null" else "an empty text"
    return f"`{text[:_LONGEST_SHOWN]}…`" if len(text) > _LONGEST_SHOWN else f"`{text}`"


def _is_other_scalar(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.tag not in (f"{_TAG}str", f"{_TAG}null")


def _unknown(key: str, known: Sequence[str]) -> str:
    """Say that there is no such key, and which one may have been meant."""
    plain = {re.sub(r"[^a-z0-9]", "", one.lower()): one for one in known}
    close = difflib.get_close_matches(re.sub(r"[^a-z0-9]", "", key.lower()), plain, n=1, cutoff=0.7)
    if close:
        return f"there is no key `{key}`: did you mean `{plain[close[0]]}`?"
    return f"there is no key `{key}` here: there are {', '.join(f'`{one}`' for one in known)}"


def _place(mark: Any) -> Place:
    return Place(mark.line + 1, mark.column + 1)


def _is_indented_by_tab(text: str, number: int) -> bool:
    """Tell whether a tab is where libyaml gave up: of most tabs it says only that no token begins so."""
    line = "".join(text.splitlines()[number - 1 : number])
    return "\t" in line[: len(line) - len(line.lstrip())]


def _said(error: yaml.MarkedYAMLError) -> str:
    parts = [part for part in (error.problem, error.context) if part]
    return "no YAML: " + ", ".join(parts)

"""The parameters of a call, held against botocore's model of ECS, as the service itself does it.

`ServiceModel` reads the document of the model (`service-2.json`) and needs no botocore to do so.
What AWS does with a request, in order: a member of the wrong JSON type is a SerializationException;
unknown members and nulls are dropped; missing, unknown and out-of-range values are one error that
lists them all. What the model cannot say is checked by the operations.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from kecs.ecs.errors import ClientException, InvalidParameterException, ModelledError, SerializationException

_NO_ENUM = frozenset({"TransportProtocol"})
"""Enums that ECS does not hold the caller to ("treats any other specified value as tcp")."""
_OWN_RULES = frozenset({"Tags", "TagKey", "TagValue"})
"""Shapes whose limits the operations check themselves, with a message that helps."""
_CLIENT_EXCEPTION = frozenset(
    {"RegisterTaskDefinition", "DeregisterTaskDefinition", "DescribeTaskDefinition"}
)
"""Operations that call a bad parameter a ClientException."""
_INTEGER_BITS = {"integer": 31, "long": 63}
_JAVA_NAMES = {"string": "a String", "integer": "an Integer", "long": "a Long", "boolean": "a Boolean",
               "double": "a Double", "float": "a Float", "timestamp": "a Date"}  # fmt: skip


class ServiceModel:
    """Botocore's model of a JSON service: which operations there are and what they take."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self._shapes: Mapping[str, Any] = document["shapes"]
        self._operations: Mapping[str, Any] = document["operations"]
        self.target_prefix: str = document["metadata"]["targetPrefix"]
        """What stands before the operation in `X-Amz-Target`."""

    @property
    def operation_names(self) -> list[str]:
        """Every operation of the model, sorted."""
        return sorted(self._operations)

    def is_known(self, operation: str) -> bool:
        """Tell whether the model has this operation."""
        return operation in self._operations

    def validate(self, operation: str, params: Mapping[str, Any]) -> dict[str, Any]:
        """Return `params` as the operation may use them; raises SerializationException and others.

        What comes back has only members of the model, none of them null, each of its JSON type.
        """
        walk = _Walk(self._shapes)
        shape = self._operations[operation].get("input", {}).get("shape")
        clean: dict[str, Any] = walk.value(shape, params, "") if shape else {}
        if walk.problems:
            count = len(walk.problems)
            noun = "error" if count == 1 else "errors"
            message = f"{count} validation {noun} detected: {'; '.join(walk.problems)}"
            error: type[ModelledError] = (
                ClientException if operation in _CLIENT_EXCEPTION else InvalidParameterException
            )
            raise error(message)
        return clean


class _Walk:
    """One walk through a request; collects what breaks the model's constraints."""

    def __init__(self, shapes: Mapping[str, Any]) -> None:
        self.shapes = shapes
        self.problems: list[str] = []

    def value(self, name: str, value: Any, path: str) -> Any:
        shape = self.shapes[name]
        kind = shape["type"]
        if kind == "structure":
            return self._structure(shape, value, path)
        if kind == "list":
            return self._list(name, shape, value, path)
        if kind == "map":
            return self._map(shape, value, path)
        return self._scalar(name, shape, value, path)

    def _structure(self, shape: Mapping[str, Any], value: Any, path: str) -> dict[str, Any]:
        if not isinstance(value, Mapping):
            raise _not_a(value, "structure")
        clean = {
            member: self.value(reference["shape"], value[member], f"{path}.{member}" if path else member)
            for member, reference in shape["members"].items()
            if value.get(member) is not None
        }
        for member in shape.get("required", ()):
            if member not in clean:
                where = f"{path}.{member}" if path else member
                self.problems.append(
                    f"Value null at '{where}' failed to satisfy constraint: Member must not be null"
                )
        return clean

    def _list(self, name: str, shape: Mapping[str, Any], value: Any, path: str) -> list[Any]:
        if not isinstance(value, list):
            raise _not_a(value, "list")
        if name not in _OWN_RULES:
            self._bounds(shape, len(value), value, path, "length")
        member = shape["member"]["shape"]
        return [
            self.value(member, item, f"{path}.{number}.member")
            for number, item in enumerate(value, 1)
            if item is not None
        ]

    def _map(self, shape: Mapping[str, Any], value: Any, path: str) -> dict[str, Any]:
        if not isinstance(value, Mapping):
            raise _not_a(value, "structure")
        member = shape["value"]["shape"]
        return {
            self.value(shape["key"]["shape"], key, f"{path}.key"): self.value(member, item, f"{path}.{key}")
            for key, item in value.items()
            if item is not None
        }

    def _scalar(self, name: str, shape: Mapping[str, Any], value: Any, path: str) -> Any:
        value = _typed(shape["type"], value)
        if name in _OWN_RULES:
            return value
        allowed = shape.get("enum")
        if allowed and name not in _NO_ENUM and value not in allowed:
            self.problems.append(
                f"Value '{_shown(value)}' at '{path}' failed to satisfy constraint: "
                f"Member must satisfy enum value set: [{', '.join(allowed)}]"
            )
        if isinstance(value, str):
            self._bounds(shape, len(value), value, path, "length")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            self._bounds(shape, value, value, path, "value")
        return value

    def _bounds(self, shape: Mapping[str, Any], size: float, value: Any, path: str, what: str) -> None:
        sides = (
            ("min", size < shape.get("min", size), "greater than or equal to"),
            ("max", size > shape.get("max", size), "less than or equal to"),
        )
        for limit, broken, side in sides:
            if broken:
                self.problems.append(
                    f"Value '{_shown(value)}' at '{path}' failed to satisfy constraint: "
                    f"Member must have {what} {side} {shape[limit]}"
                )


def _typed(kind: str, value: Any) -> Any:
    """Return `value` as a scalar of the model; raises SerializationException."""
    if kind in ("string", "blob"):
        if not isinstance(value, str):
            raise _not_a(value, kind)
        if not value.isascii() and any("\ud800" <= char <= "\udfff" for char in value):
            # Half of a surrogate pair: valid JSON, but no text, and no file or database takes it.
            raise SerializationException("Invalid Unicode: a surrogate without its other half.")
        return value
    if kind == "boolean":
        if not isinstance(value, bool):
            raise _not_a(value, kind)
        return value
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _not_a(value, kind)
    if not math.isfinite(value):  # 1e999 is JSON, and infinite
        raise _not_a(value, kind)
    if bits := _INTEGER_BITS.get(kind):
        if value != int(value) or not -(1 << bits) <= value < 1 << bits:
            raise _not_a(value, kind)
        return int(value)
    return value


def _not_a(value: Any, wanted: str) -> SerializationException:
    """Say it as Coral, the framework of AWS's services, does."""
    if wanted == "structure":
        return SerializationException("Unexpected value type in payload: expected a structure or null")
    if wanted == "list":
        return SerializationException("Expected list or null")
    if isinstance(value, list | Mapping):
        return SerializationException("Start of structure or map found where not expected.")
    if isinstance(value, bool):
        found = "TRUE_VALUE" if value else "FALSE_VALUE"
    else:
        found = "STRING_VALUE" if isinstance(value, str) else "NUMBER_VALUE"
    return SerializationException(f"{found} can not be converted to {_JAVA_NAMES.get(wanted, wanted)}")


def _shown(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 200 else f"{text[:200]}…"

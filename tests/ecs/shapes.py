"""What the API promises about an answer, by botocore's model: `conform` walks an operation's output."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import botocore.loaders

from kecs.ecs.context import Context, Knobs, RuntimeTraits
from kecs.ecs.state import State, Tx
from kecs.ecs.validation import ServiceModel

REGION = "us-east-1"
ACCOUNT = "123456789012"
PYTHON_TYPES = {
    "string": str, "integer": int, "long": int, "boolean": bool, "double": float, "timestamp": float,
}  # fmt: skip


@functools.cache
def document() -> dict[str, Any]:
    return botocore.loaders.Loader().load_service_model("ecs", "service-2")


@functools.cache
def model() -> ServiceModel:
    return ServiceModel(document())


def conform(operation: str, result: dict[str, Any]) -> dict[str, Any]:
    """Return `result`, all of whose members are in the model and of its types, nulls none."""
    _walk(document()["operations"][operation]["output"]["shape"], result, operation)
    return result


def _walk(name: str, value: Any, path: str) -> None:
    shape = document()["shapes"][name]
    kind = shape["type"]
    if kind == "structure":
        assert isinstance(value, dict), f"{path} is {value!r}"
        unknown = set(value) - set(shape["members"])
        assert not unknown, f"{path} has {unknown}, which the model has not"
        for member, item in value.items():
            _walk(shape["members"][member]["shape"], item, f"{path}.{member}")
    elif kind == "list":
        assert isinstance(value, list), f"{path} is {value!r}"
        for number, item in enumerate(value):
            _walk(shape["member"]["shape"], item, f"{path}[{number}]")
    elif kind == "map":
        assert isinstance(value, dict), f"{path} is {value!r}"
        for key, item in value.items():
            _walk(shape["value"]["shape"], item, f"{path}.{key}")
    else:
        assert type(value) is PYTHON_TYPES[kind], f"{path} is {value!r}, not of type {kind}"
        if "enum" in shape:
            assert value in shape["enum"], f"{path} is {value!r}"


class Ecs:
    """One ECS in memory: `ecs(operation, **params)` does what a request would, time stands still."""

    def __init__(self, region: str = REGION) -> None:
        self.state = State()
        self.now = 1_700_000_000.0
        self.ids = 0
        self.region = region
        self.knobs = Knobs()
        self.runtime = RuntimeTraits()

    def context(self) -> Context:
        return Context(
            region=self.region, now=self.now, new_id=self.new_id, runtime=self.runtime, knobs=self.knobs
        )

    def new_id(self) -> str:
        self.ids += 1
        return f"{self.ids:032x}"

    def write(self, change: Callable[[Tx], Any]) -> Any:
        draft = self.state.draft()
        value = change(draft)
        self.state = draft.result()
        return value

    def call(self, function: Callable[..., dict[str, Any]], **params: Any) -> dict[str, Any]:
        """Call the operation of `function` as a request: validated before, its answer after."""
        operation = "".join(word.capitalize() for word in function.__name__.split("_"))
        clean = model().validate(operation, params)
        return conform(operation, self.write(lambda tx: function(tx, clean, self.context())))

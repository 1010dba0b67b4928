"""The kinds of object that KECS handles, and where the API server keeps them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple
from urllib.parse import quote

Kind = Literal["Pod", "Service", "Node", "Namespace", "Secret", "Event"]


class _Place(NamedTuple):
    plural: str
    namespaced: bool


_PLACES: dict[str, _Place] = {
    "Pod": _Place("pods", namespaced=True),
    "Service": _Place("services", namespaced=True),
    "Node": _Place("nodes", namespaced=False),
    "Namespace": _Place("namespaces", namespaced=False),
    "Secret": _Place("secrets", namespaced=True),
    "Event": _Place("events", namespaced=True),
}
API_VERSION = "v1"
"""All of them are of the core group."""


def collection(kind: str, namespace: str | None) -> str:
    """Return the path of all objects of a kind; None: of all namespaces. Raises `KeyError`."""
    place = _PLACES[kind]
    if namespace is None or not place.namespaced:
        return f"/api/{API_VERSION}/{place.plural}"
    return f"/api/{API_VERSION}/namespaces/{quote(namespace, safe='')}/{place.plural}"


def item(kind: str, namespace: str | None, name: str) -> str:
    """Return the path of one object. Raises `KeyError`, and `ValueError` without a namespace or name."""
    if not name or (_PLACES[kind].namespaced and not namespace):
        raise ValueError(f"a {kind} is named by namespace and name, not {namespace!r} and {name!r}")
    return f"{collection(kind, namespace)}/{quote(name, safe='')}"


def selector(labels: Mapping[str, str]) -> str:
    """Return `labels` as a label selector: every one must be there with that value."""
    return ",".join(f"{name}={value}" for name, value in sorted(labels.items()))

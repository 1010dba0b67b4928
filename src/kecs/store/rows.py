"""Rows of ECS as rows of DuckDB: one table a kind, its key as columns, the whole row as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from kecs.ecs.model import (
    ClientToken,
    Cluster,
    Family,
    Key,
    LocalPort,
    Node,
    NodePort,
    Row,
    Service,
    Task,
    TaskDefinition,
)
from kecs.ecs.state import State
from kecs.errors import KecsError
from kecs.store.db import RESTORE, Database, Statement

Changes = Mapping[tuple[type[Row], Key], Row | None]
"""The new row by kind and key; None for a deleted one."""

KEYS: dict[type[Row], tuple[str, ...]] = {
    Cluster: ("region", "name"),
    Family: ("region", "name"),
    TaskDefinition: ("region", "family", "revision"),
    Service: ("region", "cluster", "name"),
    Task: ("region", "cluster", "id"),
    LocalPort: ("port",),
    Node: ("name",),
    NodePort: ("region", "cluster", "service", "task_id", "container_port", "protocol"),
    ClientToken: ("region", "operation", "token"),
}
"""Names of the key columns of each kind, in the order of `Row.key`; `schema.sql` has the same."""


@dataclass(frozen=True)
class Loaded:
    """What a database holds."""

    state: State
    last_position: int


def load(database: Database) -> Loaded:
    """Read all rows, in the order they were first put. Raises `KecsError` when one is not readable."""
    rows: list[Row] = []
    last = 0
    for kind in KEYS:
        found = list(_load_kind(database, kind))
        found.sort(key=lambda item: item[0])
        if len({row.key for _, row in found}) != len(found):
            raise _unreadable(database, kind, "it holds a key twice")
        rows.extend(row for _, row in found)
        last = max(last, found[-1][0] if found else 0)
    return Loaded(State(rows), last)


def encode(changes: Changes) -> dict[tuple[type[Row], Key], str | None]:
    """Encode the changed rows; raises `TypeError` for a row that JSON cannot hold."""
    return {name: None if row is None else msgspec.json.encode(row).decode() for name, row in changes.items()}


def statements(
    before: State, documents: Mapping[tuple[type[Row], Key], str | None], last_position: int
) -> tuple[list[Statement], int]:
    """Return what writes `documents` over the rows of `before`, and the last position then used."""
    inserts: dict[type[Row], list[tuple[Any, ...]]] = {}
    updates: dict[type[Row], list[tuple[Any, ...]]] = {}
    deletes: dict[type[Row], list[tuple[Any, ...]]] = {}
    for (kind, key), document in documents.items():
        known = before.get(kind, *key) is not None
        if document is None and known:
            deletes.setdefault(kind, []).append(key)
        elif document is not None and known:
            updates.setdefault(kind, []).append((document, *key))
        elif document is not None:
            last_position += 1
            inserts.setdefault(kind, []).append((*key, last_position, document))
    return [
        *((_delete(kind), values) for kind, values in deletes.items()),
        *((_update(kind), values) for kind, values in updates.items()),
        *((_insert(kind), values) for kind, values in inserts.items()),
    ], last_position


def _load_kind(database: Database, kind: type[Row]) -> Iterable[tuple[int, Row]]:
    decoder = msgspec.json.Decoder(kind)
    columns = ", ".join(KEYS[kind])
    # Table and column names are constants of this module, here and below.
    for *key, position, document in database.rows(f"SELECT {columns}, position, doc FROM {kind.TABLE}"):  # noqa: S608
        try:
            row = decoder.decode(document)
        except msgspec.MsgspecError as error:
            raise _unreadable(database, kind, str(error)) from error
        if row.key != tuple(key):
            raise _unreadable(database, kind, f"the row {row.key} has another key")
        yield position, row


def _insert(kind: type[Row]) -> str:
    marks = ", ".join("?" * (len(KEYS[kind]) + 2))
    return f"INSERT INTO {kind.TABLE} VALUES ({marks})"  # noqa: S608


def _update(kind: type[Row]) -> str:
    return f"UPDATE {kind.TABLE} SET doc = ? WHERE {_where(kind)}"  # noqa: S608


def _delete(kind: type[Row]) -> str:
    return f"DELETE FROM {kind.TABLE} WHERE {_where(kind)}"  # noqa: S608


def _where(kind: type[Row]) -> str:
    return " AND ".join(f"{column} = ?" for column in KEYS[kind])


def _unreadable(database: Database, kind: type[Row], why: str) -> KecsError:
    return KecsError(
        f"the database `{database.path}` cannot be read: table {kind.TABLE}: {why}",
        RESTORE.format(name=database.path.name),
    )

"""The whole state of ECS as values: an immutable `State`, and a `Draft` of its next version.

Operations read and write through `Tx`. The store runs them on a `Draft`, writes `Draft.changes()`
to disk in one transaction and only then makes `Draft.result()` the state that everyone reads.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol, TypeVar, cast

from kecs.ecs.model import KINDS, Key, Row

R = TypeVar("R", bound=Row)
Table = dict[Key, Row]


class Reader(Protocol):
    """Reading rows."""

    def get(self, kind: type[R], *key: str | int) -> R | None:
        """Return the row with exactly this key, or None."""
        ...

    def scan(self, kind: type[R], *prefix: str | int) -> list[R]:
        """Return the rows whose key begins with `prefix`, in the order they were first put."""
        ...


class Tx(Reader, Protocol):
    """Reading and writing rows inside one transaction."""

    def put(self, row: Row) -> None:
        """Insert or replace `row`."""
        ...

    def delete(self, row: Row) -> None:
        """Delete the row with the key of `row`; nothing happens when there is none."""
        ...


class State:
    """An immutable version of all rows."""

    def __init__(self, rows: Iterable[Row] = ()) -> None:
        self._tables: dict[type[Row], Table] = {kind: {} for kind in KINDS}
        for row in rows:
            self._tables[type(row)][row.key] = row

    @classmethod
    def of_tables(cls, tables: dict[type[Row], Table]) -> State:
        """Take over `tables`, which nobody may write any more."""
        state = cls()
        state._tables = tables
        return state

    def get(self, kind: type[R], *key: str | int) -> R | None:
        """See `Reader.get`."""
        return cast("R | None", self._tables[kind].get(key))

    def scan(self, kind: type[R], *prefix: str | int) -> list[R]:
        """See `Reader.scan`."""
        return _scan(self._tables[kind], prefix)  # type: ignore[return-value]

    def draft(self) -> Draft:
        """Begin a next version."""
        return Draft(self._tables)


class Draft:
    """A next version in the making (implements `Tx`): copies a table when it is first written."""

    def __init__(self, tables: Mapping[type[Row], Table]) -> None:
        self._tables = dict(tables)
        self._changes: dict[tuple[type[Row], Key], Row | None] = {}
        self._copied: set[type[Row]] = set()

    def get(self, kind: type[R], *key: str | int) -> R | None:
        """See `Reader.get`."""
        return cast("R | None", self._tables[kind].get(key))

    def scan(self, kind: type[R], *prefix: str | int) -> list[R]:
        """See `Reader.scan`."""
        return _scan(self._tables[kind], prefix)  # type: ignore[return-value]

    def put(self, row: Row) -> None:
        """See `Tx.put`. A row equal to the one there is no change."""
        kind, key = type(row), row.key
        if self._tables[kind].get(key) == row:
            return
        self._own(kind)[key] = row
        self._changes[kind, key] = row

    def delete(self, row: Row) -> None:
        """See `Tx.delete`."""
        kind, key = type(row), row.key
        if key in self._tables[kind]:
            del self._own(kind)[key]
            self._changes[kind, key] = None

    def changes(self) -> dict[tuple[type[Row], Key], Row | None]:
        """Return what was changed: the new row by kind and key, None for a deleted one."""
        return dict(self._changes)

    def absorb(self, other: Draft) -> None:
        """Take over all that `other`, drafted from this draft, has changed."""
        self._tables = dict(other._tables)
        self._copied |= other._copied
        self._changes |= other._changes

    def draft(self) -> Draft:
        """Begin a draft on top of this one (a savepoint): drop it, or `absorb` it."""
        return Draft(self._tables)

    def result(self) -> State:
        """Return the state with the changes in it."""
        return State.of_tables(self._tables)

    def _own(self, kind: type[Row]) -> Table:
        if kind not in self._copied:
            self._tables[kind] = dict(self._tables[kind])
            self._copied.add(kind)
        return self._tables[kind]


def _scan(table: Table, prefix: Key) -> list[Row]:
    if not prefix:
        return list(table.values())
    size = len(prefix)
    return [row for key, row in table.items() if key[:size] == prefix]

"""The state of ECS on disk and in memory: one thread writes, everybody reads values.

The control plane is its only user. `Store.state` is the committed state; `Store.transact` makes the
next one. Transactions that wait while one is committed share the next commit.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import queue
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, cast

from kecs.ecs.model import Key, Row
from kecs.ecs.state import Draft, State, Tx
from kecs.errors import KecsError
from kecs.store import rows
from kecs.store.db import Database
from kecs.store.migrations import open_database

T = TypeVar("T")
Changed = Mapping[tuple[type[Row], Key], tuple[Row | None, Row | None]]
"""(old, new) by kind and key: what one commit changed."""
Subscriber = Callable[[Changed], None]

MAX_GROUP = 256
"""Most transactions that share a commit, so that the first of them does not wait for ever."""

_log = logging.getLogger(__name__)


class Store:
    """The one owner of an instance's database. Made by `Store.open`, used on one event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._state = State()
        self._subscribers: list[Subscriber] = []
        self._calls: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self._closed = False
        self._thread: threading.Thread | None = None

    @classmethod
    async def open(cls, path: Path) -> Store:
        """Open the database at `path` and load it; it is made when there is none, or migrated.

        Raises `KecsError` when it is corrupt, newer, locked by another process, or the disk is full.
        """
        loop = asyncio.get_running_loop()
        store = cls(loop)
        opened: asyncio.Future[State] = loop.create_future()
        # A daemon thread, so that a failure elsewhere never keeps the process alive: all that was
        # acknowledged is on disk.
        store._thread = threading.Thread(target=store._run, args=(path, opened), name="store", daemon=True)
        store._thread.start()
        atexit.register(store._end)
        store._state = await opened
        return store

    @property
    def state(self) -> State:
        """The committed state, immutable. It changes only between two callbacks of the event loop."""
        return self._state

    def subscribe(self, callback: Subscriber) -> None:
        """Call `callback` on the event loop after each commit that changed something."""
        self._subscribers.append(callback)

    async def transact(self, fn: Callable[[Tx], T]) -> T:
        """Run `fn` on the store's thread on a draft; return its result once that is durable.

        When `fn` raises, nothing changes and the error comes out here. `KecsError`: the commit failed
        (disk full), nothing changed. A cancelled caller does not stop a transaction that has begun.
        `fn` may run once only, must not block, and must not keep its `Tx`.
        """
        if self._closed:
            raise KecsError("the store is closed")
        call = _Call(fn, self._loop.create_future())
        self._calls.put(call)
        return cast("T", await call.future)

    async def close(self) -> None:
        """Finish what was asked for, write everything into the one file and close it."""
        if self._closed or self._thread is None:
            return
        self._closed = True
        await asyncio.to_thread(self._end)

    def _end(self) -> None:
        """End the thread; also when the interpreter ends without `close`, for DuckDB then complains."""
        atexit.unregister(self._end)
        self._calls.put(None)
        if self._thread is not None:
            self._thread.join()

    # What follows runs on the store's thread, down to `_publish`.

    def _run(self, path: Path, opened: asyncio.Future[State]) -> None:
        try:
            database = open_database(path)
            try:
                loaded = rows.load(database)
            except BaseException:
                database.close(checkpoint=False)
                raise
        except BaseException as error:  # noqa: BLE001 - it is raised in `open`
            self._post(_fail, opened, error)
            return
        self._post(_succeed, opened, loaded.state)
        writer = _Writer(database, loaded)
        for group in self._groups():
            self._post(self._publish, writer.commit(group))
            database.checkpoint_when_due()
        database.close()

    def _groups(self) -> Iterator[list[_Call]]:
        """Yield all calls that wait, until `close`."""
        while (call := self._calls.get()) is not None:
            group = [call]
            while len(group) < MAX_GROUP:
                try:
                    more = self._calls.get_nowait()
                except queue.Empty:
                    break
                if more is None:
                    yield group
                    return
                group.append(more)
            yield group

    def _post(self, function: Callable[..., None], *arguments: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(function, *arguments)
        except RuntimeError:  # the loop is closed: nobody waits any more
            _log.debug("the event loop ended before the store")

    # On the event loop again.

    def _publish(self, outcome: _Outcome) -> None:
        self._state = outcome.state
        if outcome.changed:
            for subscriber in self._subscribers:
                try:
                    subscriber(outcome.changed)
                except Exception:  # noqa: BLE001 - its fault must not fail what is durable already
                    _log.exception("a subscriber of the store failed")
        for future, result in outcome.results:
            _succeed(future, result)
        for future, error in outcome.errors:
            _fail(future, error)


@dataclass(frozen=True)
class _Call:
    fn: Callable[[Tx], Any]
    future: asyncio.Future[Any]


@dataclass
class _Outcome:
    """What became of a group of transactions."""

    state: State
    changed: Changed = field(default_factory=dict)
    results: list[tuple[asyncio.Future[Any], Any]] = field(default_factory=list)
    errors: list[tuple[asyncio.Future[Any], BaseException]] = field(default_factory=list)


class _Writer:
    """Turns groups of transactions into commits; lives on the store's thread."""

    def __init__(self, database: Database, loaded: rows.Loaded) -> None:
        self._database = database
        self._state = loaded.state
        self._position = loaded.last_position

    def commit(self, calls: list[_Call]) -> _Outcome:
        """Run `calls` one after the other, each on a savepoint, and commit what they changed."""
        outcome = _Outcome(self._state)
        draft = self._state.draft()
        documents: dict[tuple[type[Row], Key], str | None] = {}
        for call in calls:
            savepoint = draft.draft()
            try:
                result = call.fn(savepoint)
                # Encoded here, so that a row that cannot be is its caller's error alone.
                documents |= rows.encode(savepoint.changes())
            except BaseException as error:  # noqa: BLE001 - it is raised in `transact`
                outcome.errors.append((call.future, error))
            else:
                draft.absorb(savepoint)
                outcome.results.append((call.future, result))
        changed = self._changed(draft)
        if changed:
            try:
                self._write(draft, {name: documents[name] for name in changed})
            except Exception as error:  # noqa: BLE001 - it is raised in each `transact`
                # Those that failed by themselves may have seen what is now not there: all get this.
                outcome.errors = [(call.future, error) for call in calls]
                outcome.results = []
                return outcome
            self._state = outcome.state = draft.result()
            outcome.changed = changed
        return outcome

    def _changed(self, draft: Draft) -> Changed:
        pairs = {name: (self._state.get(name[0], *name[1]), new) for name, new in draft.changes().items()}
        return {name: (old, new) for name, (old, new) in pairs.items() if old != new}

    def _write(self, draft: Draft, documents: Mapping[tuple[type[Row], Key], str | None]) -> None:
        statements, position = rows.statements(self._state, documents, self._position)
        try:
            self._database.write(statements)
        except KecsError:
            if not self._is_written(draft, documents):
                raise
        self._position = position

    def _is_written(self, draft: Draft, documents: Mapping[tuple[type[Row], Key], str | None]) -> bool:
        """Look whether a commit that reported a failure, and broke the connection, is there after all."""
        if not self._database.reopened:
            return False
        there = rows.load(self._database).state
        return all(there.get(kind, *key) == draft.get(kind, *key) for kind, key in documents)


def _succeed(future: asyncio.Future[Any], result: Any) -> None:
    if not future.done():
        future.set_result(result)


def _fail(future: asyncio.Future[Any], error: BaseException) -> None:
    if not isinstance(error, Exception) or isinstance(error, StopIteration):
        # A future does not carry StopIteration; the others would end the event loop.
        error = RuntimeError(f"a transaction raised {error!r}")
    if not future.done():
        future.set_exception(error)

"""One DuckDB file: opening it, writing to it safely, and saying clearly what is wrong with it.

Used by the store's thread only. It knows SQL and files, and no ECS. It never moves a file aside.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from kecs.errors import ExitCode, KecsError

if TYPE_CHECKING:
    from _duckdb import DuckDBPyConnection

CHECKPOINT_BYTES = 2 * 1024 * 1024
"""Size of the write-ahead log at which it is written into the file: replaying that much at the next
start takes under 0.1 s, and changed rows wait in memory no longer than that."""

_CONFIG = {
    "threads": "1",
    "memory_limit": "96MB",
    # DuckDB's own checkpoint runs inside COMMIT: when it fails (disk full), the commit reports an
    # error although it is durable. `checkpoint` below runs between commits instead.
    "checkpoint_threshold": "1TB",
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
}
_NEEDED = ("connect", "Error", "CatalogException")
_log = logging.getLogger(__name__)

RESTORE = "restore `{name}` and `{name}.wal` from a copy, or move both away to begin anew"
"""What to do about a database that cannot be read."""

Statement = tuple[str, Sequence[Sequence[Any]]]
"""SQL with `?`, and the values of each of its executions."""


class Database:
    """The one connection to the file at `path`, which must exist."""

    def __init__(self, path: Path) -> None:
        """Open the file; raises `KecsError` when it is corrupt, newer, locked or not ours to read."""
        self.path = path
        self.reopened = False
        """True after a `write` that failed so badly that the file had to be opened again: what it
        wrote may then be there all the same, and the caller has to look."""
        self._engine = engine()
        self._connection: DuckDBPyConnection | None = None
        self._checkpoint_at = CHECKPOINT_BYTES
        self._connect()

    @property
    def log_path(self) -> Path:
        """DuckDB's write-ahead log."""
        return write_ahead_log(self.path)

    def execute(self, sql: str, values: Sequence[Any] = ()) -> None:
        """Run a statement (or a script without values) by itself."""
        with self._translated():
            self._open().execute(sql, list(values))

    def rows(self, sql: str, values: Sequence[Any] = ()) -> Iterator[tuple[Any, ...]]:
        """Yield the rows of a query, a few hundred at a time: the result is never held whole."""
        with self._translated():
            cursor = self._open().execute(sql, list(values))
            while chunk := cursor.fetchmany(256):
                yield from chunk

    def has_table(self, name: str) -> bool:
        """Tell whether there is a table `name` (DuckDB's own list of tables takes 15 ms)."""
        try:
            self._open().execute(f"SELECT 1 FROM {name} LIMIT 0")  # noqa: S608 - a constant of ours
        except self._engine.CatalogException:
            return False
        except self._engine.Error as error:
            raise translate(self.path, error) from error
        return True

    def write(self, statements: Iterable[Statement]) -> None:
        """Run `statements` in one transaction: durable on return, or nothing changed and `KecsError`.

        Should the error leave it open whether it was committed, `reopened` is True.
        """
        self.reopened = False
        connection = self._open()
        try:
            connection.begin()
            for sql, values in statements:
                if len(values) == 1:  # 0.5 ms less
                    connection.execute(sql, values[0])
                else:
                    connection.executemany(sql, values)
            connection.commit()
        except BaseException as error:
            self._recover()
            if isinstance(error, self._engine.Error):
                raise translate(self.path, error) from error
            raise

    def checkpoint_when_due(self) -> None:
        """Move the write-ahead log into the file once it is large. Never fails: the log is as durable."""
        try:
            size = self.log_path.stat().st_size
        except OSError:
            return
        if size < self._checkpoint_at:
            return
        if self.checkpoint():
            self._checkpoint_at = CHECKPOINT_BYTES
        else:
            self._checkpoint_at = size + CHECKPOINT_BYTES

    def checkpoint(self) -> bool:
        """Move the write-ahead log into the file; tell whether it went well (it needs disk space)."""
        try:
            connection = self._open()
            connection.execute("CHECKPOINT")
        except KecsError:
            return False
        except self._engine.Error as error:
            _log.warning("the database was not checkpointed: %s", first_line(error))
            # A failed checkpoint invalidates the connection, and loses nothing.
            self._recover()
            return False
        return True

    def close(self, *, checkpoint: bool = True) -> None:
        """Close the file, by default with everything in it and no write-ahead log beside it."""
        if self._connection is not None and checkpoint:
            self.checkpoint()
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _connect(self) -> None:
        try:
            self._connection = self._engine.connect(str(self.path), config=_CONFIG)
            # Closing must not write into a file of a newer version: `close` says so itself.
            self._connection.execute("PRAGMA disable_checkpoint_on_shutdown")
        except self._engine.Error as error:
            raise translate(self.path, error) from error

    def _open(self) -> DuckDBPyConnection:
        if self._connection is None:
            self._connect()
            assert self._connection is not None
        return self._connection

    def _recover(self) -> None:
        """Make the connection usable after an error; when that fails, the next use tries again."""
        assert self._connection is not None
        with contextlib.suppress(self._engine.Error):
            self._connection.rollback()
        try:
            self._connection.execute("SELECT 1").fetchall()
        except self._engine.Error as error:
            _log.warning("the database is opened again: %s", first_line(error))
            self.reopened = True
            self._connection.close()
            self._connection = None
            with contextlib.suppress(KecsError):
                self._connect()

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except self._engine.Error as error:
            raise translate(self.path, error) from error


def engine() -> ModuleType:
    """Import DuckDB's compiled module, which is all that is needed: 0.04 s instead of 0.3 s.

    The module is private, so where it is missing or not as expected, the public one is taken.
    """
    try:
        import _duckdb
    except ImportError:
        pass
    else:
        if all(hasattr(_duckdb, name) for name in _NEEDED):
            return _duckdb
    import duckdb

    return duckdb


def write_ahead_log(path: Path) -> Path:
    """Return the path of DuckDB's write-ahead log of the database at `path`."""
    return path.with_name(f"{path.name}.wal")


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text."""
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__


def translate(path: Path, error: Exception) -> KecsError:
    """Turn an error of DuckDB on the file at `path` into what a person can act on.

    DuckDB gives most of them one class, so it is the text that tells.
    """
    text = str(error)
    line = first_line(error)
    if "Could not set lock" in text or "Conflicting lock" in text:
        return KecsError(
            f"the database `{path}` is in use by another process: {line}",
            "end that process, or set KECS_HOME to another folder",
            ExitCode.CONFLICT,
        )
    if "No space left" in text or "quota exceeded" in text.lower() or "File too large" in text:
        return KecsError(f"no space left to write `{path}`: {line}", "free some space; nothing was changed")
    if "Permission denied" in text or "Read-only file system" in text:
        return KecsError(
            f"the database `{path}` cannot be used: {line}",
            "make the folder yours and writable, or set KECS_HOME to another folder",
        )
    if "newer version of DuckDB" in text:
        return newer(path, line)
    return KecsError(
        f"the database `{path}` cannot be read: {line}",
        RESTORE.format(name=path.name),
    )


def newer(path: Path, why: str) -> KecsError:
    """Return the error for a database that a newer KECS or DuckDB wrote; the file is left alone."""
    return KecsError(
        f"the database `{path}` was written by a newer version: {why}",
        "update KECS, or set KECS_HOME to another folder",
        ExitCode.CONFLICT,
    )

"""The database's schema: made at the first start, brought up to date at a later one.

A database of an older version is copied beside itself before it is changed; one of a newer version
is refused and left alone, byte for byte.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Mapping
from importlib import resources
from pathlib import Path

import kecs
from kecs import files
from kecs.errors import KecsError
from kecs.store.db import Database, engine, newer, translate, write_ahead_log

VERSION = 2
"""Version of `schema.sql`. Raise it with each change of a table, and add to `MIGRATIONS`.

Adding a member with a default to a row of `kecs.ecs.model` needs neither: rows are JSON.
"""

MIGRATIONS: Mapping[int, tuple[str, ...]] = {
    1: (
        "CREATE TABLE node (name VARCHAR NOT NULL, position BIGINT NOT NULL, doc JSON NOT NULL)",
        (
            "CREATE TABLE node_port (region VARCHAR NOT NULL, cluster VARCHAR NOT NULL, "
            "service VARCHAR NOT NULL, task_id VARCHAR NOT NULL, container_port BIGINT NOT NULL, "
            "protocol VARCHAR NOT NULL, position BIGINT NOT NULL, doc JSON NOT NULL)"
        ),
    ),
}
"""SQL statements that take a database from the version that is the key to the next one."""


def open_database(path: Path) -> Database:
    """Open the database at `path`, made or migrated as needed.

    Raises `KecsError` when it is corrupt, newer, locked, or when the disk is full.
    """
    if not path.exists():
        _create(path)
    database = Database(path)
    try:
        version = _checked_version(database)
    except BaseException:
        database.close(checkpoint=False)
        raise
    if version == VERSION:
        return database
    # DuckDB's lock on a file goes when any descriptor of it is closed (fcntl), so the copy is made
    # while the file is closed, and whole: without a write-ahead log.
    database.close()
    copy = _keep_copy(path, version)
    database = Database(path)
    try:
        _migrate(database, version)
    except KecsError as error:
        database.close(checkpoint=False)
        raise KecsError(
            f"the database could not be brought to format {VERSION}: {error.message}",
            f"{error.hint}; `{copy}` holds it as it was",
            error.exit_code,
        ) from error
    return database


def _create(path: Path) -> None:
    """Make an empty database under another name first, so that no half of one ever has its own."""
    if write_ahead_log(path).exists():
        raise KecsError(
            f"the database `{path}` is missing, but its log `{write_ahead_log(path).name}` is there",
            f"restore `{path.name}`, or move the log away to begin anew",
        )
    temporary = path.with_name(f".{path.name}.new")
    try:
        for leftover in (temporary, write_ahead_log(temporary)):
            leftover.unlink(missing_ok=True)
        with _new_connection(temporary) as connection:
            connection.execute(resources.files("kecs.store").joinpath("schema.sql").read_text("utf-8"))
            connection.execute("INSERT INTO kecs_schema VALUES (?, ?)", [VERSION, kecs.__version__])
        temporary.chmod(0o600)
        temporary.rename(path)
        _sync(path.parent)
    except OSError as error:
        raise files.unusable(path, error) from error
    except engine().Error as error:
        raise translate(path, error) from error


def _new_connection(path: Path) -> contextlib.closing:  # type: ignore[type-arg]
    return contextlib.closing(engine().connect(str(path), config={"threads": "1"}))


def _checked_version(database: Database) -> int:
    """Return the version of the database's schema, which is one that this program can read."""
    known = database.has_table("kecs_schema")
    versions = list(database.rows("SELECT version FROM kecs_schema")) if known else []
    if len(versions) != 1:
        raise KecsError(
            f"`{database.path}` is no database of KECS",
            "move it away, or set KECS_HOME to another folder",
        )
    version = int(versions[0][0])
    if version > VERSION:
        raise newer(database.path, f"its format is {version}, this one reads up to {VERSION}")
    return version


def _keep_copy(path: Path, version: int) -> Path:
    copy = path.with_name(f"{path.name}.v{version}")
    temporary = path.with_name(f".{copy.name}.new")
    try:
        shutil.copyfile(path, temporary)
        temporary.chmod(0o600)
        _sync(temporary)
        temporary.replace(copy)
        _sync(path.parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise files.unusable(copy, error) from error
    return copy


def _migrate(database: Database, version: int) -> None:
    statements = [(sql, [()]) for step in range(version, VERSION) for sql in MIGRATIONS[step]]
    database.write(
        [*statements, ("UPDATE kecs_schema SET version = ?, written_by = ?", [(VERSION, kecs.__version__)])]
    )
    database.checkpoint()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

"""Opening the database: made, migrated, refused; and what a failing disk does to it."""

import resource
import shutil
import struct
import subprocess
import sys
import types

import pytest

from kecs.errors import ExitCode, KecsError
from kecs.store import db, migrations
from kecs.store.db import Database, engine, write_ahead_log
from kecs.store.migrations import open_database


@pytest.fixture
def path(short_path):
    return short_path / "kecs.duckdb"


def insert(port):
    return ("INSERT INTO local_port VALUES (?, ?, '{}')", [(port, port)])


def ports(database):
    return [port for (port,) in database.rows("SELECT port FROM local_port ORDER BY port")]


def contents(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_a_new_database_is_private_and_the_only_file_after_close(path):
    """Nothing but the one file is left, mode 0600."""
    open_database(path).close()

    assert [file.name for file in path.parent.iterdir()] == ["kecs.duckdb"]
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_half_made_database_of_a_killed_start_is_made_again(path):
    """What a kill left of a database that never had its name does not stop the next start."""
    half = path.with_name(".kecs.duckdb.new")
    half.write_bytes(b"half")
    write_ahead_log(half).write_bytes(b"half")

    open_database(path).close()

    assert [file.name for file in path.parent.iterdir()] == ["kecs.duckdb"]


def test_a_log_without_its_database_is_refused(path):
    """A write-ahead log whose file is gone may hold what was acknowledged: it is not thrown away."""
    write_ahead_log(path).write_bytes(b"precious")

    with pytest.raises(KecsError, match="is missing, but its log"):
        open_database(path)
    assert contents(path.parent) == {"kecs.duckdb.wal": b"precious"}


def flip(data):
    return data[:12288] + bytes(byte ^ 0xFF for byte in data[12288:])


@pytest.mark.parametrize(
    "spoil",
    [lambda _: b"", lambda _: b"abc", lambda data: b"x" * len(data), lambda data: data[:5000], flip],
    ids=["empty", "short", "garbage", "cut", "flipped"],
)
def test_a_corrupt_database_is_refused_and_left_where_it_is(path, spoil):
    """The error names the file and says what to do; no byte changes, nothing is moved aside."""
    open_database(path).close()
    path.write_bytes(spoil(path.read_bytes()))
    before = contents(path.parent)

    with pytest.raises(KecsError, match="cannot be read") as caught:
        open_database(path)
    assert str(path) in caught.value.message
    assert "restore `kecs.duckdb`" in caught.value.hint
    assert contents(path.parent) == before


def test_a_corrupt_write_ahead_log_is_refused_and_left_where_it_is(path):
    """A log that is damaged in its middle (not torn at its end) is not passed over."""
    database = open_database(path)
    for port in range(20):
        database.write([insert(port)])
    database.close(checkpoint=False)
    log = write_ahead_log(path)
    data = bytearray(log.read_bytes())
    data[data.index(b"{}", len(data) // 2)] ^= 0xFF
    log.write_bytes(data)
    before = contents(path.parent)

    with pytest.raises(KecsError, match="cannot be read"):
        open_database(path)
    assert contents(path.parent) == before


def test_a_torn_end_of_the_log_loses_only_what_was_not_whole(path):
    """A log cut at any place gives a prefix of the commits, and takes new ones behind it."""
    database = open_database(path)
    for port in range(10):
        database.write([insert(port)])
    database.close(checkpoint=False)
    whole = contents(path.parent)
    size = len(whole["kecs.duckdb.wal"])

    for cut in range(size // 10, size, size // 10):
        path.write_bytes(whole["kecs.duckdb"])
        write_ahead_log(path).write_bytes(whole["kecs.duckdb.wal"][:cut])
        database = open_database(path)
        found = ports(database)
        database.write([insert(99)])
        database.close(checkpoint=False)
        database = open_database(path)

        assert found == list(range(len(found)))
        assert len(found) < 10
        assert ports(database) == [*found, 99]
        database.close(checkpoint=False)


def test_a_database_of_a_newer_kecs_is_refused_and_left_alone(path):
    """Not one byte of it or of its log changes, and the hint says to update."""
    database = open_database(path)
    database.execute("UPDATE kecs_schema SET version = 99, written_by = '9.0.0'")
    database.close(checkpoint=False)
    before = contents(path.parent)
    assert "kecs.duckdb.wal" in before

    with pytest.raises(KecsError, match=f"format is 99, this one reads up to {migrations.VERSION}") as caught:
        open_database(path)
    assert caught.value.exit_code is ExitCode.CONFLICT
    assert "update KECS" in caught.value.hint
    assert contents(path.parent) == before


def checksum(block):
    """DuckDB's checksum of a block (src/common/checksum.cpp)."""
    result = 5381
    for (word,) in struct.iter_unpack("<Q", block):
        result ^= word * 0xBF58476D1CE4E5B9 & 0xFFFFFFFFFFFFFFFF
    return result


def test_a_file_of_a_newer_duckdb_is_refused_as_newer(path):
    """DuckDB's own file format has a version too (a 64-bit word behind the magic bytes `DUCK`)."""
    open_database(path).close()
    data = bytearray(path.read_bytes())
    assert data[8:12] == b"DUCK"
    data[12:20] = (9999).to_bytes(8, "little")
    data[:8] = checksum(data[8:4096]).to_bytes(8, "little")
    path.write_bytes(data)
    before = contents(path.parent)

    with pytest.raises(KecsError, match="newer version") as caught:
        open_database(path)
    assert caught.value.exit_code is ExitCode.CONFLICT
    assert contents(path.parent) == before


def test_a_foreign_duckdb_file_is_refused(path):
    """A database without our schema is not taken over."""
    connection = engine().connect(str(path))
    connection.execute("CREATE TABLE kept AS SELECT 1 AS x")
    connection.close()
    before = contents(path.parent)

    with pytest.raises(KecsError, match="no database of KECS"):
        open_database(path)
    assert contents(path.parent) == before


def test_a_database_in_use_by_another_process_names_it(path):
    """The error says that it is locked and by which process."""
    open_database(path).close()
    script = (
        "import sys; from pathlib import Path; from kecs.store.migrations import open_database;"
        "held = open_database(Path(sys.argv[1])); print('open', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", script, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert holder.stdout.readline() == b"open\n"
        with pytest.raises(KecsError, match=f"in use by another process: .*PID {holder.pid}") as caught:
            open_database(path)
        assert caught.value.exit_code is ExitCode.CONFLICT
    finally:
        holder.communicate()
    open_database(path).close()


def test_an_older_database_is_migrated_and_kept_as_it_was(path, monkeypatch):
    """Each step runs, the version is raised, and a copy of the old file with all its rows stays."""
    database = open_database(path)
    database.write([insert(1)])
    database.close(checkpoint=False)
    now = migrations.VERSION
    monkeypatch.setattr(migrations, "VERSION", now + 2)
    monkeypatch.setattr(
        migrations,
        "MIGRATIONS",
        {now: ("CREATE TABLE extra (x INTEGER)",), now + 1: ("INSERT INTO extra VALUES (7)",)},
    )

    database = open_database(path)
    assert list(database.rows("SELECT x FROM extra")) == [(7,)]
    assert list(database.rows("SELECT version FROM kecs_schema")) == [(now + 2,)]
    assert ports(database) == [1]
    database.close()
    open_database(path).close()
    assert sorted(contents(path.parent)) == ["kecs.duckdb", f"kecs.duckdb.v{now}"]

    monkeypatch.undo()
    old = open_database(path.with_name(f"kecs.duckdb.v{now}"))
    assert ports(old) == [1]
    assert not old.has_table("extra")
    old.close()


def test_a_database_of_version_1_gets_the_tables_of_nodes_and_node_ports(path):
    """What version 1 made is read on, and its tables are those of a new database, column by column."""
    open_database(path).close()
    fresh = tables(path)
    database = Database(path)
    database.write([insert(1)])
    database.execute("DROP TABLE node; DROP TABLE node_port; UPDATE kecs_schema SET version = 1")
    database.close()

    database = open_database(path)
    assert ports(database) == [1]
    assert list(database.rows("SELECT version FROM kecs_schema")) == [(migrations.VERSION,)]
    database.close()
    assert tables(path) == fresh


def tables(path):
    """Return the columns of each table with their types."""
    database = Database(path)
    names = [name for (name,) in database.rows("SELECT table_name FROM duckdb_tables()")]
    found = {name: list(database.rows(f"DESCRIBE {name}")) for name in names}
    database.close()
    return found


def test_a_failed_migration_changes_nothing(path, monkeypatch):
    """All steps are one transaction; the error names the copy."""
    open_database(path).close()
    now = migrations.VERSION
    monkeypatch.setattr(migrations, "VERSION", now + 1)
    monkeypatch.setattr(
        migrations, "MIGRATIONS", {now: ("CREATE TABLE extra (x INTEGER)", "SELECT error('no')")}
    )

    with pytest.raises(KecsError, match=f"could not be brought to format {now + 1}") as caught:
        open_database(path)
    assert f"kecs.duckdb.v{now}" in caught.value.hint

    monkeypatch.undo()
    database = open_database(path)
    assert not database.has_table("extra")
    database.close()


def test_a_missing_folder_is_an_error_that_names_it(short_path):
    """Making the instance's folder is not the store's work."""
    with pytest.raises(KecsError, match="nowhere"):
        open_database(short_path / "nowhere" / "kecs.duckdb")


@pytest.fixture
def disk_limit():
    """Let no file of this process grow beyond a size: what a full disk looks like."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (soft if size is None else size, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_first_start_on_a_full_disk_is_refused_and_works_later(path, disk_limit):
    """No half of a database gets the name; the next start, with space, makes a whole one."""
    disk_limit(5000)
    with pytest.raises(KecsError, match="no space left"):
        open_database(path)
    assert not path.exists()

    disk_limit(None)
    open_database(path).close()
    assert [file.name for file in path.parent.iterdir()] == ["kecs.duckdb"]


def test_a_migration_without_space_for_the_copy_leaves_the_old_database(path, disk_limit, monkeypatch):
    """Nothing is migrated before the copy is whole."""
    open_database(path).close()
    before = contents(path.parent)
    now = migrations.VERSION
    monkeypatch.setattr(migrations, "VERSION", now + 1)
    monkeypatch.setattr(migrations, "MIGRATIONS", {now: ("CREATE TABLE extra (x INTEGER)",)})
    disk_limit(5000)

    with pytest.raises(KecsError, match=rf"kecs\.duckdb\.v{now}"):
        open_database(path)
    disk_limit(None)
    assert contents(path.parent) == before


def test_a_write_on_a_full_disk_changes_nothing_and_later_ones_work(path, disk_limit):
    """The commit is taken back whole, and the same connection goes on once there is space."""
    database = open_database(path)
    database.write([insert(1)])
    disk_limit(write_ahead_log(path).stat().st_size + 50)

    with pytest.raises(KecsError, match="no space left") as caught:
        database.write([insert(port) for port in range(100, 200)])
    assert "nothing was changed" in caught.value.hint
    assert ports(database) == [1]

    disk_limit(None)
    database.write([insert(2)])
    database.close(checkpoint=False)
    database = open_database(path)
    assert ports(database) == [1, 2]
    database.close()


def test_a_checkpoint_on_a_full_disk_loses_nothing_and_later_writes_work(path, disk_limit, caplog):
    """DuckDB invalidates the connection then; it is opened again with everything in it."""
    database = open_database(path)
    database.execute("CREATE TABLE bulk AS SELECT uuid() || uuid() AS x FROM range(20000)")
    database.write([insert(1)])
    disk_limit(path.stat().st_size + 4096)

    assert not database.checkpoint()
    assert database.reopened
    assert "not checkpointed" in caplog.text
    assert ports(database) == [1]

    disk_limit(None)
    database.write([insert(2)])
    database.close()
    database = open_database(path)
    assert ports(database) == [1, 2]
    database.close()


def test_the_log_is_moved_into_the_file_when_it_has_grown(path, monkeypatch):
    """Below the bound nothing happens; at the bound the log is gone and the rows are in the file."""
    monkeypatch.setattr(db, "CHECKPOINT_BYTES", 2000)
    database = open_database(path)
    database.write([insert(1)])
    database.checkpoint_when_due()
    assert write_ahead_log(path).exists()

    database.write([insert(port) for port in range(2, 100)])
    database.checkpoint_when_due()

    assert not write_ahead_log(path).exists() or write_ahead_log(path).stat().st_size < 2000
    assert ports(database) == list(range(1, 100))
    database.close()


def test_the_private_module_is_replaced_by_the_public_one_where_it_is_missing(monkeypatch):
    """DuckDB 1.2 to 1.4 have no `_duckdb`; another one might lack what is needed."""
    import duckdb

    assert engine().__name__ == "_duckdb"
    monkeypatch.setitem(sys.modules, "_duckdb", types.ModuleType("_duckdb"))
    assert engine() is duckdb
    monkeypatch.setitem(sys.modules, "_duckdb", None)
    assert engine() is duckdb


def test_a_copy_of_the_files_is_a_whole_backup(path, short_path):
    """The database and its log, copied together while nobody writes, open elsewhere."""
    database = open_database(path)
    database.write([insert(1)])
    copy = short_path / "copy.duckdb"
    shutil.copy(path, copy)
    shutil.copy(write_ahead_log(path), write_ahead_log(copy))
    database.close()

    other = Database(copy)
    assert ports(other) == [1]
    other.close()

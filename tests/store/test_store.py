"""The store: transactions that are whole, groups that share a commit, subscribers that hear of it."""

import asyncio
import random
import resource
import threading

import pytest

from kecs.ecs.model import Cluster, Family
from kecs.errors import KecsError
from kecs.store import db, rows
from kecs.store.db import Database
from kecs.store.ecs import Store


def cluster(name, **members):
    return Cluster(region="r", name=name, created_at=1.0, **members)


def put(row):
    return lambda tx: tx.put(row)


@pytest.fixture
def path(short_path):
    return short_path / "kecs.duckdb"


@pytest.fixture
def with_store(path):
    """Run a coroutine function with an open store, which is closed afterwards."""

    def run(use):
        async def main():
            store = await Store.open(path)
            try:
                return await asyncio.wait_for(use(store), 30)
            finally:
                await store.close()

        return asyncio.run(main())

    yield run
    assert not [thread for thread in threading.enumerate() if thread.name == "store"]


class Gate:
    """A transaction that keeps the store's thread busy, so that those behind it wait as a group."""

    def __init__(self):
        self.entered = threading.Event()
        self.opened = threading.Event()

    def __call__(self, tx):
        self.entered.set()
        assert self.opened.wait(20)

    async def close_behind(self, store):
        task = asyncio.ensure_future(store.transact(self))  # noqa: TID251 - awaited by the test
        await asyncio.to_thread(self.entered.wait, 20)
        return task


async def grouped(store, *functions):
    """Have `functions` run in one group; return their results and errors."""
    gate = Gate()
    first = await gate.close_behind(store)
    rest = [asyncio.ensure_future(store.transact(fn)) for fn in functions]  # noqa: TID251
    await asyncio.sleep(0)
    gate.opened.set()
    await first
    return await asyncio.gather(*rest, return_exceptions=True)


def test_a_transaction_returns_its_result_and_is_there_after_reopening(with_store):
    """The result of the function comes back, and what it put is in the state, now and later."""

    async def use(store):
        before = store.state

        def make(tx):
            tx.put(cluster("a"))
            return [row.name for row in tx.scan(Cluster)]

        assert await store.transact(make) == ["a"]
        assert store.state.get(Cluster, "r", "a") == cluster("a")
        assert before.get(Cluster, "r", "a") is None

    with_store(use)

    async def look(store):
        return store.state.scan(Cluster)

    assert with_store(look) == [cluster("a")]


def test_a_transaction_that_raises_changes_nothing(with_store):
    """Its error comes out as it is, and neither state nor disk has what it put before."""

    async def use(store):
        await store.transact(put(cluster("kept")))

        def fail(tx):
            tx.delete(cluster("kept"))
            tx.put(cluster("lost"))
            raise LookupError("no")

        with pytest.raises(LookupError, match="no"):
            await store.transact(fail)
        assert store.state.scan(Cluster) == [cluster("kept")]

    with_store(use)

    async def look(store):
        return store.state.scan(Cluster)

    assert with_store(look) == [cluster("kept")]


def test_waiting_transactions_share_one_commit_and_see_each_other(with_store, monkeypatch):
    """Ten that wait cost one commit; each sees those before it, and a failing one fails alone."""
    commits = []
    write = Database.write
    monkeypatch.setattr(
        Database, "write", lambda self, statements: commits.append(1) or write(self, statements)
    )

    async def use(store):
        def add(number):
            def fn(tx):
                if number == 5:
                    tx.put(cluster("half"))
                    raise LookupError("five")
                tx.put(cluster(str(number)))
                return len(tx.scan(Cluster))

            return fn

        outcome = await grouped(store, *(add(number) for number in range(10)))

        assert outcome[:5] == [1, 2, 3, 4, 5]
        assert isinstance(outcome[5], LookupError)
        assert outcome[6:] == [6, 7, 8, 9]
        assert commits == [1]
        assert [row.name for row in store.state.scan(Cluster)] == list("012346789")

    with_store(use)


def test_a_row_that_cannot_be_stored_is_the_error_of_its_own_caller(with_store):
    """What JSON cannot hold fails one transaction of a group, not all of it."""

    async def use(store):
        bad, good = await grouped(
            store, put(cluster("bad", settings=[{"x": object()}])), put(cluster("good"))
        )
        assert isinstance(bad, TypeError)
        assert good is None
        assert store.state.scan(Cluster) == [cluster("good")]

    with_store(use)


def test_subscribers_hear_old_and_new_before_the_caller_goes_on(with_store):
    """Once a commit, on the event loop's thread, with the state already replaced."""

    async def use(store):
        heard = []

        def listen(changed):
            assert threading.current_thread() is threading.main_thread()
            heard.append((dict(changed), store.state.scan(Cluster)))

        store.subscribe(listen)
        key = (Cluster, ("r", "a"))
        await store.transact(put(cluster("a")))
        assert heard.pop() == ({key: (None, cluster("a"))}, [cluster("a")])

        newer = cluster("a", status="INACTIVE")
        await store.transact(put(newer))
        assert heard.pop() == ({key: (cluster("a"), newer)}, [newer])

        await store.transact(put(newer))
        await store.transact(lambda tx: tx.get(Cluster, "r", "a"))
        assert heard == []

        await store.transact(lambda tx: tx.delete(newer))
        assert heard.pop() == ({key: (newer, None)}, [])

    with_store(use)


def test_what_a_group_takes_back_is_no_change(with_store):
    """A row that one transaction puts and the next deletes was never there to others."""

    async def use(store):
        heard = []
        store.subscribe(heard.append)
        await grouped(store, put(cluster("a")), lambda tx: tx.delete(cluster("a")))
        assert heard == []
        assert store.state.scan(Cluster) == []

    with_store(use)


def test_a_failing_subscriber_harms_nobody(with_store, caplog):
    """The transaction is durable already; the others still hear of it, and the log says what failed."""

    async def use(store):
        heard = []

        def fail(changed):
            raise RuntimeError("bad subscriber")

        store.subscribe(fail)
        store.subscribe(heard.append)
        await store.transact(put(cluster("a")))
        assert len(heard) == 1
        assert "bad subscriber" in caplog.text

    with_store(use)


def test_a_caller_that_is_cancelled_stops_nobody(with_store):
    """The transaction of a client that left is committed or not, and the next ones go on."""

    async def use(store):
        gate = Gate()
        first = await gate.close_behind(store)
        leaving = asyncio.ensure_future(store.transact(put(cluster("left"))))  # noqa: TID251
        await asyncio.sleep(0)
        leaving.cancel()
        first.cancel()
        gate.opened.set()
        await store.transact(put(cluster("after")))
        assert [row.name for row in store.state.scan(Cluster)] == ["left", "after"]

    with_store(use)


@pytest.mark.parametrize("error", [StopIteration(), SystemExit(3), KeyboardInterrupt()], ids=repr)
def test_no_error_of_a_transaction_ends_the_thread_or_the_loop(with_store, error):
    """Whatever a function raises, its caller gets an error and the store goes on."""

    async def use(store):
        def fail(tx):
            raise error

        with pytest.raises(RuntimeError, match=type(error).__name__):
            await store.transact(fail)
        await store.transact(put(cluster("after")))
        return store.state.scan(Cluster)

    assert with_store(use) == [cluster("after")]


def test_close_finishes_what_was_asked_for_and_then_refuses(with_store, path):
    """Transactions asked for before `close` are done; later ones are refused; closing twice is fine."""

    async def use(store):
        asked = [asyncio.ensure_future(store.transact(put(cluster(str(n))))) for n in range(5)]  # noqa: TID251
        await asyncio.sleep(0)
        await store.close()
        await asyncio.gather(*asked)
        with pytest.raises(KecsError, match="closed"):
            await store.transact(put(cluster("late")))
        await store.close()

    with_store(use)
    assert [file.name for file in path.parent.iterdir()] == ["kecs.duckdb"]

    async def look(store):
        return len(store.state.scan(Cluster))

    assert with_store(look) == 5


def test_an_error_of_opening_comes_out_of_open(path):
    """A corrupt file is the caller's error, and no thread is left."""
    path.write_bytes(b"garbage")

    with pytest.raises(KecsError, match="cannot be read"):
        asyncio.run(Store.open(path))


def test_an_unreadable_row_comes_out_of_open(path):
    """So is a row that cannot be understood; the file is closed again and stays as it was."""

    async def main():
        store = await Store.open(path)
        await store.transact(put(cluster("a")))
        await store.close()
        database = Database(path)
        database.execute("UPDATE cluster SET doc = '{}'")
        database.close()
        for _ in range(2):
            with pytest.raises(KecsError, match="table cluster"):
                await Store.open(path)

    asyncio.run(main())


@pytest.fixture
def disk_limit():
    """Let no file of this process grow beyond a size: what a full disk looks like."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (soft if size is None else size, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_fails_the_whole_group_changes_nothing_and_heals(with_store, path, disk_limit):
    """All callers of the group get the error, readers among them; afterwards all works again."""

    async def use(store):
        heard = []
        await store.transact(put(cluster("a")))
        store.subscribe(heard.append)
        disk_limit(db.write_ahead_log(path).stat().st_size + 50)
        outcome = await grouped(
            store,
            put(cluster("b", tags={"x": "y" * 5000})),
            lambda tx: tx.get(Cluster, "r", "b").name,
            lambda tx: tx.get(Cluster, "r", "nobody").name,
        )
        assert [type(error) for error in outcome] == [KecsError] * 3
        assert "no space left" in outcome[0].message
        assert store.state.scan(Cluster) == [cluster("a")]
        assert heard == []
        assert await store.transact(lambda tx: len(tx.scan(Cluster))) == 1

        disk_limit(None)
        await store.transact(put(cluster("c")))
        assert store.state.scan(Cluster) == [cluster("a"), cluster("c")]

    with_store(use)

    async def look(store):
        return store.state.scan(Cluster)

    assert with_store(look) == [cluster("a"), cluster("c")]


def test_a_failed_checkpoint_is_no_failure_of_a_transaction(
    with_store, monkeypatch, disk_limit, path, caplog
):
    """With no space to checkpoint, commits go on in the log, and all is there afterwards."""
    monkeypatch.setattr(db, "CHECKPOINT_BYTES", 30_000)
    names = [f"n{number}" for number in range(20)]

    async def use(store):
        await store.transact(put(cluster("a")))
        disk_limit(path.stat().st_size)
        for name in names:
            await store.transact(put(cluster(name, tags={"random": random.randbytes(5000).hex()})))
        disk_limit(None)
        await store.transact(put(cluster("z")))
        return [row.name for row in store.state.scan(Cluster)]

    assert with_store(use) == ["a", *names, "z"]
    assert "not checkpointed" in caplog.text

    async def look(store):
        return [row.name for row in store.state.scan(Cluster)]

    assert with_store(look) == ["a", *names, "z"]


@pytest.mark.parametrize("durable", [True, False])
def test_a_commit_that_failed_without_a_clear_outcome_is_looked_up(with_store, monkeypatch, durable):
    """When the connection broke in a commit, what is on disk decides what the callers hear."""
    write = Database.write

    def broken(self, statements):
        if durable:
            write(self, statements)
        self.reopened = True
        raise KecsError("the connection broke")

    async def use(store):
        await store.transact(put(cluster("a")))
        monkeypatch.setattr(Database, "write", broken)
        if durable:
            await store.transact(put(cluster("b")))
        else:
            with pytest.raises(KecsError, match="broke"):
                await store.transact(put(cluster("b")))
        monkeypatch.setattr(Database, "write", write)
        await store.transact(put(Family(region="r", name="f", last_revision=1)))
        return [row.name for row in store.state.scan(Cluster)]

    expected = ["a", "b"] if durable else ["a"]
    assert with_store(use) == expected

    async def look(store):
        return [row.name for row in store.state.scan(Cluster)]

    assert with_store(look) == expected


def test_an_unexpected_failure_of_writing_reaches_the_callers(with_store, monkeypatch):
    """A fault of our own does not leave anybody waiting."""

    def fault(*arguments):
        raise ZeroDivisionError

    async def use(store):
        with monkeypatch.context() as patched:
            patched.setattr(rows, "statements", fault)
            with pytest.raises(ZeroDivisionError):
                await store.transact(put(cluster("a")))
        await store.transact(put(cluster("b")))
        return store.state.scan(Cluster)

    assert with_store(use) == [cluster("b")]

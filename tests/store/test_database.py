"""How the database is used: journal, durability, transactions, its one thread."""

import asyncio
import sqlite3
import threading
import time

import pytest

from exporter.store.database import Database
from exporter.store.errors import StoreError
from exporter.store.files import Lock
from tests.store.sample_polls import committed, fine_tune, reading

pytestmark = pytest.mark.usefixtures("unmeasured")


def pragma(database: Database, name: str) -> object:
    with database.read() as connection:
        return connection.exec_driver_sql(f"PRAGMA {name}").scalar()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("journal_mode", "wal"),
        ("synchronous", 2),  # FULL: what was committed survives a power cut
        ("foreign_keys", 1),
        ("busy_timeout", 5000),
    ],
)
def test_the_connection_is_set_up_for_durability(tmp_path, name, value):
    async def found() -> object:
        async with Database(tmp_path / "state.db") as database:
            return await database.run(pragma, database, name)

    assert asyncio.run(found()) == value


def statements(database: Database, kind: str) -> list[str]:
    """What an empty transaction, of `read` or `write`, sends to SQLite."""
    seen: list[str] = []
    with database.read() as connection:
        raw = connection.connection.driver_connection
        assert isinstance(raw, sqlite3.Connection)
    raw.set_trace_callback(seen.append)
    with getattr(database, kind)():
        pass
    raw.set_trace_callback(None)
    return seen


@pytest.mark.parametrize(("kind", "begin"), [("read", "BEGIN"), ("write", "BEGIN IMMEDIATE")])
def test_a_writer_takes_the_lock_at_once_and_a_reader_never(tmp_path, kind, begin):
    async def found() -> list[str]:
        async with Database(tmp_path / "state.db") as database:
            return await database.run(statements, database, kind)

    assert asyncio.run(found())[0].strip() == begin


def test_a_failed_transaction_is_rolled_back_and_the_next_one_is_not_disturbed(tmp_path):
    def fail(database: Database) -> None:
        with database.write() as connection:
            connection.exec_driver_sql("DELETE FROM meta")
            raise KeyError("mine")

    async def run() -> object:
        async with Database(tmp_path / "state.db") as database:
            with pytest.raises(KeyError, match="mine"):
                await database.run(fail, database)
            await committed(database, None, reading(fine_tune("a")))
            return await database.run(pragma, database, "integrity_check")

    assert asyncio.run(run()) == "ok"


def test_every_call_runs_in_the_same_thread_which_is_not_the_loops(tmp_path):
    async def threads() -> set[int]:
        async with Database(tmp_path / "state.db") as database:
            return {await database.run(threading.get_ident) for _ in range(20)}

    [found] = asyncio.run(threads())
    assert found != threading.get_ident()


def test_a_slow_disk_does_not_hold_up_the_event_loop(tmp_path):
    async def run() -> None:
        release = threading.Event()
        async with Database(tmp_path / "state.db") as database:
            slow = asyncio.create_task(database.run(release.wait, 10))
            await asyncio.sleep(0)
            assert not slow.done()
            release.set()  # reached only because the loop was free
            assert await slow

    asyncio.run(run())


@pytest.mark.parametrize("name", ["a?mode=ro", "a#b", "100%41.db", "äöü 'q' \"d\".db", "file:x"])
def test_any_name_is_the_name_of_a_file(tmp_path, name):
    async def run() -> None:
        async with Database(tmp_path / name) as database:
            await committed(database, None, reading(fine_tune("a")))

    asyncio.run(run())
    assert {path.name for path in tmp_path.iterdir()} == {name, f"{name}.lock"}


def test_each_store_has_an_identity_that_lasts(tmp_path):
    async def store_id(name: str) -> str:
        async with Database(tmp_path / name) as database:
            return database.store_id

    first = asyncio.run(store_id("a"))
    assert first
    assert asyncio.run(store_id("a")) == first
    assert asyncio.run(store_id("b")) != first


def test_another_process_that_writes_is_waited_for(tmp_path):
    path = tmp_path / "state.db"

    async def run() -> None:
        async with Database(path) as database:
            other = sqlite3.connect(path, isolation_level=None)
            other.execute("BEGIN IMMEDIATE")
            commit = asyncio.create_task(committed(database, None, reading(fine_tune("a"))))
            reader = sqlite3.connect(path)
            reader.execute("SELECT * FROM accounts")
            reader.close()
            assert not commit.done()
            other.execute("COMMIT")
            other.close()
            await commit

    asyncio.run(run())


def test_one_that_never_ends_its_transaction_is_a_store_error(tmp_path, monkeypatch):
    monkeypatch.setattr("exporter.store.database._BUSY_MILLISECONDS", 50)
    path = tmp_path / "state.db"

    async def run() -> None:
        async with Database(path) as database:
            other = sqlite3.connect(path, isolation_level=None)
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(StoreError, match="locked"):
                await committed(database, None, reading(fine_tune("a")))
            other.close()
            await committed(database, None, reading(fine_tune("a")))

    asyncio.run(run())


def test_of_many_writes_only_the_first_waits_for_one_that_never_ends_its_transaction(
    tmp_path, monkeypatch
):
    """In the one thread of the store they would wait behind each other, and all reads with them."""
    monkeypatch.setattr("exporter.store.database._BUSY_MILLISECONDS", 1000)
    path = tmp_path / "state.db"

    async def failed(database: Database) -> float:
        began = time.monotonic()
        with pytest.raises(StoreError, match="locked"):
            await database.try_to_write()
        return time.monotonic() - began

    async def run() -> None:
        async with Database(path) as database:
            other = sqlite3.connect(path, isolation_level=None)
            for _ in range(2):
                other.execute("BEGIN IMMEDIATE")
                waits = [await failed(database) for _ in range(4)]
                assert waits[0] >= 0.9
                assert max(waits[1:]) < 0.9
                other.execute("COMMIT")
                await database.try_to_write()
            other.close()

    asyncio.run(run())


def test_a_disk_that_hangs_does_not_hold_up_the_end(tmp_path, monkeypatch):
    monkeypatch.setattr("exporter.store.database._CLOSE_SECONDS", 0.05)
    release = threading.Event()

    async def run() -> Database:
        async with Database(tmp_path / "state.db") as database:
            hanging = asyncio.create_task(database.run(release.wait, 10))
            await asyncio.sleep(0)
        assert not hanging.done()
        release.set()
        await hanging
        return database

    database = asyncio.run(run())
    database._close()  # what the end did not wait for


def test_an_opening_that_is_cancelled_leaves_no_lock(tmp_path):
    entered, release = threading.Event(), threading.Event()
    path = tmp_path / "state.db"

    class Slow(Database):
        def _check(self) -> None:
            entered.set()
            release.wait(10)
            super()._check()

    async def run() -> None:
        opening = asyncio.create_task(Slow(path).__aenter__())
        await asyncio.to_thread(entered.wait, 10)
        opening.cancel()
        await asyncio.sleep(0)
        release.set()
        with pytest.raises(asyncio.CancelledError):
            await opening

    asyncio.run(run())
    lock = Lock(path)
    lock.acquire()
    lock.release()

"""Connections, transactions, the store's thread, and waiting for other processes."""

import asyncio
import sqlite3
import threading
import time

import pytest

from exporter.store.database import Database
from exporter.store.errors import StoreError
from exporter.store.lock import Lock
from tests.store.raw_sql import execute, sqlalchemy_engine
from tests.store.raw_sqlite import state_path
from tests.store.sample_polls import commit_snapshot, fine_tune, snapshot_of


@pytest.fixture
def location(tmp_path):
    """A state file: PostgreSQL has nothing of what is tested here."""
    return tmp_path / "state.db"


pytestmark = pytest.mark.usefixtures("unmeasured")


async def pragma(database: Database, name: str) -> object:
    def run() -> object:
        with database.read() as connection:
            return connection.exec_driver_sql(f"PRAGMA {name}").scalar()

    return await database.run(run)


async def test_a_commit_survives_a_power_cut(database):
    """`synchronous` 2 is FULL: NORMAL may lose the last commits."""
    for name, value in {
        "journal_mode": "wal",
        "synchronous": 2,
        "foreign_keys": 1,
        "busy_timeout": 5000,
    }.items():
        assert await pragma(database, name) == value, name


@pytest.mark.parametrize(("kind", "begin"), [("read", "BEGIN"), ("write", "BEGIN IMMEDIATE")])
async def test_only_a_write_transaction_takes_the_lock_at_once(database, kind, begin):
    statements: list[str] = []

    def run() -> None:
        with sqlalchemy_engine(database).connect() as connection:
            raw = connection.connection.driver_connection
        assert isinstance(raw, sqlite3.Connection)
        raw.set_trace_callback(statements.append)
        with getattr(database, kind)():
            pass
        raw.set_trace_callback(None)

    await database.run(run)
    assert statements[0].strip() == begin


async def test_a_failed_transaction_is_rolled_back_and_the_next_one_succeeds(database):
    def fail() -> None:
        with database.write() as connection:
            connection.exec_driver_sql("DELETE FROM meta")
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        await database.run(fail)
    await commit_snapshot(database, None, snapshot_of(fine_tune("a")))
    assert await pragma(database, "integrity_check") == "ok"
    assert await execute(database, "SELECT count(*) FROM meta WHERE name = 'store_id'") == [(1,)]


async def test_all_calls_run_in_one_thread_beside_the_event_loop(database):
    [found] = {await database.run(threading.get_ident) for _ in range(20)}
    assert found != threading.get_ident()


async def test_a_slow_disk_does_not_block_the_event_loop(database):
    release = threading.Event()
    slow = asyncio.create_task(database.run(release.wait, 10))
    await asyncio.sleep(0)
    assert not slow.done()
    release.set()  # reached only because the loop was free
    assert await slow


async def test_any_name_is_the_name_of_a_file(tmp_path):
    for number, name in enumerate(("a?mode=ro", "a#b", "100%41.db", "äöü 'q' \"d\".db", "file:x")):
        folder = tmp_path / str(number)
        async with Database(folder / name) as database:
            await commit_snapshot(database, None, snapshot_of(fine_tune("a")))
        assert {path.name for path in folder.iterdir()} == {name, f"{name}.lock"}


async def test_each_store_has_an_id_that_does_not_change(tmp_path):
    async def store_id(name: str) -> str:
        async with Database(tmp_path / name) as database:
            return database.store_id

    first = await store_id("a")
    assert first
    assert await store_id("a") == first
    assert await store_id("b") != first


async def test_a_write_waits_for_another_process(database):
    other = sqlite3.connect(state_path(database), isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    commit = asyncio.create_task(commit_snapshot(database, None, snapshot_of(fine_tune("a"))))
    reader = sqlite3.connect(state_path(database))
    reader.execute("SELECT * FROM accounts")
    reader.close()
    assert not commit.done()
    other.execute("COMMIT")
    other.close()
    await commit


async def test_a_transaction_of_another_process_that_does_not_end_is_an_error(
    tmp_path, monkeypatch
):
    monkeypatch.setattr("exporter.store.engines.sqlite._BUSY_MILLISECONDS", 50)
    async with Database(tmp_path / "state.db") as database:
        other = sqlite3.connect(state_path(database), isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="locked"):
            await commit_snapshot(database, None, snapshot_of(fine_tune("a")))
        other.close()
        await commit_snapshot(database, None, snapshot_of(fine_tune("a")))


async def test_only_the_first_of_many_writes_waits_for_the_whole_timeout(tmp_path, monkeypatch):
    """In the one thread of the store they would wait one after the other, and all reads too."""
    monkeypatch.setattr("exporter.store.engines.sqlite._BUSY_MILLISECONDS", 1000)

    async def failed_write(database: Database) -> float:
        start = time.monotonic()
        with pytest.raises(StoreError, match="locked"):
            await database.run(database.try_to_write)
        return time.monotonic() - start

    async with Database(tmp_path / "state.db") as database:
        other = sqlite3.connect(state_path(database), isolation_level=None)
        for _ in range(2):
            other.execute("BEGIN IMMEDIATE")
            waits = [await failed_write(database) for _ in range(4)]
            assert waits[0] >= 0.9
            assert max(waits[1:]) < 0.9
            other.execute("COMMIT")
            await database.run(database.try_to_write)
        other.close()


async def test_a_disk_that_hangs_does_not_delay_the_end(tmp_path, monkeypatch):
    monkeypatch.setattr("exporter.store.database._CLOSE_SECONDS", 0.05)
    release = threading.Event()
    async with Database(tmp_path / "state.db") as database:
        hanging = asyncio.create_task(database.run(release.wait, 10))
        await asyncio.sleep(0)
    assert not hanging.done()
    release.set()
    await hanging
    database.engine.close()  # the end did not wait for it


async def test_opening_releases_the_lock_when_it_is_cancelled(tmp_path):
    entered, release = threading.Event(), threading.Event()
    path = tmp_path / "state.db"

    class SlowDatabase(Database):
        def _open(self) -> None:
            super()._open()
            entered.set()
            release.wait(10)

    opening = asyncio.create_task(SlowDatabase(path).__aenter__())
    await asyncio.to_thread(entered.wait, 10)
    opening.cancel()
    await asyncio.sleep(0)
    release.set()
    with pytest.raises(asyncio.CancelledError):
        await opening
    lock = Lock(path)
    lock.acquire()
    lock.release()

"""Copies of a state between the engines: complete or not made, and continued where it was."""

import asyncio
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Table, select

from exporter.core.model import Outage
from exporter.core.mutes import MuteRequest
from exporter.store.accounts import Accounts
from exporter.store.copying import copy_state
from exporter.store.database import Database, open_engine
from exporter.store.engines import insert_rows
from exporter.store.errors import StoreError, StoreRefusedError
from exporter.store.events import DEAD, DELIVERED
from exporter.store.location import StoreLocation
from exporter.store.migrations import create_tables
from exporter.store.mutes import add_mute
from exporter.store.outbox import Outbox
from exporter.store.ownership import Lease
from exporter.store.schema import metadata
from tests.engines import ENGINES, POSTGRES, SQLITE, on_postgres, on_sqlite
from tests.postgres_server import PostgresServer, location_of
from tests.store.raw_sql import execute
from tests.store.raw_sqlite import query_file
from tests.store.sample_outbox import attempt_digest, create_messages, queue
from tests.store.sample_polls import KEY, NOW, commit_snapshot, fine_tune, snapshot_of

OTHER = {SQLITE: POSTGRES, POSTGRES: SQLITE}


@pytest.fixture
def unused(postgres: PostgresServer, tmp_path: Path) -> Callable[[str], StoreLocation]:
    """Returns the location of a database of an engine that does not exist, or is empty."""

    def location(engine: str) -> StoreLocation:
        if engine == SQLITE:
            return tmp_path / "folder" / "copy.db"
        return location_of(postgres.url(postgres.new_database()))

    return location


async def fill(location: StoreLocation) -> None:
    """Store something in every table that polls, deliveries and people write."""
    async with Database(location) as database:
        accounts = Accounts(database)
        many = [fine_tune(f"f{number}", name="\U0001f3a4 'x' \\") for number in range(250)]
        state = await commit_snapshot(database, None, snapshot_of(*many))
        statuses = ("failed", "training", "training", "failed", "odd", "odd")
        for number, status in enumerate(statuses, 1):
            some = [fine_tune(each.id, status) for each in many[:60]]
            at = NOW + 60.0 * number
            state = await commit_snapshot(database, state, snapshot_of(*some, at=at))
        await attempt_digest(database, "slack", DELIVERED)
        await queue(database, range(1000, 1010), "ops", "chat")
        await create_messages(database, "ops")
        await attempt_digest(database, "chat", DEAD)
        await accounts.store_outage(KEY, Outage(NOW, 5.0, has_baseline=True), ())
        await database.run(
            add_mute, database, MuteRequest(60.0, "ann", "vacation", {"name": "x"}), NOW
        )


def contents(location: StoreLocation) -> dict[str, list[tuple[Any, ...]]]:
    """Return all rows, by table; without the token of the owner of a file."""
    engine = open_engine(location)
    engine.open(exclusive=False)
    with engine.begin() as connection:
        rows = {
            table.name: [tuple(row) for row in connection.execute(select(table))]
            for table in metadata.sorted_tables
            if table.name not in {"changes", "replicas", "ownership"}
        }
    engine.close()
    rows["meta"] = [row for row in rows["meta"] if row[0] != "owner"]
    return {name: sorted(found, key=repr) for name, found in rows.items()}


@pytest.mark.parametrize("to", ENGINES)
async def test_a_copy_has_every_row_and_the_agent_continues_with_it(location, unused, to):
    await fill(location)
    before = contents(location)
    assert {name for name, rows in before.items() if not rows} <= {"cursors", "outages"}
    target = unused(to)
    counts = copy_state(open_engine(location), open_engine(target))
    assert contents(location) == before
    assert contents(target) == before
    assert counts["fine_tunes"] == 250
    async with Database(target) as database:
        await queue(database, [2000], "ops")
        unsent = await Outbox(database, "ops").unsent()
        assert [each.event.id for each in unsent] == ["evt_2000"]
        assert await Accounts(database).load(KEY) is not None


async def test_a_target_that_is_not_empty_is_refused_and_not_changed(location, unused, new_state):
    await fill(location)
    target = unused(POSTGRES)
    async with Database(target) as database:
        await queue(database, [1], "slack")
    before = contents(target)
    with pytest.raises(StoreRefusedError, match="is not empty, it has accounts, "):
        copy_state(open_engine(location), open_engine(target))
    assert contents(target) == before
    file = unused(SQLITE)
    assert isinstance(file, Path)
    file.parent.mkdir()
    file.write_text("mine")
    with pytest.raises(FileExistsError):
        copy_state(open_engine(location), open_engine(file))
    assert file.read_text() == "mine"
    assert [*file.parent.iterdir()] == [file]


@pytest.mark.parametrize("to", ENGINES)
async def test_a_copy_without_all_rows_fails_and_leaves_nothing(location, unused, to, monkeypatch):
    await fill(location)
    target = unused(to)

    def insert_some(connection: Connection, table: Table, rows: Iterable[Any]) -> None:
        if table.name != "messages":  # the last one but a few
            insert_rows(connection, table, rows)

    with monkeypatch.context() as patched:
        patched.setattr("exporter.store.copying.insert_rows", insert_some)
        with pytest.raises(StoreError, match="messages has 0 rows instead of 12"):
            copy_state(open_engine(location), open_engine(target))
    copy_state(open_engine(location), open_engine(target))


@on_sqlite
async def test_the_state_of_a_running_agent_is_refused(location, unused):
    async with Database(location):
        with pytest.raises(StoreRefusedError, match="is in use by process"):
            copy_state(open_engine(location), open_engine(unused(POSTGRES)))


@on_postgres
async def test_a_database_that_a_replica_uses_is_refused(location, unused):
    async with Database(location) as database:
        lease = Lease(database, "pod-1", "1.0")
        await lease.renew("digest", None)
        with pytest.raises(StoreRefusedError, match="is in use by pod-1: stop the agent"):
            copy_state(open_engine(location), open_engine(unused(SQLITE)))
        await lease.end()
    copy_state(open_engine(location), open_engine(unused(SQLITE)))


@on_postgres
async def test_a_replica_that_starts_during_the_copy_is_noticed(location, unused, monkeypatch):
    await fill(location)
    async with Database(location) as database:
        lease, target = Lease(database, "pod-1", "1.0"), unused(SQLITE)

        def start(connection: Connection) -> None:
            create_tables(connection)
            asyncio.run_coroutine_threadsafe(lease.renew("digest", None), loop).result(10)

        loop = asyncio.get_running_loop()
        monkeypatch.setattr("exporter.store.copying.create_tables", start)
        with pytest.raises(StoreRefusedError, match="is in use by pod-1"):
            await asyncio.to_thread(copy_state, open_engine(location), open_engine(target))
        assert not target.exists()


@on_sqlite
async def test_an_agent_cannot_start_while_its_state_is_copied(location, unused, monkeypatch):
    await fill(location)
    found: list[str] = []

    def start(*_: object) -> None:
        engine = open_engine(location)
        with pytest.raises(StoreError) as caught:
            engine.open(exclusive=True)
        found.append(str(caught.value))

    monkeypatch.setattr("exporter.store.copying.create_tables", start)
    with pytest.raises(StoreError):
        copy_state(open_engine(location), open_engine(unused(POSTGRES)))
    assert "is in use by process" in found[0]


@on_sqlite
async def test_what_postgresql_cannot_store_is_replaced(location, unused):
    async with Database(location) as database:
        await commit_snapshot(database, None, snapshot_of(fine_tune("a")))
        await execute(database, "UPDATE fine_tunes SET name = :name", name="a\0b")
    target = unused(POSTGRES)
    copy_state(open_engine(location), open_engine(target))
    async with Database(target) as database:
        assert await execute(database, "SELECT name FROM fine_tunes") == [("a\ufffdb",)]


@on_sqlite
async def test_a_missing_or_foreign_source_is_refused(location, unused, tmp_path):
    with pytest.raises(StoreRefusedError, match="there is no state file"):
        copy_state(open_engine(location), open_engine(unused(POSTGRES)))
    query_file(location, "CREATE TABLE other (id int)")
    with pytest.raises(StoreRefusedError, match="not one of cartesia-exporter"):
        copy_state(open_engine(location), open_engine(unused(POSTGRES)))
    with pytest.raises(StoreRefusedError, match="not the schema of this version"):
        copy_state(open_engine(unused(POSTGRES)), open_engine(tmp_path / "x"))
    assert not (tmp_path / "x").exists()

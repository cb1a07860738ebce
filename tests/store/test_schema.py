"""The tables are what schema.py says, however old the file they are in; a newer file is refused."""

import asyncio
import json
import sqlite3

import pytest
from sqlalchemy import Connection, MetaData, create_engine, inspect

from exporter.core.account import AccountState
from exporter.store import migrations, schema
from exporter.store.accounts import Accounts
from exporter.store.database import Database
from exporter.store.errors import StoreRefusedError
from exporter.store.outbox import Outbox, PendingEvent
from tests.store.sample_polls import KEY, committed, fine_tune, owe_failures, reading


async def make(path) -> None:
    async with Database(path) as database:
        await owe_failures(database, 3)


def shape(tables: MetaData) -> dict[str, object]:
    """What two descriptions of the same tables agree on."""
    return {
        table.name: {
            "columns": [(c.name, str(c.type), c.nullable, c.primary_key) for c in table.columns],
            "references": sorted((fk.parent.name, fk.target_fullname) for fk in table.foreign_keys),
        }
        for table in tables.sorted_tables
    }


def test_a_fresh_database_is_what_schema_py_says(tmp_path):
    path = tmp_path / "state.db"
    asyncio.run(make(path))
    engine = create_engine(f"sqlite:///{path}")
    found = MetaData()
    found.reflect(engine)
    described = create_engine("sqlite://")
    schema.metadata.create_all(described)
    expected = MetaData()
    expected.reflect(described)
    assert shape(found) == shape(expected)
    uniques = inspect(engine).get_unique_constraints("accounts")
    assert [unique["column_names"] for unique in uniques] == [["name", "base_url"]]
    engine.dispose()
    described.dispose()


def _add_a_column(connection: Connection) -> None:
    connection.exec_driver_sql("ALTER TABLE messages ADD COLUMN note TEXT NOT NULL DEFAULT 'none'")


def _forget_the_rest(connection: Connection) -> None:
    raise sqlite3.OperationalError("this step fails")


def release(monkeypatch, *steps) -> None:
    """Pretend that a newer version has these steps as well."""
    steps = (*migrations._STEPS, *steps)
    monkeypatch.setattr(migrations, "_STEPS", steps)
    monkeypatch.setattr(migrations, "SCHEMA_VERSION", len(steps))


def content(path) -> list[str]:
    connection = sqlite3.connect(path)
    found = list(connection.iterdump())
    connection.close()
    return found


def columns(path, table: str) -> list[str]:
    connection = sqlite3.connect(path)
    found = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
    connection.close()
    return found


def test_an_older_file_is_upgraded_once_and_loses_nothing(tmp_path, monkeypatch):
    async def owed() -> tuple[str, list[PendingEvent], AccountState | None]:
        async with Database(path) as database:
            pending = await Outbox(database, "slack").unsent()
            return database.store_id, pending, await Accounts(database).load(KEY)

    path = tmp_path / "state.db"
    asyncio.run(make(path))
    before = asyncio.run(owed())
    release(monkeypatch, _add_a_column)
    for _ in range(2):  # the step runs once: a second time it would fail
        assert asyncio.run(owed()) == before
    assert "note" in columns(path, "messages")


def test_a_step_that_fails_leaves_the_file_at_the_version_it_had(tmp_path, monkeypatch):
    path = tmp_path / "state.db"
    asyncio.run(make(path))
    before = content(path)
    with monkeypatch.context() as newer:
        release(newer, _add_a_column, _forget_the_rest)
        with pytest.raises(Exception, match="this step fails"):
            asyncio.run(make(path))
    assert content(path) == before
    assert "note" not in columns(path, "messages")
    asyncio.run(use(path))


async def use(path) -> None:
    async with Database(path) as database:
        state = await Accounts(database).load(KEY)
        await committed(database, state, reading(fine_tune("new")))


def test_a_newer_file_is_refused_and_left_as_it_is(tmp_path, monkeypatch):
    path = tmp_path / "state.db"
    with monkeypatch.context() as newer:
        release(newer, _add_a_column)
        asyncio.run(make(path))
    before = path.read_bytes()
    known = migrations.SCHEMA_VERSION
    refusal = rf"version {known + 1}, this program knows up to {known}: start the newer program"
    with pytest.raises(StoreRefusedError, match=refusal):
        asyncio.run(use(path))
    assert path.read_bytes() == before
    assert {each.name for each in tmp_path.iterdir()} == {"state.db", "state.db.lock"}


def test_a_file_of_the_first_version_keeps_what_it_owes_and_who_was_told(tmp_path, monkeypatch):
    """Written by hand, as the first version did: events one to three, of which one was told."""
    path = tmp_path / "state.db"
    with monkeypatch.context() as older:
        older.setattr(migrations, "_STEPS", migrations._STEPS[:1])
        older.setattr(migrations, "SCHEMA_VERSION", 1)
        engine = create_engine(f"sqlite:///{path}")
        with engine.begin() as connection:
            migrations.migrate(connection, path)
            for statement in OF_THE_FIRST_VERSION:
                connection.exec_driver_sql(statement)
        engine.dispose()

    async def owed() -> tuple[list[PendingEvent], list[str], bool]:
        async with Database(path) as database:
            outbox = Outbox(database, "slack")
            delivery = await outbox.next()
            assert delivery is not None
            carried = [event.id for event in await outbox.events_of(delivery)]
            return await outbox.unsent(), carried, delivery.repeat

    [unsent], carried, repeat = asyncio.run(owed())
    assert (unsent.event.id, unsent.since, unsent.event.subject) == ("e3", 30.0, "f3")
    assert carried == ["e2"]
    assert repeat, "nobody noted whether it had been sent"
    upgraded = sqlite3.connect(path)
    assert upgraded.execute("SELECT number, subject FROM events").fetchall() == [
        (1, "f1"),
        (2, "f2"),
        (3, "f3"),
    ]
    rows = upgraded.execute("SELECT event, state, owed_since, settled_at FROM deliveries")
    assert rows.fetchall() == [
        (1, "delivered", 10.0, 11.0),
        (2, "pending", 20.0, None),
        (3, "pending", 30.0, None),
    ]
    upgraded.close()


_CONTENT = json.dumps({"fine_tune": {"id": "%s"}, "previous_status": None, "facts": {}})

OF_THE_FIRST_VERSION = (
    *(
        f"INSERT INTO events VALUES ({n}, 'e{n}', 'fine_tune.failed', 'default', {n}0.0,"
        f" '{_CONTENT % f'f{n}'}')"
        for n in (1, 2, 3)
    ),
    "INSERT INTO deliveries VALUES (1, 'slack', 'delivered', 'm1', 11.0)",
    "INSERT INTO deliveries VALUES (2, 'slack', 'pending', 'm2', NULL)",
    "INSERT INTO deliveries VALUES (3, 'slack', 'pending', NULL, NULL)",
    "INSERT INTO messages VALUES ('slack', 'm1', 'delivered', x'00', 1, 0, 10.5, 1, 11.0, '200')",
    "INSERT INTO messages VALUES ('slack', 'm2', 'pending', x'00', 1, 0, 20.5, 0, NULL, '')",
)

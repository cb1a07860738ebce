"""The tables are what schema.py says, however old the file they are in; a newer file is refused."""

import asyncio
import sqlite3

import pytest
from sqlalchemy import Connection, MetaData, create_engine, inspect

from exporter.core.account import AccountState
from exporter.store import migrations, schema
from exporter.store.accounts import Accounts
from exporter.store.database import Database
from exporter.store.errors import StoreRefusedError
from exporter.store.outbox import Outbox
from exporter.store.records import Owed
from tests.store.examples import KEY, committed, fine_tune, owe_failures, reading


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
    async def owed() -> tuple[str, list[Owed], AccountState | None]:
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
    refusal = r"schema version 3, this program knows up to 2: start the newer program"
    with pytest.raises(StoreRefusedError, match=refusal):
        asyncio.run(use(path))
    assert path.read_bytes() == before
    assert {each.name for each in tmp_path.iterdir()} == {"state.db", "state.db.lock"}

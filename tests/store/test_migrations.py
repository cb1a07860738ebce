"""Creation and upgrade of the tables, and files of other versions."""

import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, create_engine, inspect, text

from exporter.core.account import AccountState
from exporter.core.events import Event
from exporter.store import migrations
from exporter.store.accounts import Accounts
from exporter.store.database import Database, open_engine
from exporter.store.errors import StoreRefusedError
from exporter.store.location import StoreLocation
from exporter.store.outbox import Outbox
from exporter.store.schema import metadata
from tests.engines import ENGINES, SQLITE
from tests.postgres_server import PostgresServer, location_of
from tests.store.raw_sqlite import query_file
from tests.store.sample_polls import KEY, commit_snapshot, fine_tune, queue_failures, snapshot_of

REPLACE_EVENTS = """
    with op.batch_alter_table("events", recreate="always") as batch:
        batch.add_column(Column("note", Text, nullable=False, server_default="none"))
"""
FAIL = '    raise RuntimeError("this revision fails")\n'


@contextmanager
def connect_to(location: StoreLocation) -> Iterator[Connection]:
    """Yield a connection in a transaction, beside the store's engine."""
    if isinstance(location, Path):
        url = f"sqlite:///{location}"
    else:
        url = location.url().replace("postgresql:", "postgresql+psycopg:")
    engine = create_engine(url)
    try:
        with engine.begin() as connection:
            yield connection
    finally:
        engine.dispose()


@pytest.fixture(params=ENGINES)
def new_databases(request, tmp_path) -> list[StoreLocation]:
    """Two databases without tables."""
    if request.param == SQLITE:
        return [tmp_path / "one.db", tmp_path / "two.db"]
    server: PostgresServer = request.getfixturevalue("postgres")
    return [location_of(server.url(server.new_database())) for _ in range(2)]


def describe(connection: Connection) -> dict[str, Any]:
    """All properties of the tables that SQLAlchemy reads, without the order of constraints."""

    def ordered(found: list[Any]) -> list[Any]:
        return sorted(found, key=lambda each: str(each["name"]))

    inspector = inspect(connection)
    return {
        table: {
            "columns": [{**c, "type": str(c["type"])} for c in inspector.get_columns(table)],
            "primary key": inspector.get_pk_constraint(table),
            "foreign keys": ordered(list(inspector.get_foreign_keys(table))),
            "unique": ordered(list(inspector.get_unique_constraints(table))),
            "checks": ordered(list(inspector.get_check_constraints(table))),
            "indexes": ordered(list(inspector.get_indexes(table))),
        }
        for table in inspector.get_table_names()
    }


# Alembic is imported in its tests: each worker imports all modules, and it takes 0.3 s.
async def test_created_tables_equal_those_of_the_revisions(new_databases):
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    to_create, to_migrate = new_databases
    async with Database(to_create):
        pass
    with connect_to(to_migrate) as connection:
        migrations.upgrade(connection)
        assert (
            compare_metadata(
                MigrationContext.configure(connection, opts={"compare_type": True}), metadata
            )
            == []
        )
        migrated = describe(connection)
        revision = connection.execute(text("SELECT version_num FROM alembic_version")).all()
    with connect_to(to_create) as connection:
        assert describe(connection) == migrated
        assert connection.execute(text("SELECT version_num FROM alembic_version")).all() == revision
    assert set(migrated) == {*metadata.tables, "alembic_version"}


def test_constraints_and_indexes_exist_in_both(new_databases):
    """A guard of the comparison above: it must see what it compares."""
    with connect_to(new_databases[0]) as connection:
        migrations.upgrade(connection)
        found = describe(connection)
        assert [index["name"] for index in found["deliveries"]["indexes"]] == [
            "deliveries_of_message",
            "deliveries_of_mute",
            "deliveries_of_state",
        ]
        assert [unique["column_names"] for unique in found["accounts"]["unique"]] == [
            ["name", "base_url"]
        ]
        for table in ("deliveries", "messages"):
            assert [check["name"] for check in found[table]["checks"]] == [f"ck_{table}_state"]
            rejected = pytest.raises(Exception, match=f"ck_{table}_state")
            with rejected, connection.begin_nested():
                connection.execute(metadata.tables[table].insert().values(WRONG_STATE[table]))


WRONG_STATE: dict[str, dict[str, Any]] = {
    "deliveries": {
        "event": 1,
        "receiver": "r",
        "state": "lost",
        "queued_at": 0.0,
        "due_awake": 0.0,
        "groupable": False,
        "settled_by": "",
        "answer": "",
    },
    "messages": {
        "receiver": "r",
        "id": "m",
        "state": "lost",
        "body": b"",
        "events": 1,
        "minimal": False,
        "created_at": 0.0,
        "attempts": 0,
        "turn": 0,
        "in_flight": False,
        "unanswered": False,
        "last_result": "",
    },
}


def test_the_list_of_revisions_is_that_of_the_folder():
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(migrations._SCRIPTS))
    found = [each.revision for each in ScriptDirectory.from_config(config).walk_revisions()]
    assert tuple(reversed(found)) == migrations.REVISIONS


def test_a_start_imports_neither_alembic_nor_the_driver_of_postgresql(tmp_path):
    """They would add 0.5 s to each start. A second start opens an existing state."""
    program = (
        "import asyncio, sys\n"
        "from pathlib import Path\n"
        "import exporter.cli.main, exporter.agent.agent\n"
        "from exporter.store.database import Database\n"
        "async def run():\n"
        "    async with Database(Path(sys.argv[1])):\n"
        "        unused = ('alembic', 'psycopg', 'sqlalchemy.dialects.postgresql')\n"
        "        assert not [name for name in sys.modules if name.startswith(unused)]\n"
        "asyncio.run(run())\n"
        "asyncio.run(run())\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "state.db")]
    subprocess.run(command, check=True, timeout=60)


@pytest.fixture
def release(tmp_path, monkeypatch) -> Callable[..., None]:
    """Return a function that adds revisions, as a newer version does; each is a function's body."""

    def add(*bodies: str) -> None:
        folder = tmp_path / "a folder with 100% newer revisions"
        shutil.copytree(migrations._SCRIPTS, folder, ignore=shutil.ignore_patterns("__pycache__"))
        revisions = [*migrations.REVISIONS]
        for body in bodies:
            revision = f"{len(revisions) + 1:04}"
            (folder / "versions" / f"v{revision}.py").write_text(
                "from alembic import op\nfrom sqlalchemy import Column, Text\n"
                f'revision = "{revision}"\ndown_revision = "{revisions[-1]}"\n'
                f"def upgrade():\n{body}",
                encoding="utf-8",
            )
            revisions.append(revision)
        monkeypatch.setattr(migrations, "_SCRIPTS", folder)
        for module in ("exporter.store.migrations", "exporter.store.database"):
            monkeypatch.setattr(f"{module}.REVISIONS", tuple(revisions))

    return add


async def create(path: Path) -> None:
    async with Database(path) as database:
        await queue_failures(database, 3)


async def stored(path: Path) -> tuple[str, list[Event], AccountState | None]:
    async with Database(path) as database:
        pending = [each.event for each in await Outbox(database, "slack").unsent()]
        return database.store_id, pending, await Accounts(database).load(KEY)


def dump(path: Path) -> list[str]:
    connection = sqlite3.connect(path)
    lines = list(connection.iterdump())
    connection.close()
    return lines


async def test_an_older_file_is_upgraded_once_and_loses_nothing(tmp_path, release):
    """The revision replaces a table that others refer to."""
    path = tmp_path / "state.db"
    await create(path)
    before = await stored(path)
    release(REPLACE_EVENTS)
    for _ in range(2):  # a second run of the revision would fail
        assert await stored(path) == before
    assert {row[0] for row in query_file(path, "SELECT note FROM events")} == {"none"}
    assert query_file(path, "PRAGMA foreign_key_check") == []
    assert query_file(path, "SELECT version_num FROM alembic_version") == [("0002",)]


async def test_foreign_keys_are_enforced_after_an_upgrade(tmp_path, release):
    path = tmp_path / "state.db"
    await create(path)
    release(REPLACE_EVENTS)
    async with Database(path) as database:

        def pragma() -> object:
            with database.read() as connection:
                return connection.exec_driver_sql("PRAGMA foreign_keys").scalar()

        assert await database.run(pragma) == 1


async def test_a_revision_that_fails_leaves_the_file_as_it_was(tmp_path, release, monkeypatch):
    path = tmp_path / "state.db"
    await create(path)
    before = dump(path)
    release(REPLACE_EVENTS, FAIL)
    with pytest.raises(RuntimeError, match="this revision fails"):
        await create(path)
    assert dump(path) == before
    monkeypatch.undo()
    async with Database(path) as database:
        state = await Accounts(database).load(KEY)
        await commit_snapshot(database, state, snapshot_of(fine_tune("new")))


async def test_a_newer_file_is_refused_and_not_changed(tmp_path, release, monkeypatch):
    path = tmp_path / "state.db"
    await create(path)
    release(REPLACE_EVENTS)
    await stored(path)
    monkeypatch.undo()
    before = path.read_bytes()
    with pytest.raises(
        StoreRefusedError,
        match="version 0002, this program knows up to 0001: start the newer program",
    ):
        await stored(path)
    assert path.read_bytes() == before


async def test_a_file_from_before_the_first_release_is_refused_and_not_changed(tmp_path):
    """Those files had the number of their version in `meta`, and were not made by Alembic."""
    path = tmp_path / "state.db"
    for statement in (
        "CREATE TABLE meta (name TEXT NOT NULL PRIMARY KEY, value TEXT NOT NULL)",
        "CREATE TABLE fine_tunes (account INTEGER NOT NULL, id TEXT NOT NULL)",
        "INSERT INTO meta VALUES ('store_id', 'x'), ('schema_version', '4')",
    ):
        query_file(path, statement)
    before = path.read_bytes()
    for exclusive in (True, False):
        with pytest.raises(
            StoreRefusedError,
            match=f"the state file {path} was written before the first release .*: move it away",
        ):
            async with Database(path, exclusive=exclusive):
                pass
    assert path.read_bytes() == before


def test_an_empty_database_is_created_by_the_revisions_too(new_databases):
    with connect_to(new_databases[0]) as connection:
        migrations.upgrade(connection)
        connection.execute(text("INSERT INTO meta VALUES ('store_id', 'x')"))
        found = migrations.read_revision(connection, open_engine(new_databases[0]))
    assert found == migrations.REVISIONS[-1]

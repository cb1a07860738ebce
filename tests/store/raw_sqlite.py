"""Direct access to SQLite, beside the statements of the store."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from sqlalchemy import Engine

from exporter.store.database import Database
from exporter.store.engines.sqlite import SQLiteEngine


def sqlalchemy_engine(database: Database) -> Engine:
    assert isinstance(database._engine, SQLiteEngine)
    return database._engine._reader


def query_file(path: Path, statement: str, parameters: tuple[Any, ...] = ()) -> list[Any]:
    """Execute a statement by a connection of its own, which is closed again; return the rows."""
    with closing(sqlite3.connect(path)) as connection, connection:
        return connection.execute(statement, parameters).fetchall()


def count_rows(path: Path, table: str) -> int:
    count: int = query_file(path, f"SELECT count(*) FROM {table}")[0][0]
    return count


async def execute(database: Database, statement: str, parameters: tuple[Any, ...] = ()) -> Any:
    """Execute a statement in a write transaction of the store; return the first value, if any."""

    def run() -> Any:
        with database.write() as connection:
            result = connection.exec_driver_sql(statement, parameters)
            return result.scalar() if result.returns_rows else None

    return await database.run(run)


async def reject_inserts(database: Database, table: str, when: str = "") -> None:
    """Let every insert into a table fail with the error "no room"."""
    await execute(
        database,
        f"CREATE TRIGGER no_room BEFORE INSERT ON {table} {when}"
        " BEGIN SELECT RAISE(ABORT, 'no room'); END",
    )

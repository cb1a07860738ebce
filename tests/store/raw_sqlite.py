"""Direct access to a state file, by connections of its own."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from exporter.store.database import Database
from exporter.store.engines.sqlite import SQLiteEngine


def state_path(database: Database) -> Path:
    assert isinstance(database.engine, SQLiteEngine)
    return Path(database.engine.location)


def query_file(path: Path, statement: str, parameters: tuple[Any, ...] = ()) -> list[Any]:
    """Execute a statement by a connection of its own, which is closed again; return the rows."""
    with closing(sqlite3.connect(path)) as connection, connection:
        return connection.execute(statement, parameters).fetchall()


def count_rows(path: Path, table: str) -> int:
    count: int = query_file(path, f"SELECT count(*) FROM {table}")[0][0]
    return count

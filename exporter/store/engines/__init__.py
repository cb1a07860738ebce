"""What differs between database engines: connections, errors and SQL of one dialect."""

from collections.abc import Collection, Hashable, Iterable, Mapping
from contextlib import AbstractContextManager
from itertools import islice
from typing import Any, Final, Protocol

from sqlalchemy import Connection, Table
from sqlalchemy.dialects import sqlite

from exporter.store.errors import StoreError, StoreRefusedError

_INSERTS: Final = {"sqlite": sqlite.insert}

BATCH_ROWS: Final = 500
"""Rows per statement. A whole baseline in one statement would take 200 MB."""


class StoreEngine(Protocol):
    """One database, used from one thread."""

    @property
    def location(self) -> str:
        """Where the database is, without secrets."""

    @property
    def description(self) -> str:
        """The words for the database in an error, with its location."""

    @property
    def driver_error(self) -> type[Exception]:
        """Base class of the driver's exceptions."""

    def open(self, *, exclusive: bool) -> None:
        """Find the database; if ``exclusive``, create and lock it. Raises StoreError."""

    def check(self, connection: Connection) -> None:
        """Raise StoreRefusedError if the database is damaged."""

    def prepare_writing(self) -> None:
        """Set up a database that passed the check, before its first write. Raises StoreError."""

    def begin(self, *, write: bool = False) -> AbstractContextManager[Connection]:
        """Return a context with a transaction, which commits at the end of the context."""

    def migrating(self) -> AbstractContextManager[None]:
        """Return a context in whose transactions tables may be replaced."""

    def to_store_error(self, error: Exception) -> StoreError:
        """Return the StoreError for an exception of SQLAlchemy or of the driver."""

    def damaged(self, how: str) -> StoreRefusedError:
        """Return the error for a damaged database: what is wrong and what to do."""

    def external_changes(self, connection: Connection) -> Hashable:
        """Return a value that changes when another process writes."""

    def size(self) -> int:
        """Return the size of the database in bytes. Raises OSError."""

    def close(self) -> None:
        """Close all connections and release the lock."""


def dialect_insert(connection: Connection, table: Table) -> sqlite.Insert:
    """Return the dialect's INSERT, which has ON CONFLICT in SQLite and PostgreSQL."""
    return _INSERTS[connection.dialect.name](table)


def upsert(
    connection: Connection,
    table: Table,
    rows: Iterable[Mapping[str, Any]],
    *,
    update: Collection[str] | None = None,
) -> None:
    """Insert rows; where a primary key exists, update the columns ``update`` (default: all)."""
    statement = dialect_insert(connection, table)
    keys = [column.name for column in table.primary_key]
    changed = {
        column.name: column
        for column in statement.excluded
        if (column.name not in keys if update is None else column.name in update)
    }
    statement = statement.on_conflict_do_update(index_elements=keys, set_=changed)
    remaining = iter(rows)
    while batch := list(islice(remaining, BATCH_ROWS)):
        connection.execute(statement, batch)

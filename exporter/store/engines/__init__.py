"""What differs between database engines: connections, errors and SQL of one dialect."""

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

from sqlalchemy import Connection, Table
from sqlalchemy.dialects.sqlite import Insert, insert

from exporter.core.ownership import Claim
from exporter.store.errors import StoreRefusedError

_Row = TypeVar("_Row")

_BATCH_ROWS: Final = 500


class StoreEngine(Protocol):
    """One database, used from ``threads`` threads."""

    @property
    def is_shared(self) -> bool:
        """Whether several agents may use the database at the same time."""

    @property
    def threads(self) -> int:
        """How many transactions may be open at a time, each in a thread of its own."""

    @property
    def location(self) -> str:
        """Where the database is, without secrets."""

    @property
    def description(self) -> str:
        """The words for the database in an error, with its location."""

    def open(self, *, exclusive: bool) -> None:
        """Find and check the database; if ``exclusive``, create and lock it. Raises StoreError."""

    def open_unused(self) -> None:
        """Find and check an existing database that no agent uses, and keep agents from using it.

        Raises StoreRefusedError beside an agent, StoreError.
        """

    def check_unused(self) -> None:
        """Check that no agent has started to use the database since. Raises StoreError."""

    def create(self, fill: Callable[[Connection], None]) -> None:
        """Create the database by ``fill`` in one transaction: complete, or not at all.

        Raises FileExistsError or StoreRefusedError if it exists and is not empty, OSError,
        StoreError.
        """

    def migrating(self) -> AbstractContextManager[None]:
        """Set a checked database up for writing; return a context in which tables may change."""

    def check_new(self, tables: frozenset[str]) -> None:
        """Check that a database without tables of ours, but with these, may become a new state.

        Raises StoreRefusedError.
        """

    def foreign(self) -> StoreRefusedError:
        """Return the error for tables of another program: what to do."""

    def take_over(self, connection: Connection) -> None:
        """Become the owner of the database, within the caller's transaction."""

    def check_owner(self, connection: Connection, claim: Claim | None) -> None:
        """Check that this process is the owner still, at the begin of each write transaction.

        ``claim`` is what the service that writes must own, if several agents use the database.
        Without effect before ``take_over``. Raises StoreTakenError, StoreFencedError, StoreError.
        """

    def verify(self) -> None:
        """Check that the open database is still the one at its location.

        Repairs what can be repaired. Raises StoreLostError if the database was deleted or replaced,
        StoreTakenError if another process owns it, StoreError if that cannot be found out.
        """

    def rescue(self, now: float) -> str:
        """Copy a lost database to where the next start looks for it; return that place.

        ``now`` is Unix seconds. Raises StoreError.
        """

    def back_up(self, target: Path) -> None:
        """Write a complete copy of the open database to the new file ``target``.

        Other processes may write meanwhile. Raises FileExistsError, OSError, StoreError.
        """

    def find_damage(self) -> list[str]:
        """Check pages, indexes, constraints and references; return what is wrong with them.

        The database need not be open. Raises StoreError if it cannot be read.
        """

    def checkpoint(self) -> None:
        """Move what was committed to where a backup finds it, without waiting. Raises StoreError.

        Called once a minute, after a new account, and at the end.
        """

    def begin(self, *, write: bool = False) -> AbstractContextManager[Connection]:
        """Return a context with a transaction, which commits at the end of the context.

        Errors of SQLAlchemy and of the driver leave it as StoreError.
        """

    def damaged(self, how: str) -> StoreRefusedError:
        """Return the error for a damaged database: what is wrong and what to do."""

    def external_changes(self, connection: Connection) -> Hashable:
        """Return a value that changes when another process writes."""

    def size(self) -> int:
        """Return the size of the database in bytes. Raises OSError."""

    def reader(self) -> "ReadEngine":
        """Return a connection of its own that only reads; not opened yet."""

    def close(self) -> None:
        """Close all connections and release the lock."""


class ReadEngine(Protocol):
    """A connection that only reads, used from one thread beside a StoreEngine."""

    def begin(self, seconds: float) -> AbstractContextManager[Connection]:
        """Return a context with a transaction, interrupted after ``seconds`` with TimeoutError.

        Errors of SQLAlchemy and of the driver leave it as StoreError.
        """

    def version(self, connection: Connection) -> Hashable:
        """Return a value that changes with every commit to the database."""

    def damaged(self, how: str) -> StoreRefusedError:
        """Return the error for a damaged database: what is wrong and what to do."""

    def close(self) -> None:
        """Close the connection."""


def batches(rows: Iterable[_Row]) -> Iterator[list[_Row]]:
    """Split the rows for statements: a whole baseline in one would take 200 MB."""
    remaining = iter(rows)
    while batch := list(islice(remaining, _BATCH_ROWS)):
        yield batch


def dialect_insert(connection: Connection, table: Table) -> Insert:
    """Return the dialect's INSERT, which has ON CONFLICT in SQLite and PostgreSQL."""
    if connection.dialect.name == "sqlite":
        return insert(table)
    from sqlalchemy.dialects import postgresql  # noqa: PLC0415 - SQLite does not need it

    return postgresql.insert(table)  # type: ignore[return-value]  # the same methods


def bulk_insert(
    connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]]
) -> tuple[Insert, Any]:
    """Return the dialect's fastest INSERT of rows with the same keys, and its parameters."""
    if connection.dialect.name == "sqlite":
        return _sqlite_insert(table), rows
    from exporter.store.engines.postgres_bulk import insert_arrays  # noqa: PLC0415 - as above

    return insert_arrays(table, rows)  # type: ignore[return-value]  # the same methods


@cache
def _sqlite_insert(table: Table) -> Insert:
    """Return the INSERT of a table; its columns for `ON CONFLICT` are built once."""
    return insert(table)


def insert_rows(connection: Connection, table: Table, rows: Iterable[Mapping[str, Any]]) -> None:
    """Insert rows with the same keys."""
    for batch in batches(rows):
        connection.execute(*bulk_insert(connection, table, batch))


def upsert(connection: Connection, table: Table, rows: Iterable[Mapping[str, Any]]) -> None:
    """Insert rows; where a primary key exists, update the other columns that the rows have."""
    for batch in batches(rows):
        if connection.dialect.name == "sqlite":
            connection.execute(_sqlite_upsert(table, tuple(batch[0])), batch)
        else:
            statement, parameters = bulk_insert(connection, table, batch)
            connection.execute(_updating(statement, table, batch[0]), parameters)


@cache
def _sqlite_upsert(table: Table, names: tuple[str, ...]) -> Insert:
    return _updating(_sqlite_insert(table), table, names)


def _updating(statement: Insert, table: Table, names: Iterable[str]) -> Insert:
    keys = [column.name for column in table.primary_key]
    changed = {name: statement.excluded[name] for name in names if name not in keys}
    return statement.on_conflict_do_update(index_elements=keys, set_=changed)

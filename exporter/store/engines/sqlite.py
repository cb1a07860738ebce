"""SQLite: one state file, opened by one agent and by commands beside it."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from math import inf
from pathlib import Path
from time import monotonic
from typing import Any, Final

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.pool import StaticPool

from exporter.core.text import one_line
from exporter.store import files
from exporter.store.errors import StoreError, StoreRefusedError

_BUSY_MILLISECONDS = 5000
_REPEATED_BUSY_MILLISECONDS = 50
_LOCKED: Final = f"locked by another process for {_BUSY_MILLISECONDS // 1000} s; try again"
_DAMAGED: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_MAX_ERROR_LENGTH: Final = 200

_INSTRUCTIONS_PER_LOOK: Final = 10_000
"""Instructions of SQLite's virtual machine between two looks at the clock: less than 1 ms."""


class SQLiteEngine:
    """The state file at ``path``; a StoreEngine."""

    def __init__(self, path: Path) -> None:
        self._path = Path(os.path.realpath(path))
        self.location = str(self._path)
        self.description = f"the state file {self._path}"
        self._lock = files.Lock(self._path)
        self._reader = _create_engine(self._path)
        # The write lock is taken at once: a transaction that begins with a read and writes later
        # fails without waiting if another process wrote in between.
        self._writer = self._reader.execution_options(begin="BEGIN IMMEDIATE")
        self._busy_timeout_shortened = False

    def open(self, *, exclusive: bool) -> None:
        """Find and check the file; if ``exclusive``, create and lock it."""
        if exclusive:
            files.create(self._path)
            self._lock.acquire()
        else:
            files.check(self._path)
        with self.begin() as connection:
            result = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar()
        if result != "ok":
            raise self.damaged(str(result))

    @contextmanager
    def migrating(self) -> Iterator[None]:
        """Restrict the file's permissions, and turn the write-ahead log on and foreign keys off.

        Alembic copies a table, drops it and renames the copy. SQLite ignores the pragma for foreign
        keys within a transaction.
        """
        files.restrict(self._path)
        with self.convert_errors():
            self._execute("PRAGMA journal_mode = WAL")
            self._execute("PRAGMA foreign_keys = OFF")
            try:
                yield
            finally:
                self._execute("PRAGMA foreign_keys = ON")

    @contextmanager
    def begin(self, *, write: bool = False) -> Iterator[Connection]:
        """Yield a connection in a transaction.

        After a transaction that waited for another process in vain, the next ones hardly wait: one
        after the other they would block the store's thread for minutes.
        """
        engine = self._writer if write else self._reader
        with self.convert_errors(), engine.connect() as connection, connection.begin():
            yield connection
        if write:
            self._shorten_busy_timeout(shorten=False)

    def damaged(self, how: str) -> StoreRefusedError:
        """Return the error for a damaged file."""
        return StoreRefusedError(
            f"{self.description} is damaged ({one_line(how, _MAX_ERROR_LENGTH)}): restore a backup "
            "of it, or move it away to begin with a new baseline; it was left as it is"
        )

    def external_changes(self, connection: Connection) -> int:
        """Return a number that changes when another process writes.

        https://sqlite.org/pragma.html#pragma_data_version
        """
        version: int = connection.exec_driver_sql("PRAGMA data_version").scalar_one()
        return version

    def size(self) -> int:
        """Return the size of the file and of its write-ahead log in bytes."""
        log = self._path.with_name(self._path.name + "-wal")
        return self._path.stat().st_size + (log.stat().st_size if log.exists() else 0)

    def reader(self) -> "SQLiteReader":
        """Return a connection of its own that only reads; not opened yet."""
        return SQLiteReader(self._path, self)

    def close(self) -> None:
        """Close the connection and release the lock."""
        self._reader.dispose()
        self._lock.release()

    @contextmanager
    def convert_errors(self) -> Iterator[None]:
        """Raise StoreRefusedError for damage and StoreError for any other error of SQLite.

        A statement that a progress handler interrupted raises TimeoutError.
        """
        try:
            yield
        except (SQLAlchemyError, sqlite3.Error) as error:
            cause = error.orig if isinstance(error, DBAPIError) else error
            primary_code = getattr(cause, "sqlite_errorcode", 0) & 0xFF
            text = str(cause)
            if text.startswith("Could not decode to UTF-8"):  # the message quotes the text
                raise self.damaged("a text is not what was written") from error
            if primary_code in _DAMAGED or text == "unsupported file format":
                raise self.damaged(text) from error
            if primary_code == sqlite3.SQLITE_INTERRUPT:
                raise TimeoutError from error
            if primary_code == sqlite3.SQLITE_BUSY:
                self._shorten_busy_timeout(shorten=True)
                text = _LOCKED
            raise StoreError(f"{self.description}: {text}") from error

    def _shorten_busy_timeout(self, *, shorten: bool) -> None:
        if shorten == self._busy_timeout_shortened:
            return
        milliseconds = _REPEATED_BUSY_MILLISECONDS if shorten else _BUSY_MILLISECONDS
        # On an error the next transaction waits as long as this one did.
        with suppress(SQLAlchemyError, sqlite3.Error):
            self._execute(f"PRAGMA busy_timeout = {milliseconds}")
            self._busy_timeout_shortened = shorten

    def _execute(self, statement: str) -> None:
        """Execute a statement outside of transactions."""
        with self._reader.connect().execution_options(begin="") as connection:
            connection.exec_driver_sql(statement)


class SQLiteReader:
    """A connection to the state file that only reads; a ReadEngine."""

    def __init__(self, path: Path, owner: SQLiteEngine) -> None:
        self._owner = owner
        self._engine = _create_engine(path)
        self._deadline = inf
        event.listen(self._engine, "connect", self._configure)

    @contextmanager
    def begin(self, seconds: float) -> Iterator[Connection]:
        """Yield a connection in a transaction that is interrupted after ``seconds``."""
        self._deadline = monotonic() + seconds
        with (
            self._owner.convert_errors(),
            self._engine.connect() as connection,
            connection.begin(),
        ):
            yield connection

    def version(self, connection: Connection) -> int:
        """Return a number that changes when another connection commits.

        https://sqlite.org/pragma.html#pragma_data_version
        """
        version: int = connection.exec_driver_sql("PRAGMA data_version").scalar_one()
        return version

    def damaged(self, how: str) -> StoreRefusedError:
        """Return the error for a damaged file."""
        return self._owner.damaged(how)

    def close(self) -> None:
        """Close the connection."""
        self._engine.dispose()

    def _configure(self, connection: sqlite3.Connection, _record: Any) -> None:
        connection.execute("PRAGMA query_only = ON")
        connection.set_progress_handler(
            lambda: monotonic() >= self._deadline, _INSTRUCTIONS_PER_LOOK
        )


def _create_engine(path: Path) -> Engine:
    # hide_parameters: errors of SQLAlchemy would quote the texts of customers' fine-tunes.
    url = URL.create("sqlite+pysqlite", database=str(path))
    engine = create_engine(url, poolclass=StaticPool, hide_parameters=True)

    @event.listens_for(engine, "connect")
    def configure(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # sqlite3 must not begin transactions by itself
        for pragma in (
            f"busy_timeout = {_BUSY_MILLISECONDS}",
            "foreign_keys = ON",
            # A commit that was reported survives a power cut; NORMAL may lose it.
            "synchronous = FULL",
        ):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        if statement := connection.get_execution_options().get("begin", "BEGIN"):
            connection.exec_driver_sql(statement)

    return engine

"""SQLite: one state file, opened by one agent and by commands beside it."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
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


class SQLiteEngine:
    """The state file at ``path``; a StoreEngine."""

    driver_error = sqlite3.Error

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
        """Find the file; if ``exclusive``, create and lock it."""
        if exclusive:
            files.create(self._path)
            self._lock.acquire()
        else:
            files.check(self._path)

    def check(self, connection: Connection) -> None:
        """Raise StoreRefusedError if the file is damaged."""
        result = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar()
        if result != "ok":
            raise self.damaged(str(result))

    def prepare_writing(self) -> None:
        """Restrict the file's permissions and turn the write-ahead log on."""
        files.restrict(self._path)
        self._execute("PRAGMA journal_mode = WAL")

    @contextmanager
    def begin(self, *, write: bool = False) -> Iterator[Connection]:
        """Yield a connection in a transaction.

        After a transaction that waited for another process in vain, the next ones hardly wait: one
        after the other they would block the store's thread for minutes.
        """
        engine = self._writer if write else self._reader
        try:
            with engine.connect() as connection, connection.begin():
                yield connection
        except (DBAPIError, sqlite3.Error) as error:
            if _result_code(error) == sqlite3.SQLITE_BUSY:
                self._shorten_busy_timeout(shorten=True)
            raise
        if write:
            self._shorten_busy_timeout(shorten=False)

    @contextmanager
    def migrating(self) -> Iterator[None]:
        """Turn foreign keys off: Alembic copies a table, drops it and renames the copy.

        SQLite ignores this pragma within a transaction.
        """
        self._execute("PRAGMA foreign_keys = OFF")
        try:
            yield
        finally:
            self._execute("PRAGMA foreign_keys = ON")

    def to_store_error(self, error: Exception) -> StoreError:
        """Return a StoreRefusedError for damage and a StoreError for anything else."""
        if (damage := _damage(error)) is not None:
            return self.damaged(damage)
        text = _LOCKED if _result_code(error) == sqlite3.SQLITE_BUSY else _cause(error)
        return StoreError(f"{self.description}: {text}")

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

    def close(self) -> None:
        """Close the connection and release the lock."""
        self._reader.dispose()
        self._lock.release()

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


def _damage(error: Exception) -> str | None:
    """Return the words for the damage that an error reports; None for any other error."""
    text = str(_cause(error))
    if text.startswith("Could not decode to UTF-8"):
        return "a text is not what was written"  # SQLite's message quotes the text
    damaged = _result_code(error) in _DAMAGED or text == "unsupported file format"
    return text if damaged else None


def _result_code(error: Exception) -> int:
    """Return SQLite's primary result code; 0 if the error is not of SQLite."""
    code: int = getattr(_cause(error), "sqlite_errorcode", 0)
    return code & 0xFF


def _cause(error: Exception) -> BaseException | None:
    return error.orig if isinstance(error, DBAPIError) else error

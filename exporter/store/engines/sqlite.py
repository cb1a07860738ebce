"""SQLite: one state file, opened by one agent and by commands beside it."""

import os
import secrets
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from math import inf
from pathlib import Path
from time import monotonic
from typing import Any, Final

import structlog
from sqlalchemy import URL, Connection, Engine, Select, create_engine, event, select
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.pool import StaticPool

from exporter.core.ownership import Claim
from exporter.core.text import one_line, os_error_text
from exporter.store import files, rescue
from exporter.store.engines import upsert
from exporter.store.errors import StoreError, StoreLostError, StoreRefusedError, StoreTakenError
from exporter.store.lock import Lock, LockedError
from exporter.store.schema import meta

_CACHE_KIB: Final = 2000
"""SQLite's own default, which a build of it may change: memory must not grow with the file."""

_BUSY_MILLISECONDS = 5000
_REPEATED_BUSY_MILLISECONDS = 50
_LOCKED: Final = f"locked by another process for {_BUSY_MILLISECONDS // 1000} s; try again"
_DAMAGED: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_MAX_ERROR_LENGTH: Final = 200
_MAX_DAMAGES: Final = 20

_INSTRUCTIONS_PER_LOOK: Final = 10_000
"""Instructions of SQLite's virtual machine between two looks at the clock: less than 1 ms."""
_TRUNCATED_TEXT: Final = "This state was truncated while an agent used it.\n"

_OWNER: Final = "owner"
"""Row of ``meta`` with the token of the agent that opened the file last."""

log = structlog.get_logger()


class SQLiteEngine:
    """The state file at ``path``; a StoreEngine."""

    is_shared = False
    threads = 1

    def __init__(self, path: Path) -> None:
        self._given = path.absolute()
        self._path = Path(os.path.realpath(path))
        self.location = str(self._path)
        self.description = f"the state file {self._path}"
        self._lock = Lock(self._path)
        self._reader = _create_engine(self._path)
        # The write lock is taken at once: a transaction that begins with a read and writes later
        # fails without waiting if another process wrote in between.
        self._writer = self._reader.execution_options(begin="BEGIN IMMEDIATE")
        self._busy_timeout_shortened = False
        self._token = ""
        self._truncated = False
        self._identity: files.Identity | None = None
        self._log_identities: dict[str, files.Identity | None] = {}

    def open(self, *, exclusive: bool) -> None:
        """Find and check the file; if ``exclusive``, create and lock it."""
        if exclusive:
            files.check_types(self._path)
            files.create_folder(self._path)
            self._lock.acquire()
            if (copy := rescue.adopt_copy(self._path)) is not None:
                log.warning("rescue copy adopted as the state", state=self.location, copy=str(copy))
            files.create(self._path)
            self._identity = files.identity(self._given)
        else:
            files.check(self._path)
        with self.begin() as connection:
            result = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar()
        if result != "ok":
            raise self.damaged(str(result))

    def open_unused(self) -> None:
        """Lock and check an existing file."""
        files.check(self._path)
        self._lock.acquire()
        self.open(exclusive=False)

    def check_unused(self) -> None:
        """Check nothing: the lock keeps agents from using the file."""

    def create(self, fill: Callable[[Connection], None]) -> None:
        """Create the file; one that is not complete never has its name."""

        def write(path: Path) -> None:
            engine = _create_engine(path).execution_options(begin="BEGIN IMMEDIATE")
            try:
                with self.convert_errors(), engine.begin() as connection:
                    fill(connection)
            finally:
                engine.dispose()

        files.check_types(self._path)
        files.create_folder(self._path)
        files.write_copy(self._path, write)

    @contextmanager
    def migrating(self) -> Iterator[None]:
        """Restrict the file's permissions, and turn foreign keys off and the write-ahead log on.

        Alembic copies a table, drops it and renames the copy. SQLite ignores the pragma for foreign
        keys within a transaction. The tables of a new file are created before there is a
        write-ahead log, so that the file itself is never without them.
        """
        files.restrict(self._path)
        with self.convert_errors():
            self._execute("PRAGMA foreign_keys = OFF")
            try:
                yield
            finally:
                self._execute("PRAGMA foreign_keys = ON")
            self._execute("PRAGMA journal_mode = WAL")
        self._note_log()

    def check_new(self, tables: frozenset[str]) -> None:
        """Refuse a file that has pages: as a new state, it would begin with a silent baseline."""
        if tables:
            raise self.foreign()
        if self._path.stat().st_size:
            log_name = self._path.name + files.WRITE_AHEAD_LOG
            raise StoreRefusedError(
                f"{self.description} has no tables: it is a copy that was made without {log_name}, "
                "or a database of another program. Copy it again together with that file while "
                "the agent is stopped, restore a backup, or move it away to begin with a new "
                "baseline; it was left as it is"
            )

    def foreign(self) -> StoreRefusedError:
        """Return the error for a database of another program."""
        return StoreRefusedError(
            f"{self.location} is a database, but not one of cartesia-exporter: give another "
            "storage.path"
        )

    def take_over(self, connection: Connection) -> None:
        """Store a new token: it ends an agent that has the file open in spite of the lock."""
        self._token = secrets.token_hex(16)
        upsert(connection, meta, [{"name": _OWNER, "value": self._token}])

    def check_owner(self, connection: Connection, claim: Claim | None) -> None:  # noqa: ARG002
        """Compare the stored token with that of this process.

        The lock has no effect on some network file systems, and none on a file that was deleted.
        """
        if self._token and connection.scalar(_owner_query()) != self._token:
            raise self._taken("opened it")

    def verify(self) -> None:
        """Compare the files at their paths with those that are open.

        A deleted write-ahead log and a deleted lock file are created again.
        """
        try:
            found = files.identity(self._given)
            if found is None:
                raise StoreLostError(f"{self.description} was deleted or moved while in use")
            if found != self._identity:
                raise StoreLostError(
                    f"{self.description} was replaced by another file while in use"
                )
            if self._path.stat().st_size == 0:
                self._truncated = True
                raise StoreLostError(f"{self.description} was truncated while in use")
            changed = [
                suffix
                for suffix, noted in self._log_identities.items()
                if noted is not None and files.identity(files.beside(self._path, suffix)) != noted
            ]
            if changed:
                self._restore_log(changed)
            if not self._lock.is_current():
                self._restore_lock()
        except OSError as error:
            raise StoreError(f"cannot check {self.description}: {os_error_text(error)}") from error

    def rescue(self, now: float) -> str:
        """Write a rescue copy beside the path at which the next start looks for the state."""
        path = Path(os.path.realpath(self._given))
        return str(rescue.write_copy(path, self._copy_to, now))

    def back_up(self, target: Path) -> None:
        """Write a complete copy of the open file, with its write-ahead log, to ``target``."""
        files.write_copy(target, self._copy_to)

    def find_damage(self) -> list[str]:
        """Check the file, also one that ``open`` refuses; return what is wrong with it."""
        files.check(self._path)
        with self.begin() as connection:
            rows = connection.exec_driver_sql(f"PRAGMA integrity_check({_MAX_DAMAGES})").scalars()
            found = [one_line(str(row), _MAX_ERROR_LENGTH) for row in rows if row != "ok"]
            for table, row, parent, _ in connection.exec_driver_sql("PRAGMA foreign_key_check"):
                found.append(f"row {row} of {table} refers to a row of {parent} that is missing")
        return found[:_MAX_DAMAGES]

    def checkpoint(self) -> None:
        """Write the write-ahead log to the file and truncate it, as far as nobody else uses it.

        TRUNCATE, because a log that is empty cannot be missed by a copy of the file. Without a
        timeout SQLite does not wait for others: beside a reader it writes what it can, and leaves
        the rest to the next time. Raises as ``verify`` does: the log must not be written into a
        file that was truncated, which would hide it.
        """
        self.verify()
        with self.convert_errors():
            self._try_checkpoint()

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
        written_ahead = files.beside(self._path, files.WRITE_AHEAD_LOG)
        return self._path.stat().st_size + (
            written_ahead.stat().st_size if written_ahead.exists() else 0
        )

    def reader(self) -> "SQLiteReader":
        """Return a connection of its own that only reads; not opened yet."""
        return SQLiteReader(self._path, self)

    def close(self) -> None:
        """Close the connection and release the lock."""
        if self._token:
            # Closing does it only if no command has the file open.
            with suppress(StoreError):
                self.checkpoint()
        self._reader.dispose()
        with suppress(OSError):
            # An empty file is a new state: the next start would begin with a silent baseline.
            if self._truncated and self._path.stat().st_size == 0:
                self._path.write_text(_TRUNCATED_TEXT, encoding="ascii")
        self._lock.release()

    def _copy_to(self, target: Path) -> None:
        with self.convert_errors(f"{self.description} cannot be copied to {target}"):
            self._execute("VACUUM INTO ?", str(target))

    def _try_checkpoint(self) -> bool:
        """Make a checkpoint without waiting; return whether the file has all that was committed."""
        self._set_busy_timeout(0)
        try:
            with self._outside_transactions() as connection:
                row = connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").one()
        finally:
            self._set_busy_timeout(_BUSY_MILLISECONDS)
            self._busy_timeout_shortened = False
        _busy, frames, written = row
        return bool(frames == written)

    def _restore_log(self, changed: list[str]) -> None:
        """Write what the open log has to the file, and open the file again with a new log."""
        with self.convert_errors():
            if not self._try_checkpoint():
                raise StoreError(
                    f"{self.description}: its log was deleted, and others still use it"
                )
            self._reader.dispose()
            self._execute("PRAGMA journal_mode = WAL")
        self._note_log()
        names = " ".join(self._path.name + suffix for suffix in changed)
        log.warning("deleted files of SQLite created again", state=self.location, files=names)

    def _restore_lock(self) -> None:
        """Lock the file that is at the lock's path now: otherwise another agent could."""
        try:
            self._lock.acquire()
        except LockedError as error:
            raise self._taken("locked it") from error
        log.warning("deleted lock file created again", state=self.location)

    def _note_log(self) -> None:
        """Note which files SQLite has open; reading makes it open them."""
        with self.begin() as connection:
            connection.exec_driver_sql("PRAGMA schema_version")
        self._log_identities = {
            suffix: files.identity(files.beside(self._path, suffix))
            for suffix in (files.WRITE_AHEAD_LOG, files.SHARED_MEMORY)
        }

    def _taken(self, how: str) -> StoreTakenError:
        return StoreTakenError(
            f"another agent uses {self.description}, it {how} after this one: run one agent per "
            "state file, and keep it on a file system with locks"
        )

    @contextmanager
    def convert_errors(self, task: str = "") -> Iterator[None]:
        """Raise StoreRefusedError for damage and StoreError for any other error of SQLite.

        The text begins with ``task``, or with the file. A statement that a progress handler
        interrupted raises TimeoutError.
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
            raise StoreError(f"{task or self.description}: {text}") from error

    def _shorten_busy_timeout(self, *, shorten: bool) -> None:
        if shorten == self._busy_timeout_shortened:
            return
        # On an error the next transaction waits as long as this one did.
        with suppress(SQLAlchemyError, sqlite3.Error):
            self._set_busy_timeout(_REPEATED_BUSY_MILLISECONDS if shorten else _BUSY_MILLISECONDS)
            self._busy_timeout_shortened = shorten

    def _set_busy_timeout(self, milliseconds: int) -> None:
        self._execute(f"PRAGMA busy_timeout = {milliseconds}")

    def _execute(self, statement: str, *parameters: str) -> None:
        with self._outside_transactions() as connection:
            connection.exec_driver_sql(statement, parameters)

    @contextmanager
    def _outside_transactions(self) -> Iterator[Connection]:
        with self._reader.connect().execution_options(begin="") as connection:
            yield connection


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


@cache
def _owner_query() -> Select[str]:
    return select(meta.c.value).where(meta.c.name == _OWNER)


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
            f"cache_size = -{_CACHE_KIB}",
        ):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        if statement := connection.get_execution_options().get("begin", "BEGIN"):
            connection.exec_driver_sql(statement)

    return engine

"""The database behind the state: one file, one thread, transactions that say what they are for."""

import asyncio
import os
import sqlite3
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial, update_wrapper
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, Protocol, Self, TypeVar

import msgspec
from sqlalchemy import URL, Connection, Engine, create_engine, event, inspect, select, update
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.pool import StaticPool

from exporter.core.text import one_line
from exporter.store.errors import StoreError, StoreRefusedError
from exporter.store.files import Lock, find, prepare, restrict
from exporter.store.migrations import SCHEMA_VERSION, migrate, version_of
from exporter.store.schema import meta, metadata

_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")

_STORE_ID = select(meta.c.value).where(meta.c.name == "store_id")
_BUSY_MILLISECONDS = 5000
_STILL_BUSY_MILLISECONDS = 50
_LOCKED = f"locked by another process for {_BUSY_MILLISECONDS // 1000} s; try again"
_CLOSE_SECONDS = 2.0
_LONGEST = 200


class _Stored(Protocol):
    """An object whose methods use the database."""

    _database: "Database"


_Owner = TypeVar("_Owner", bound=_Stored)


def in_store_thread(
    method: Callable[Concatenate[_Owner, _Parameters], _Result],
) -> Callable[Concatenate[_Owner, _Parameters], Coroutine[Any, Any, _Result]]:
    """Make a blocking method a coroutine that runs in the store's thread.

    The blocking form stays available as ``__wrapped__``.
    """

    async def run(
        self: _Owner, /, *arguments: _Parameters.args, **named: _Parameters.kwargs
    ) -> _Result:
        return await self._database.run(method, self, *arguments, **named)

    update_wrapper(run, method)
    return run


class Database:
    """The state of one agent.

    ``errors`` counts the reads and writes that failed; ``trouble`` says why the last write did,
    and is empty when it did not.

    Every call runs in one thread of its own, so that a slow disk never holds up the event loop and
    transactions never meet. Raises StoreError, or StoreRefusedError when the file must not be used.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(os.path.realpath(path))
        self.store_id = ""
        self.errors = 0
        self.trouble = ""
        self._lock = Lock(self.path)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="store")
        self._engine = _engine(self.path)
        self._writer = self._engine.execution_options(begin="BEGIN IMMEDIATE")
        self._locked = False

    async def __aenter__(self) -> Self:
        try:
            await self.run(self._open)
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        # A disk that hangs must not hold up the end; what was committed is safe.
        with suppress(TimeoutError):
            await asyncio.wait_for(self.run(self._close), _CLOSE_SECONDS)
        self._thread.shutdown(wait=False)

    async def run(
        self,
        work: Callable[_Parameters, _Result],
        *arguments: _Parameters.args,
        **named: _Parameters.kwargs,
    ) -> _Result:
        """Run ``work`` in the store's thread and return what it returns."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, partial(work, *arguments, **named))

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Yield a connection within a transaction that only reads."""
        with self._told(), self._engine.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """Yield a connection within a transaction that may write; it commits at the end.

        The write lock is taken at once: a transaction that begins by reading and writes later fails
        without waiting when another process wrote in between. Once that lock was not to be had, the
        next ones hardly wait for it: one behind the other they would keep the thread for minutes.
        """
        try:
            with self._told(), self._writer.connect() as connection, connection.begin():
                yield connection
        except StoreError as error:
            self.trouble = str(error)
            raise
        self.trouble = ""
        self._note_lock(locked=False)

    async def try_to_write(self) -> None:
        """Find out whether the state can be written; nothing changes. Raises StoreError."""
        await self.run(self._try_to_write)

    def _try_to_write(self) -> None:
        with self.write() as connection:
            connection.execute(update(meta).values(value=meta.c.value))

    def size(self) -> int:
        """Return how many bytes the state takes on disk. Raises OSError."""
        log = self.path.with_name(self.path.name + "-wal")
        return self.path.stat().st_size + (log.stat().st_size if log.exists() else 0)

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except (SQLAlchemyError, sqlite3.Error, msgspec.MsgspecError) as error:
            self.errors += 1
            cause = error.orig if isinstance(error, DBAPIError) else error
            if (damage := _damage(cause)) is not None:
                raise self._damaged(damage) from error
            words: object = cause
            if _code(cause) == sqlite3.SQLITE_BUSY:
                words = _LOCKED
                self._note_lock(locked=True)
            raise StoreError(f"the state file {self.path}: {words}") from error

    def _note_lock(self, *, locked: bool) -> None:
        if locked == self._locked:
            return
        wait = _STILL_BUSY_MILLISECONDS if locked else _BUSY_MILLISECONDS
        with suppress(SQLAlchemyError, sqlite3.Error):  # then the next one waits as long as this
            self._outside_transactions(f"PRAGMA busy_timeout = {wait}")
            self._locked = locked

    def _damaged(self, how: str) -> StoreRefusedError:
        return StoreRefusedError(
            f"the state file {self.path} is damaged ({one_line(how, _LONGEST)}): restore a backup "
            "of it, or move it away to begin with a new baseline; it was left as it is"
        )

    def _open(self) -> None:
        prepare(self.path)
        self._lock.acquire()
        self._check()
        restrict(self.path)
        with self._told():
            self._outside_transactions("PRAGMA journal_mode = WAL")
        with self.write() as connection:
            migrate(connection, self.path)
            self.store_id = connection.execute(_STORE_ID).scalar_one()

    def _check(self) -> None:
        """Look before the first write, so that a file we refuse is left as it is."""
        with self.read() as connection:
            found = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar()
            if found != "ok":
                raise self._damaged(str(found))
            if version_of(connection, self.path) == SCHEMA_VERSION:
                self._check_contents(connection)

    def _check_contents(self, connection: Connection) -> None:
        missing = sorted({*metadata.tables} - {*inspect(connection).get_table_names()})
        if missing:
            raise self._damaged(f"without {', '.join(missing)}")
        if connection.execute(_STORE_ID).scalar() is None:
            raise self._damaged("without store_id")

    def _outside_transactions(self, statement: str) -> None:
        raw = self._engine.raw_connection()
        try:
            raw.cursor().execute(statement)
        finally:
            raw.close()

    def _close(self) -> None:
        self._engine.dispose()
        self._lock.release()


class GuestDatabase(Database):
    """The state of an agent that may be running: opened without its lock, as it is.

    Nothing is made, migrated or protected anew; a file of another version is refused. What SQLite
    makes beside a file that nobody has open belongs to the file's owner, also when root opened it.
    """

    def _open(self) -> None:
        find(self.path)
        self._check()
        with self.read() as connection:
            version = version_of(connection, self.path)
        if version < SCHEMA_VERSION:
            raise StoreRefusedError(
                f"the state file {self.path} has schema version {version}, this program needs "
                f"{SCHEMA_VERSION}: start the agent once, it upgrades the file"
            )


_DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})


def _damage(error: BaseException | None) -> str | None:
    """Return what an error says of damage to the file, None when it is another trouble."""
    if isinstance(error, msgspec.MsgspecError):
        return "an event is not what was written"
    if str(error).startswith("Could not decode to UTF-8"):
        return "a text is not what was written"  # not in SQLite's words, which quote it
    known = _code(error) in _DAMAGED
    return str(error) if known or str(error) == "unsupported file format" else None


def _code(error: BaseException | None) -> int:
    """Return SQLite's primary result code, 0 of another error."""
    code: int = getattr(error, "sqlite_errorcode", 0)
    return code & 0xFF


def _engine(path: Path) -> Engine:
    # hide_parameters: SQLAlchemy's errors would quote what people wrote into their fine-tunes.
    url = URL.create("sqlite+pysqlite", database=str(path))
    engine = create_engine(url, poolclass=StaticPool, hide_parameters=True)

    @event.listens_for(engine, "connect")
    def configure(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # transactions begin where begin() says, not by guess
        for pragma in (
            f"busy_timeout = {_BUSY_MILLISECONDS}",
            "foreign_keys = ON",
            # A commit that was reported survives a power cut; NORMAL may lose it.
            "synchronous = FULL",
        ):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql(connection.get_execution_options().get("begin", "BEGIN"))

    return engine

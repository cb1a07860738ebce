"""Access to the store: its thread, its transactions and its errors."""

import asyncio
import os
from collections.abc import Callable, Coroutine, Hashable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial, update_wrapper
from pathlib import Path
from typing import Any, Concatenate, Final, ParamSpec, Protocol, Self, TypeVar

import msgspec
from sqlalchemy import Connection, inspect, select, update
from sqlalchemy.exc import SQLAlchemyError

from exporter.store.engines import StoreEngine
from exporter.store.engines.sqlite import SQLiteEngine
from exporter.store.errors import StoreError, StoreRefusedError
from exporter.store.migrations import REVISIONS, migrate, read_revision
from exporter.store.schema import meta, metadata

_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")

_STORE_ID: Final = select(meta.c.value).where(meta.c.name == "store_id")
_CLOSE_SECONDS = 2.0


class _HasDatabase(Protocol):
    _database: "Database"


_Owner = TypeVar("_Owner", bound=_HasDatabase)


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
    """The database of one agent.

    ``exclusive`` locks the state file and creates or upgrades its tables. Without it, the file of
    an agent that may be running is opened as it is; it must exist and have the newest schema.

    ``errors`` counts the reads and writes that failed. ``trouble`` is the error of the last write;
    it is empty if that succeeded.

    All work runs in one thread, so that a slow disk never blocks the event loop and transactions
    never overlap. All methods raise StoreError, or StoreRefusedError for a file that must not be
    used.
    """

    def __init__(self, path: Path, *, exclusive: bool = True) -> None:
        self.path = Path(os.path.realpath(path))
        self.store_id = ""
        self.errors = 0
        self.trouble = ""
        self._exclusive = exclusive
        self._engine: StoreEngine = SQLiteEngine(path)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="store")

    async def __aenter__(self) -> Self:
        try:
            await self.run(self._open)
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        # A disk that hangs must not delay the end of the process: what was committed is safe.
        with suppress(TimeoutError):
            await asyncio.wait_for(self.run(self._engine.close), _CLOSE_SECONDS)
        self._thread.shutdown(wait=False)

    async def run(
        self,
        work: Callable[_Parameters, _Result],
        *arguments: _Parameters.args,
        **named: _Parameters.kwargs,
    ) -> _Result:
        """Run ``work`` in the store's thread and return its result."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, partial(work, *arguments, **named))

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Yield a connection in a transaction that only reads."""
        with self._convert_errors(), self._engine.begin() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """Yield a connection in a transaction that may write; it commits at the end."""
        try:
            with self._convert_errors(), self._engine.begin(write=True) as connection:
                yield connection
        except StoreError as error:
            self.trouble = str(error)
            raise
        self.trouble = ""

    async def try_to_write(self) -> None:
        """Check that the database can be written, without a change."""
        await self.run(self._try_to_write)

    def _try_to_write(self) -> None:
        with self.write() as connection:
            connection.execute(update(meta).values(value=meta.c.value))

    def external_changes(self, connection: Connection) -> Hashable:
        """Return a value that changes when another process writes."""
        return self._engine.external_changes(connection)

    def size(self) -> int:
        """Return the size of the database in bytes. Raises OSError."""
        return self._engine.size()

    @contextmanager
    def _convert_errors(self) -> Iterator[None]:
        try:
            yield
        except msgspec.MsgspecError as error:
            self.errors += 1
            raise self._engine.damaged("an event is not what was written") from error
        except (SQLAlchemyError, self._engine.driver_error) as error:
            self.errors += 1
            raise self._engine.to_store_error(error) from error

    def _open(self) -> None:
        self._engine.open(exclusive=self._exclusive)
        revision = self._check()
        if self._exclusive:
            with self._convert_errors():
                self._engine.prepare_writing()
            with self._engine.migrating(), self.write() as connection:
                migrate(connection, self._engine)
                self.store_id = connection.execute(_STORE_ID).scalar_one()
        elif revision != REVISIONS[-1]:
            raise StoreRefusedError(
                f"{self._engine.description} has schema version {revision or 'none'}, this program "
                f"needs {REVISIONS[-1]}: start the agent once, it upgrades the file"
            )

    def _check(self) -> str | None:
        """Check the database before the first write: one that is refused is left as it is.

        Returns its revision, None if it is empty.
        """
        with self.read() as connection:
            self._engine.check(connection)
            revision = read_revision(connection, self._engine)
            if revision == REVISIONS[-1]:
                missing = sorted({*metadata.tables} - {*inspect(connection).get_table_names()})
                if missing:
                    raise self._engine.damaged(f"without {', '.join(missing)}")
                if connection.execute(_STORE_ID).scalar() is None:
                    raise self._engine.damaged("without store_id")
        return revision

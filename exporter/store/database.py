"""Access to the store: its thread, its transactions and its errors."""

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial, wraps
from math import inf
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, Protocol, Self, TypeVar

import msgspec
from sqlalchemy import Connection, select

from exporter.core.counters import Counters
from exporter.core.model import AccountKey
from exporter.core.ownership import Claim
from exporter.store.awake import AwakeClock
from exporter.store.engines import StoreEngine
from exporter.store.engines.sqlite import SQLiteEngine
from exporter.store.errors import (
    StoreConflictError,
    StoreError,
    StoreFencedError,
    StoreLostError,
    StoreRefusedError,
)
from exporter.store.location import StoreLocation
from exporter.store.migrations import REVISIONS, migrate, read_revision
from exporter.store.reader import Reader
from exporter.store.schema import meta
from exporter.threads import start_executor

_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")

_OPEN_ATTEMPTS = 5
"""Attempts of a start while another agent creates or upgrades the tables. Each waits for a part of
a lease."""

_CLOSE_SECONDS = 2.0


def open_engine(location: StoreLocation) -> StoreEngine:
    """Return the engine for a location; it is not opened yet. Raises StoreRefusedError."""
    if isinstance(location, Path):
        return SQLiteEngine(location)
    try:
        from exporter.store.engines.postgres import PostgresEngine  # noqa: PLC0415 - takes 0.3 s
    except ImportError as error:
        raise StoreRefusedError(
            f"storage.url needs psycopg ({error}): pip install 'cartesia-exporter[postgres]'"
        ) from None
    return PostgresEngine(location)


class _HasDatabase(Protocol):
    _database: "Database"


_Owner = TypeVar("_Owner", bound=_HasDatabase)


def in_store_thread(
    method: Callable[Concatenate[_Owner, _Parameters], _Result],
) -> Callable[Concatenate[_Owner, _Parameters], Coroutine[Any, Any, _Result]]:
    """Make a blocking method a coroutine that runs in the store's thread."""

    @wraps(method)
    async def run(
        self: _Owner, /, *arguments: _Parameters.args, **named: _Parameters.kwargs
    ) -> _Result:
        return await self._database.run(method, self, *arguments, **named)

    return run


class Database:
    """The database of one agent.

    ``exclusive`` locks the state file and creates or upgrades its tables. Without it, the state of
    an agent that may be running is opened as it is; it must exist and have the newest schema. In
    PostgreSQL nothing is locked. If ``init``, a database that was emptied becomes a new state.

    ``errors`` counts the reads and writes that failed. ``lost`` is set when the open database is no
    longer the state of this agent, which must end then; ``on_lost`` is called in the event loop.
    ``on_fenced`` is called there with a claim that another replica has; ``trusts`` returns
    whether this process has a claim still, as far as it knows. ``awake`` runs if
    ``exclusive``, driven by ``monotonic``. ``counters`` are the largest ones that were seen of each
    account.

    All work runs in threads of the store, so that a slow disk never blocks the event loop: in one
    for a state file, in one for each connection to PostgreSQL. All methods raise StoreError, or
    StoreRefusedError for a database that must not be used.
    """

    def __init__(
        self,
        location: StoreLocation,
        *,
        exclusive: bool = True,
        init: bool = False,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.store_id = ""
        self.errors = 0
        self.lost: StoreLostError | None = None
        self.on_lost: Callable[[], object] = lambda: None
        self.on_fenced: Callable[[Claim], object] = lambda _: None
        self.trusts: Callable[[Claim], bool] = lambda _: True
        self.counters: dict[AccountKey, Counters] = {}
        self._write_error = ""
        self.engine = open_engine(location)
        self.monotonic = monotonic
        self.awake = AwakeClock(monotonic)
        self._exclusive = exclusive
        self._init = init
        self._form_key = b""
        self.baseline_checkpoint_at = -inf
        self._thread = start_executor("store", self.engine.threads)

    @property
    def trouble(self) -> str:
        """Why nothing can be stored: the error of the last write; empty if it succeeded."""
        return str(self.lost or self._write_error)

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
            await asyncio.wait_for(self.run(self._close), _CLOSE_SECONDS)
        self._thread.shutdown(wait=False)

    async def run(
        self,
        work: Callable[_Parameters, _Result],
        *arguments: _Parameters.args,
        **named: _Parameters.kwargs,
    ) -> _Result:
        """Run ``work`` in the store's thread and return its result."""
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._thread, partial(work, *arguments, **named))
        except StoreLostError as error:
            self.lose(error)
            raise
        except StoreFencedError as error:
            self.on_fenced(error.claim)
            raise

    def lose(self, error: StoreLostError) -> None:
        """Note that the open database is not the state of this agent any more."""
        if self.lost is None:
            self.lost = error
            self.on_lost()

    def reader(self) -> Reader:
        """Return a reader with a thread and a connection of its own."""
        return Reader(self.engine.reader())

    @property
    def form_key(self) -> bytes:
        """The key that signs the forms of the pages; any replica has the same."""
        return self._form_key

    def read(self) -> AbstractContextManager[Connection]:
        """Return a context with a connection in a transaction that only reads."""
        return self._transaction(write=False)

    @contextmanager
    def write(self, claim: Claim | None = None) -> Iterator[Connection]:
        """Yield a connection in a transaction that may write; it commits at the end.

        ``claim`` is what the service that writes must own, if several replicas use the database.
        """
        try:
            with self._transaction(write=True) as connection:
                self.engine.check_owner(connection, claim)
                self.awake.advance(connection)
                yield connection
        except StoreFencedError:
            raise  # the database can be written
        except StoreError as error:
            self._write_error = str(error)
            raise
        self._write_error = ""

    def note_write(self, error: str) -> None:
        """Note whether the database can be written: the error of a renewal, or empty."""
        self._write_error = error

    def try_to_write(self) -> None:
        """Check that the database can be written: store the awake clock."""
        with self.write():
            pass

    def checkpoint(self) -> None:
        """Move what was committed to where a backup of the database finds it."""
        try:
            self.engine.checkpoint()
        except StoreError:
            self.errors += 1
            raise

    @contextmanager
    def _transaction(self, *, write: bool) -> Iterator[Connection]:
        try:
            with self.engine.begin(write=write) as connection:
                yield connection
        except msgspec.MsgspecError as error:
            self.errors += 1
            raise self.engine.damaged("an event is not what was written") from error
        except StoreFencedError:
            raise
        except StoreError:
            self.errors += 1
            raise

    def _open(self) -> None:
        self.engine.open(exclusive=self._exclusive)
        # Before the first write: a database that is refused is left as it is.
        with self.read() as connection:
            revision = read_revision(connection, self.engine, init=self._init)
        if self._exclusive:
            for left in reversed(range(_OPEN_ATTEMPTS)):
                try:
                    self._take_over()
                    break
                except StoreConflictError:
                    if not left:
                        raise
        elif revision != REVISIONS[-1]:
            raise StoreRefusedError(
                f"{self.engine.description} has schema version {revision or 'none'}, this program "
                f"needs {REVISIONS[-1]}: start the agent once, it upgrades the tables"
            )

    def _take_over(self) -> None:
        """Create or upgrade the tables, and continue from what is stored."""
        with self.engine.migrating(), self.write() as connection:
            self.store_id = migrate(connection, self.engine, init=self._init)
            key = select(meta.c.value).where(meta.c.name == "form_key")
            self._form_key = connection.scalars(key).one().encode()
            self.engine.take_over(connection)
            self.awake.start(connection)

    def _close(self) -> None:
        # What passed since the last write counts too: restarts must not make an outage younger.
        if self.awake.advances:
            with suppress(StoreError):
                self.try_to_write()
        self.engine.close()

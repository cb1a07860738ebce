"""PostgreSQL: one database, which several agents and commands may use at the same time.

Works behind a pooler in transaction mode: no session state, no prepared statements, no startup
options. Every transaction sets its own timeouts.
"""

import secrets
import threading
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from time import monotonic
from typing import Any, Final

import psycopg
from sqlalchemy import Connection, Engine, delete, event, extract, func, inspect, select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from exporter.core.ownership import Claim, renewal_interval
from exporter.store.engines import postgres_errors
from exporter.store.engines.postgres_connections import Connector
from exporter.store.engines.postgres_errors import to_store_error
from exporter.store.engines.postgres_ownership import LIVE_NAMES, holds
from exporter.store.errors import (
    StoreError,
    StoreFencedError,
    StoreLostError,
    StoreRefusedError,
)
from exporter.store.location import PostgresLocation
from exporter.store.schema import changes, meta, metadata, replicas

OLDEST_VERSION: Final = 13
_VERSION_UNIT: Final = 10_000

_PAUSE_SHARE: Final = 0.4
"""Share of the lease after which PostgreSQL ends a transaction of an agent that is paused, or that
waits for a lock."""

_ANSWER_FACTOR: Final = 2
"""A server that has not answered after this many times its own timeout does not work."""

_DAY_SECONDS: Final = 86_400

_SNAPSHOT: Final = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
_NOW: Final = extract("epoch", func.clock_timestamp())


class PostgresEngine:
    """The database at ``location``; a StoreEngine."""

    is_shared = True

    def __init__(self, location: PostgresLocation) -> None:
        self.threads = location.pool
        self._connector = Connector(location)
        self.location = self._connector.address
        self.description = f"the database {self.location}"
        self._process = secrets.token_hex(16)
        self._numbers = count(1)
        self._thread = threading.local()
        self._store_id: str | None = None
        self._size: int | None = None
        pause = _PAUSE_SHARE * location.lease
        timeouts = _timeouts(statement=location.lease, lock=pause, idle=pause)
        self._answer_seconds = _ANSWER_FACTOR * location.lease
        self._engine = self._connector.engine(location.pool, self._answer_seconds)
        self._reading = self._engine.execution_options(begin=f"{_SNAPSHOT}; {timeouts}")
        self._writing = self._engine.execution_options(begin=f"BEGIN; {timeouts}")
        # Not of the pool: a renewal must not wait until other work ends.
        self.lease = location.lease
        interval = renewal_interval(location.lease)
        timeouts = _timeouts(statement=interval, lock=interval, idle=pause)
        self._lease_engine = self._connector.engine(1, _ANSWER_FACTOR * interval)
        self._leasing = self._lease_engine.execution_options(begin=f"BEGIN; {timeouts}")

    def open(self, *, exclusive: bool) -> None:  # noqa: ARG002 - nothing is locked
        """Check the server's version and the encoding of the database."""
        with self.begin() as connection:
            server: Any = connection.connection.driver_connection
            version = server.info.server_version // _VERSION_UNIT
            if version < OLDEST_VERSION:
                raise StoreRefusedError(
                    f"{self.description} is on PostgreSQL {version}: {OLDEST_VERSION} or newer is "
                    "needed"
                )
            encoding = connection.exec_driver_sql("SHOW server_encoding").scalar_one()
            if encoding != "UTF8":
                raise StoreRefusedError(
                    f"{self.description} has the encoding {encoding}: create one with ENCODING "
                    "'UTF8' TEMPLATE template0"
                )

    def open_unused(self) -> None:
        """Check an existing database. Later agents are not kept from using it."""
        self.open(exclusive=False)
        self.check_unused()

    def check_unused(self) -> None:
        """Check that no replica has a lease."""
        with self.begin() as connection:
            exists = connection.scalar(select(func.to_regclass(replicas.name))) is not None
            names = sorted(connection.scalars(LIVE_NAMES)) if exists else []
        if names:
            raise StoreRefusedError(
                f"{self.description} is in use by {', '.join(names)}: stop the agent. One that was "
                "killed counts until the end of its lease"
            )

    def create(self, fill: Callable[[Connection], None]) -> None:
        """Create the tables and what ``fill`` writes into a database without tables of ours."""
        self.open(exclusive=True)
        with self.begin(write=True) as connection:
            found = metadata.tables.keys() & inspect(connection).get_table_names()
            if found:
                raise StoreRefusedError(
                    f"{self.description} is not empty, it has {', '.join(sorted(found))}: give a "
                    "new database"
                )
            fill(connection)
            for table in metadata.sorted_tables:
                if (key := table.autoincrement_column) is not None:
                    sequence = func.pg_get_serial_sequence(table.name, key.name)
                    last = select(func.max(key)).scalar_subquery()
                    connection.execute(select(func.setval(sequence, last)))

    @contextmanager
    def migrating(self) -> Iterator[None]:
        """Return a context without effect: tables change within the transaction."""
        yield

    def check_new(self, tables: frozenset[str]) -> None:
        """Accept a database without tables of ours, whatever else it has."""

    def foreign(self) -> StoreRefusedError:
        """Return the error for tables of another program with the names of ours."""
        return StoreRefusedError(
            f"{self.description} has tables of another program with the same names: give "
            "storage.url a database of its own, or let its user's search_path begin with a schema "
            "of its own"
        )

    def take_over(self, connection: Connection) -> None:
        """Note the store's id: the database is lost when it has another one."""
        self._store_id = connection.scalar(_STORE_ID)

    def check_owner(self, connection: Connection, claim: Claim | None) -> None:
        """Check the claim of a service, and keep it valid until the end of the transaction."""
        if claim is not None and not holds(connection, claim):
            raise StoreFencedError(claim)

    def verify(self) -> None:
        """Check that the database still has the store's id."""
        if self._store_id is None:
            return
        with self.begin() as connection:
            if connection.scalar(_TABLE) is None:
                raise StoreLostError(f"{self.description} has lost its tables while in use")
            found = connection.scalar(_STORE_ID)
        if found is None:
            raise StoreLostError(f"{self.description} was emptied while in use")
        if found != self._store_id:
            raise StoreLostError(f"{self.description} was replaced by another state while in use")

    def rescue(self, now: float) -> str:  # noqa: ARG002 - as the protocol has it
        """Raise StoreError: what was in the database is in its backups only."""
        raise StoreError(f"{self.description}: restore a backup of it")

    def back_up(self, target: Path) -> None:
        """Raise StoreRefusedError: PostgreSQL has its own programs for that."""
        raise StoreRefusedError(
            f"{self.description} is backed up with the programs of PostgreSQL, for example "
            f"`pg_dump --format=custom --file={target} --dbname=URL`"
        )

    def find_damage(self) -> list[str]:
        """Check that the database can be used; PostgreSQL checks references with each change."""
        self.open(exclusive=False)
        return []

    def checkpoint(self) -> None:
        """Measure the size, and delete the change marks of processes that ended."""
        with self.begin() as connection:
            self._size = connection.scalar(_SIZE)
            old = select(changes.c.process).where(changes.c.at < _NOW - _DAY_SECONDS).limit(1)
            outdated = connection.scalar(old) is not None
        if outdated:
            with self._transaction(self._writing) as connection:
                connection.execute(delete(changes).where(changes.c.at < _NOW - _DAY_SECONDS))

    @contextmanager
    def begin(self, *, write: bool = False) -> Iterator[Connection]:
        """Yield a connection in a transaction; one that reads sees one state of the database."""
        with self._transaction(self._writing if write else self._reading) as connection:
            yield connection
            if write:
                self._mark_change(connection)

    @contextmanager
    def leasing(self, *, changes_owners: bool) -> Iterator[Connection]:
        """Yield a connection of its own in a transaction, for renewals and changes of owners.

        A renewal alone is no change of the database that others look at.
        """
        with self._transaction(self._leasing) as connection:
            yield connection
            if changes_owners:
                self._mark_change(connection)

    def damaged(self, how: str) -> StoreRefusedError:
        """Return the error for a damaged database."""
        return postgres_errors.damaged(self.description, how)

    def external_changes(self, connection: Connection) -> Hashable:
        """Return the marks of the last commits of other processes."""
        query = _MARKS.where(changes.c.process != self._process)
        return tuple(map(tuple, connection.execute(query)))

    def size(self) -> int:
        """Return the size of the tables and indexes in bytes, at most a minute old."""
        if self._size is None:
            raise FileNotFoundError(f"the size of {self.description} is not known yet")
        return self._size

    def reader(self) -> "PostgresReader":
        """Return a connection of its own that only reads; not opened yet."""
        return PostgresReader(self._connector.engine(1, self._answer_seconds), self)

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()
        self._lease_engine.dispose()

    @contextmanager
    def _transaction(self, engine: Engine) -> Iterator[Connection]:
        with self.convert_errors(), begun(engine) as connection:
            yield connection

    def _mark_change(self, connection: Connection) -> None:
        """Store a new token in the row of this thread, which no other thread waits for."""
        if not hasattr(self._thread, "number"):
            self._thread.number = next(self._numbers)
        mark = insert(changes).values(
            process=self._process,
            thread=self._thread.number,
            token=secrets.randbits(63),
            at=_NOW,
        )
        new = {"token": mark.excluded.token, "at": mark.excluded.at}
        keys = [changes.c.process, changes.c.thread]
        connection.execute(mark.on_conflict_do_update(index_elements=keys, set_=new))

    @contextmanager
    def convert_errors(self, *, reading: bool = False) -> Iterator[None]:
        """Raise errors of SQLAlchemy and psycopg as those of the store."""
        try:
            yield
        except (SQLAlchemyError, psycopg.Error) as error:
            raise to_store_error(error, self.description, reading=reading) from error


class PostgresReader:
    """A connection that only reads; a ReadEngine."""

    def __init__(self, engine: Engine, owner: PostgresEngine) -> None:
        self._owner = owner
        self._engine = engine
        self._deadline = 0.0
        event.listen(self._engine, "before_cursor_execute", self._check_deadline)

    @contextmanager
    def begin(self, seconds: float) -> Iterator[Connection]:
        """Yield a connection in a transaction without statements after ``seconds``."""
        self._deadline = monotonic() + seconds
        timeouts = _timeouts(statement=seconds, lock=seconds, idle=2 * seconds)
        # Compiling a query takes longer than running it.
        engine = self._engine.execution_options(
            begin=f"{_SNAPSHOT}; {timeouts}; SET LOCAL jit = off"
        )
        with self._owner.convert_errors(reading=True), begun(engine) as connection:
            yield connection

    def version(self, connection: Connection) -> Hashable:
        """Return the marks of the last commits of all processes."""
        return tuple(map(tuple, connection.execute(_MARKS)))

    def damaged(self, how: str) -> StoreRefusedError:
        """Return the error for a damaged database."""
        return self._owner.damaged(how)

    def close(self) -> None:
        """Close the connection."""
        self._engine.dispose()

    def _check_deadline(self, *_: object) -> None:
        if monotonic() >= self._deadline:
            raise TimeoutError


_STORE_ID: Final = select(meta.c.value).where(meta.c.name == "store_id")
_TABLE: Final = select(func.to_regclass(meta.name))
_MARKS: Final = select(changes.c.process, changes.c.thread, changes.c.token).order_by(
    changes.c.process, changes.c.thread
)
_SIZE: Final = text(
    "SELECT sum(pg_total_relation_size(oid)) FROM pg_class WHERE relname = ANY(:tables) "
    "AND relnamespace = to_regnamespace(current_schema())"
).bindparams(tables=list(metadata.tables))


@contextmanager
def begun(engine: Engine) -> Iterator[Connection]:
    """Yield a connection of ``engine`` in a transaction, on a new one if the old one is broken."""
    connection = engine.connect()
    try:
        transaction = connection.begin()
    except DBAPIError as error:
        connection.close()
        if not error.connection_invalidated:
            raise
        connection = engine.connect()  # the server was restarted: nothing was sent before
        transaction = connection.begin()
    with connection, transaction:
        yield connection


def _timeouts(*, statement: float, lock: float, idle: float) -> str:
    seconds = {
        "statement_timeout": statement,
        "lock_timeout": lock,
        "idle_in_transaction_session_timeout": idle,
    }
    return "; ".join(f"SET LOCAL {name} = {round(1000 * each)}" for name, each in seconds.items())

"""Backup of a state, and the check of a state or of its backup."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec
import sqlalchemy as sa
from msgspec import Struct

from exporter.store.engines import StoreEngine
from exporter.store.errors import StoreRefusedError
from exporter.store.events import PENDING, event_of
from exporter.store.migrations import REVISIONS, read_revision
from exporter.store.schema import accounts, deliveries, events, fine_tunes, metadata

_ROWS_PER_FETCH: Final = 1000


class Contents(Struct, frozen=True):
    """What a sound state contains; ``read_at`` is the last poll in Unix seconds, None without."""

    revision: str
    accounts: int
    fine_tunes: int
    events: int
    pending: int
    read_at: float | None


class DamagedStateError(Exception):
    """A state is damaged; ``problems`` says how."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


def back_up(engine: StoreEngine, target: Path) -> None:
    """Write a complete copy of a state to the new file ``target``; an agent may use the state.

    The state may have an older schema, so that it can be copied before an upgrade. Raises
    FileExistsError, OSError, StoreError.
    """
    engine.open(exclusive=False)
    try:
        with engine.begin() as connection:
            _revision(connection, engine)
        engine.back_up(target)
    finally:
        engine.close()


def check(engine: StoreEngine) -> Contents:
    """Check a state completely and return what it contains; an agent may use it meanwhile.

    Raises DamagedStateError; StoreRefusedError if it is no state of this program, StoreError if it
    cannot be read.
    """
    try:
        problems = engine.find_damage()
        if not problems:
            with engine.begin() as connection:
                revision = _revision(connection, engine)
                # The program itself upgrades an older schema, at the next start.
                if revision == REVISIONS[-1]:
                    problems = [*_schema_differences(connection)]
                    problems = problems or [*_unreadable_rows(connection)]
                if not problems:
                    return _contents(connection, revision)
    finally:
        engine.close()
    raise DamagedStateError(problems)


def _revision(connection: sa.Connection, engine: StoreEngine) -> str:
    revision = read_revision(connection, engine)
    if revision is None:
        raise StoreRefusedError(
            f"{engine.description} is empty: `cartesia-exporter run` creates its tables at the "
            "first start"
        )
    return revision


def _schema_differences(connection: sa.Connection) -> Iterator[str]:
    """Yield the columns and indexes that are missing; read_revision looks for the tables."""
    found = sa.inspect(connection)
    for table in metadata.sorted_tables:
        columns = {column["name"] for column in found.get_columns(table.name)}
        indexes = {index["name"] for index in found.get_indexes(table.name)}
        for kind, expected, present in (
            ("column", {column.name for column in table.columns}, columns),
            ("index", {str(index.name) for index in table.indexes}, indexes),
        ):
            for name in sorted(expected - present):
                yield f"table {table.name} has no {kind} {name}"


def _unreadable_rows(connection: sa.Connection) -> Iterator[str]:
    """Read every row of every table; yield the events that are not what was written."""
    for table in metadata.sorted_tables:
        rows = connection.execute(
            sa.select(table), execution_options={"yield_per": _ROWS_PER_FETCH}
        )
        for row in rows:
            if table is not events:
                continue
            try:
                event_of(row)
            except msgspec.MsgspecError:
                yield f"the event {row.id} is not what was written"


def _contents(connection: sa.Connection, revision: str) -> Contents:
    def count(table: sa.Table, *conditions: sa.ColumnElement[bool]) -> int:
        query = sa.select(sa.func.count()).select_from(table).where(*conditions)
        return connection.execute(query).scalar_one()

    return Contents(
        revision,
        count(accounts),
        count(fine_tunes),
        count(events),
        count(deliveries, deliveries.c.state == PENDING),
        connection.scalar(sa.select(sa.func.max(accounts.c.read_at))),
    )

"""Copy of a complete state into another database, which may be of the other engine."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

import sqlalchemy as sa

from exporter.store.engines import StoreEngine, insert_rows
from exporter.store.errors import StoreError, StoreRefusedError
from exporter.store.migrations import REVISIONS, create_tables, read_revision
from exporter.store.schema import changes, metadata, ownership, replicas

_ROWS_PER_FETCH: Final = 200

_OF_ONE_PLACE: Final = frozenset({changes.name, replicas.name, ownership.name})
"""Tables about the processes that use a database."""


def copy_state(source: StoreEngine, target: StoreEngine) -> dict[str, int]:
    """Copy all rows of ``source`` to ``target``, a new database; return their numbers by table.

    The target is complete when this returns, and unchanged if anything fails. Raises
    StoreRefusedError if an agent uses the source or starts to meanwhile, its schema is an older
    one, or the target is not empty; FileExistsError, OSError, StoreError.
    """
    counts: dict[str, int] = {}

    def fill(connection: sa.Connection) -> None:
        create_tables(connection)
        for table in metadata.sorted_tables:
            if table.name not in _OF_ONE_PLACE:
                insert_rows(connection, table, _rows(reading, table))
                counts[table.name] = _checked_count(connection, table, _count(reading, table))
        source.check_unused()

    try:
        source.open_unused()
        with source.begin() as reading:
            if read_revision(reading, source) != REVISIONS[-1]:
                raise StoreRefusedError(
                    f"{source.description} has not the schema of this version: start the agent "
                    "once, it creates or upgrades the tables"
                )
            target.create(fill)
    finally:
        target.close()
        source.close()
    return counts


def _rows(connection: sa.Connection, table: sa.Table) -> Iterator[Mapping[str, Any]]:
    rows = connection.execute(sa.select(table), execution_options={"yield_per": _ROWS_PER_FETCH})
    yield from map(dict, rows.mappings())


def _count(connection: sa.Connection, table: sa.Table) -> int:
    return connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one()


def _checked_count(connection: sa.Connection, table: sa.Table, expected: int) -> int:
    found = _count(connection, table)
    if found != expected:
        raise StoreError(f"the copy of table {table.name} has {found} rows instead of {expected}")
    return found

"""Statements and tables that are compiled once for all stores which a process of tests opens.

SQLAlchemy looks a compiled statement up by the engine's dialect, which is an object of each engine,
and compiles tables each time. Both took a third of the time of the tests that open a store.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, event
from sqlalchemy.engine.default import DefaultDialect
from sqlalchemy.util import LRUCache

from exporter.store import migrations


@contextmanager
def shared_compilation() -> Iterator[None]:
    """Share what is compiled within the context."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DefaultDialect, "__eq__", lambda self, other: type(self) is type(other))
        patch.setattr(DefaultDialect, "__hash__", lambda self: hash(type(self)))
        statements = LRUCache[Any, Any](5_000)
        shared = property(lambda _: statements, lambda _, own: None)
        patch.setattr(Engine, "_compiled_cache", shared, raising=False)
        patch.setattr(migrations, "create_tables", _RecordedTables().create)
        yield


class _RecordedTables:
    """The statements that create the tables, by the name of the dialect."""

    def __init__(self) -> None:
        self._create = migrations.create_tables
        self._recorded: dict[str, list[tuple[str, Any]]] = {}

    def create(self, connection: Connection) -> None:
        recorded = self._recorded.get(connection.dialect.name)
        if recorded is not None:
            for statement, parameters in recorded:
                connection.exec_driver_sql(statement, parameters)
            return
        found: list[tuple[str, Any]] = []

        def record(_connection: Any, _cursor: Any, text: str, parameters: Any, *_: Any) -> None:
            found.append((text, parameters))

        event.listen(connection, "before_cursor_execute", record)
        try:
            self._create(connection)
        finally:
            event.remove(connection, "before_cursor_execute", record)
        self._recorded[connection.dialect.name] = found

"""The check of statements finds what PostgreSQL refuses, and no SQL evades it."""

import ast
from contextlib import ExitStack
from pathlib import Path

import pytest
from sqlalchemy import Select, create_engine, func, literal, select
from sqlalchemy.sql.ddl import CreateTable

import exporter.store
from exporter.store.engines import dialect_insert, upsert
from exporter.store.schema import events, metadata, receivers
from tests.store.portable_sql import check_statement

STORE = Path(exporter.store.__file__).parent
RAW_SQL = frozenset({"exec_driver_sql", "text", "literal_column", "prefix_with", "with_hint"})
OUTSIDE = [
    path
    for path in STORE.rglob("*.py")
    if path.relative_to(STORE).parts[0] not in {"engines", "migrations"}
]


def check(statement: object) -> None:
    check_statement(None, statement, (), {}, {})  # unused


@pytest.mark.parametrize(
    ("statement", "error"),
    [
        (select(func.group_concat(events.c.type)), "function group_concat"),
        (select(func.json_extract(events.c.content, "$.fine_tune")), "function json_extract"),
        (select(events.c.id).limit(-1), "negative limit"),
        (select(select(events.c.id).limit(-1).subquery()), "negative limit"),
        (select(literal(None).is_(None)), "untyped"),
    ],
)
def test_statements_of_sqlite_alone_are_found(statement: Select[tuple[object]], error):
    with pytest.raises(AssertionError, match=error):
        check(statement)


def test_the_limit_of_a_form_that_has_passed_is_checked_again():
    check(select(events.c.subject).limit(5))
    with pytest.raises(AssertionError, match="negative limit"):
        check(select(events.c.subject).limit(-1))


def test_upserts_and_tables_pass():
    engine = create_engine("sqlite://")
    with ExitStack() as resources:
        resources.callback(engine.dispose)
        connection = resources.enter_context(engine.begin())
        metadata.create_all(connection)
        insert = dialect_insert(connection, events).on_conflict_do_nothing(index_elements=["id"])
        check(insert.returning(events.c.number))
        check(CreateTable(events))
        upsert(connection, receivers, [{"name": "a", "reason": "b", "retry_requests": 1}])
        upsert(connection, receivers, [{"name": "a", "reason": "c"}])
        stored = connection.execute(select(receivers.c.reason, receivers.c.retry_requests)).one()
        assert tuple(stored) == ("c", 1)


def test_raw_sql_and_dialects_are_used_by_engines_only():
    """Raw SQL does not pass the check of statements."""
    assert len(OUTSIDE) >= 10
    for path in OUTSIDE:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom | ast.Import):
                modules = [getattr(node, "module", None), *(each.name for each in node.names)]
                assert not any(
                    str(name).startswith(("sqlalchemy.dialects", "sqlite3")) for name in modules
                ), path
            if isinstance(node, ast.Call):
                called = node.func
                name = called.attr if isinstance(called, ast.Attribute) else ""
                name = called.id if isinstance(called, ast.Name) else name
                assert name not in RAW_SQL, f"{path}:{node.lineno}: {name}"

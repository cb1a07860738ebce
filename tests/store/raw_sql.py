"""Direct access to the tables, beside the statements of the store, on both engines."""

from typing import Any

from sqlalchemy import Engine, text

from exporter.store.database import Database
from exporter.store.engines.postgres import PostgresEngine
from exporter.store.engines.sqlite import SQLiteEngine


def sqlalchemy_engine(database: Database) -> Engine:
    if isinstance(database.engine, PostgresEngine):
        return database.engine._engine
    assert isinstance(database.engine, SQLiteEngine)
    return database.engine._reader


async def execute(database: Database, statement: str, **parameters: Any) -> list[Any]:
    """Execute a statement in a transaction of its own; return the rows, if it returns any.

    Not as the store does: neither the awake clock nor the marks of changes move.
    """

    typed = text(statement).bindparams(**parameters)

    def run() -> list[Any]:
        with sqlalchemy_engine(database).connect() as connection, connection.begin():
            result = connection.execute(typed)
            return [*map(tuple, result)] if result.returns_rows else []

    return await database.run(run)


async def count_rows(database: Database, table: str) -> int:
    [(count,)] = await execute(database, f"SELECT count(*) FROM {table}")
    return int(count)


async def reject_inserts(database: Database, table: str, when: str = "") -> None:
    """Let every insert into a table fail with the error "no room"."""
    for statement in refusal_of(database, f"INSERT ON {table}", when):
        await execute(database, statement)


async def accept_inserts(database: Database) -> None:
    """End what ``reject_inserts`` began."""
    await execute(database, end_of_refusal(database))


def refusal_of(database: Database, what: str, when: str = "") -> list[str]:
    """Return the statements that let certain writes fail with the error "no room"."""
    if not isinstance(database.engine, PostgresEngine):
        action = "BEGIN SELECT RAISE(ABORT, 'no room'); END"
        return [f"CREATE TRIGGER no_room BEFORE {what} {when} {action}"]
    body = "$$ BEGIN RAISE 'no room'; END $$"
    return [
        f"CREATE FUNCTION no_room() RETURNS trigger LANGUAGE plpgsql AS {body}",
        f"CREATE TRIGGER no_room BEFORE {what} FOR EACH ROW {when} EXECUTE FUNCTION no_room()",
    ]


def end_of_refusal(database: Database) -> str:
    """Return the statement that ends a refusal, if there is one."""
    if isinstance(database.engine, PostgresEngine):
        return "DROP FUNCTION IF EXISTS no_room CASCADE"
    return "DROP TRIGGER IF EXISTS no_room"

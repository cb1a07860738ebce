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
    action = "BEGIN SELECT RAISE(ABORT, 'no room'); END"
    if isinstance(database.engine, PostgresEngine):
        await execute(
            database,
            "CREATE FUNCTION no_room() RETURNS trigger LANGUAGE plpgsql AS"
            " $$ BEGIN RAISE 'no room'; END $$",
        )
        when, action = f"FOR EACH ROW {when}", "EXECUTE FUNCTION no_room()"
    await execute(database, f"CREATE TRIGGER no_room BEFORE INSERT ON {table} {when} {action}")


async def accept_inserts(database: Database, table: str) -> None:
    """End what ``reject_inserts`` began."""
    on_table = f" ON {table}" if isinstance(database.engine, PostgresEngine) else ""
    await execute(database, f"DROP TRIGGER no_room{on_table}")

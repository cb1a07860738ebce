"""What is remembered of the receivers themselves: how they are doing, and when they are tried."""

from dataclasses import dataclass

from sqlalchemy import Connection, select
from sqlalchemy.dialects.sqlite import insert

from exporter.core.circuit import WELL, Health
from exporter.store.database import Database
from exporter.store.schema import receivers


@dataclass(frozen=True, slots=True)
class Standing:
    """A receiver's health and when it is to be tried again (Unix seconds, 0 for at once).

    ``nudges`` counts how often somebody asked to try at once.
    """

    health: Health = WELL
    resume_at: float = 0.0
    nudges: int = 0


def load_standing(database: Database, receiver: str) -> Standing:
    """Return what was stored of a receiver; that of a well one when nothing was."""
    table = receivers.c
    query = select(
        table.failures, table.since, table.open, table.reason, table.resume_at, table.nudges
    ).where(table.name == receiver)
    with database.read() as connection:
        row = connection.execute(query).first()
    if row is None:
        return Standing()
    return Standing(Health(row[0], row[1], row[2], row[3]), row.resume_at, row.nudges)


def store_health(connection: Connection, receiver: str, health: Health, resume_at: float) -> None:
    """Store how a receiver is doing, within the caller's transaction."""
    values = {
        "failures": health.failures,
        "since": health.since,
        "open": health.open,
        "reason": health.reason,
        "resume_at": resume_at,
    }
    statement = insert(receivers).values(name=receiver, nudges=0, **values)
    connection.execute(statement.on_conflict_do_update(index_elements=["name"], set_=values))


def nudge(connection: Connection, receiver: str) -> None:
    """Ask the agent to try a receiver at once, within the caller's transaction."""
    nothing = {"failures": 0, "since": 0.0, "open": False, "reason": "", "resume_at": 0.0}
    statement = insert(receivers).values(name=receiver, nudges=1, **nothing)
    more = {"nudges": receivers.c.nudges + 1}
    connection.execute(statement.on_conflict_do_update(index_elements=["name"], set_=more))

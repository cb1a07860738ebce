"""What happened, and how each receiver stands to it, for people who look into the store."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select, func, select

from exporter.core.model import Event
from exporter.store.database import Database
from exporter.store.events import event_of
from exporter.store.ledger import shown_state
from exporter.store.schema import deliveries, events


@dataclass(frozen=True, slots=True)
class Happened:
    """An event, and the state of its delivery for each receiver that was to be told."""

    event: Event
    receivers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class EventFilter:
    """Which events are meant; what is None or empty fits all. ``subject`` is a fine-tune's id."""

    account: str | None = None
    subject: str | None = None
    types: frozenset[str] = frozenset()


def happened(
    database: Database, wanted: EventFilter, configured: frozenset[str], limit: int
) -> tuple[list[Happened], int]:
    """Return the newest events that fit, oldest first, and how many there are in all.

    Raises StoreError.
    """
    newest = _newest_events(wanted, limit).subquery()
    shown = shown_state(deliveries.c.receiver, deliveries.c.state, configured)
    owed = (
        select(deliveries.c.event, deliveries.c.receiver, shown)
        .where(deliveries.c.event.in_(select(newest.c.number)))
        .order_by(deliveries.c.receiver)
    )
    with database.read() as connection:
        rows = connection.execute(select(newest).order_by(newest.c.number)).all()
        receivers: dict[int, dict[str, str]] = {row.number: {} for row in rows}
        for event, receiver, state in connection.execute(owed):
            receivers[event][receiver] = state
        found = [Happened(event_of(row), receivers[row.number]) for row in rows]
        return found, rows[0].total if rows else 0


def _newest_events(wanted: EventFilter, limit: int) -> Select[Any]:
    query = select(events, func.count().over().label("total"))
    if wanted.account is not None:
        query = query.where(events.c.account == wanted.account)
    if wanted.subject is not None:
        query = query.where(events.c.subject == wanted.subject)
    if wanted.types:
        query = query.where(events.c.type.in_(sorted(wanted.types)))
    return query.order_by(events.c.number.desc()).limit(limit)

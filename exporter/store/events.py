"""Events in the store, and the deliveries queued with them."""

from typing import Any, Final

import msgspec
from msgspec.structs import astuple
from sqlalchemy import ColumnElement, Connection, Row, insert, select

from exporter.core.account import RoutedEvents
from exporter.core.events import ENDS, Event
from exporter.core.model import FineTune
from exporter.core.text import searchable
from exporter.store.awake import read_awake
from exporter.store.engines import batches, dialect_insert
from exporter.store.schema import deliveries, events

PENDING: Final = "pending"
MUTED: Final = "muted"
DELIVERED: Final = "delivered"
DEAD: Final = "dead"
DISCARDED: Final = "discarded"

UNFINISHED: Final = (PENDING, MUTED, DEAD)
"""States in which a delivery still needs the agent or a person."""


class _Content(msgspec.Struct):
    """The column ``content``, as JSON: the last fields of Event, in their order."""

    fine_tune: FineTune | None
    previous_status: str | None
    facts: dict[str, Any]


def record_events(connection: Connection, routed: RoutedEvents) -> None:
    """Store events and queue their deliveries, within the caller's transaction.

    An event whose id is stored is skipped with its deliveries: it is the same transition, found
    again after a commit whose success was not reported.
    """
    statement = (
        dialect_insert(connection, events)
        .on_conflict_do_nothing(index_elements=["id"])
        .returning(events.c.id, events.c.number)
    )
    awake = read_awake(connection) if routed else 0.0
    for batch in batches(routed):
        stored = connection.execute(statement, [_row(event, awake) for event, _ in batch])
        numbers = {row.id: row.number for row in stored}
        rows = [
            {
                "event": numbers[event.id],
                "receiver": receiver,
                "state": PENDING,
                "queued_at": event.observed_at,
                "due_awake": awake,
                "groupable": event.fine_tune is not None,
            }
            for event, receivers in batch
            if event.id in numbers
            for receiver in receivers
        ]
        if rows:
            connection.execute(insert(deliveries), rows)


def later_end() -> ColumnElement[float | None]:
    """Return when the next event ended what a row of ``events`` began, in awake seconds.

    NULL while nothing ended it.
    """
    later = events.alias("later")
    return (
        select(later.c.observed_awake)
        .where(
            later.c.account == events.c.account,
            later.c.subject == events.c.subject,
            later.c.number > events.c.number,
            later.c.type.in_(ENDS),
        )
        .order_by(later.c.number)
        .limit(1)
        .scalar_subquery()
        .correlate(events)
    )


def _row(event: Event, awake: float) -> dict[str, Any]:
    content = _Content(event.fine_tune, event.previous_status, dict(event.facts))
    return {
        "id": event.id,
        "type": event.type,
        "account": event.account,
        "subject": event.subject,
        "observed_at": event.observed_at,
        "observed_awake": awake,
        "content": msgspec.json.encode(content).decode(),
        **_searched(event.fine_tune),
    }


def _searched(fine_tune: FineTune | None) -> dict[str, str]:
    """Return the columns by which events are found; empty for an event about the agent."""
    found = fine_tune or FineTune("", model_id="", status="")
    return {
        "name": found.name,
        "model_id": found.model_id,
        "dataset": found.dataset,
        "status": found.status,
        "search": searchable(found.name, found.id),
    }


def event_of(row: Row[Any]) -> Event:
    """Return the event of a row of the table. Raises msgspec.MsgspecError if it is damaged."""
    content = msgspec.json.decode(row.content, type=_Content)
    return Event(row.id, row.type, row.account, row.observed_at, *astuple(content))

"""The events that happened, as rows, and who is owed them."""

from typing import Any, Final

import msgspec
from sqlalchemy import Connection, Row, func, select
from sqlalchemy.dialects.sqlite import insert

from exporter.core.account import RoutedEvents
from exporter.core.events import Event
from exporter.core.model import FineTune
from exporter.store.schema import deliveries, events

PENDING: Final = "pending"
DELIVERED: Final = "delivered"
DEAD: Final = "dead"
DISCARDED: Final = "discarded"

_AT_ONCE: Final = 500
"""How many events are made ready together: those of a large account would take much memory."""


class _Content(msgspec.Struct):
    fine_tune: FineTune | None
    previous_status: str | None
    facts: dict[str, Any]


def record_events(connection: Connection, routed: RoutedEvents) -> None:
    """Store events and which receivers are owed them, within the caller's transaction.

    An event that is there already is left as it is: the same transition, detected again after a
    commit whose success was not seen, owes nothing new.
    """
    for begin in range(0, len(routed), _AT_ONCE):
        _record(connection, routed[begin : begin + _AT_ONCE])


def _record(connection: Connection, routed: RoutedEvents) -> None:
    last = connection.execute(select(func.coalesce(func.max(events.c.number), 0))).scalar_one()
    unless_there = insert(events).on_conflict_do_nothing(index_elements=["id"])
    connection.execute(unless_there, [_row(event) for event, _ in routed])
    new = select(events.c.id, events.c.number).where(events.c.number > last)
    numbers = {row.id: row.number for row in connection.execute(new)}
    rows = [
        {
            "event": numbers[event.id],
            "receiver": name,
            "state": PENDING,
            "owed_since": event.observed_at,
        }
        for event, receivers in routed
        if event.id in numbers
        for name in receivers
    ]
    if rows:
        connection.execute(insert(deliveries), rows)


def _row(event: Event) -> dict[str, Any]:
    content = _Content(event.fine_tune, event.previous_status, dict(event.facts))
    return {
        "id": event.id,
        "type": event.type,
        "account": event.account,
        "subject": event.subject,
        "observed_at": event.observed_at,
        "content": msgspec.json.encode(content).decode(),
    }


def event_of(row: Row[Any]) -> Event:
    """Return the event of a row of the table; raises msgspec.MsgspecError for a damaged one."""
    content = msgspec.json.decode(row.content, type=_Content)
    return Event(
        row.id,
        row.type,
        row.account,
        row.observed_at,
        content.fine_tune,
        content.previous_status,
        content.facts,
    )

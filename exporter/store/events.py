"""Events in the store, and the deliveries queued with them."""

from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any, Final

import msgspec
from msgspec.structs import astuple
from sqlalchemy import ColumnElement, Connection, Row, select

from exporter.core.account import RoutedEvents
from exporter.core.events import ENDS, Event
from exporter.core.model import FineTune
from exporter.core.text import searchable
from exporter.store.awake import read_awake
from exporter.store.engines import batches, bulk_insert, insert_rows
from exporter.store.schema import deliveries, events, meta

PENDING: Final = "pending"
MUTED: Final = "muted"
DELIVERED: Final = "delivered"
DEAD: Final = "dead"
DISCARDED: Final = "discarded"

UNFINISHED: Final = (PENDING, MUTED, DEAD)
"""States in which a delivery still needs the agent or a person."""


_Routed = tuple[Event, Sequence[str]]

_Notified = tuple[str, str, str, str]
"""Type, account and subject of an event, and a receiver that it is delivered to."""


class _Content(msgspec.Struct):
    """The column ``content``, as JSON: the last fields of Event, in their order."""

    fine_tune: FineTune | None
    previous_status: str | None
    facts: dict[str, Any]


def record_events(connection: Connection, routed: RoutedEvents) -> None:
    """Store events and queue their deliveries, within the caller's transaction.

    An event whose id is stored is skipped with its deliveries: it is the same transition, found
    again after a commit whose success was not reported. One that follows another is stored only if
    a receiver was notified of that one.
    """
    if not routed:
        return
    # One transaction at a time, so that events are committed in the order of their numbers.
    connection.execute(select(meta.c.value).where(meta.c.name == "store_id").with_for_update())
    awake = read_awake(connection)
    for batch in batches(_notified_only(connection, routed)):
        statement, parameters = bulk_insert(
            connection, events, [_row(event, awake) for event, _ in batch]
        )
        new = statement.on_conflict_do_nothing(index_elements=["id"])
        stored = connection.execute(new.returning(events.c.id, events.c.number), parameters)
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
        insert_rows(connection, deliveries, rows)


def _notified_only(connection: Connection, routed: RoutedEvents) -> Iterator[_Routed]:
    """Yield the events without the receivers that were not notified of what they follow."""
    for batch in batches(routed):
        following = [event for event, receivers in batch if event.traits.follows and receivers]
        notified = _notified(connection, following) if following else frozenset[_Notified]()
        for event, receivers in batch:
            if not (trouble := event.traits.follows):
                yield event, receivers
            elif kept := [
                each
                for each in receivers
                if (trouble, event.account, event.subject, each) in notified
            ]:
                yield event, kept


def _notified(connection: Connection, following: Sequence[Event]) -> frozenset[_Notified]:
    """Return which receivers were, or will be, notified of the last event that each follows."""
    newer = events.alias("newer")
    superseded = (
        select(newer.c.number)
        .where(
            newer.c.account == events.c.account,
            newer.c.subject == events.c.subject,
            newer.c.type == events.c.type,
            newer.c.number > events.c.number,
        )
        .correlate(events)
    )
    query = (
        select(events.c.type, events.c.account, events.c.subject, deliveries.c.receiver)
        .join(deliveries)
        .where(
            events.c.type.in_({event.traits.follows for event in following}),
            events.c.account.in_({event.account for event in following}),
            events.c.subject.in_({event.subject for event in following}),
            deliveries.c.state.in_([PENDING, DELIVERED]),
            ~superseded.exists(),
        )
    )
    return frozenset(tuple(row) for row in connection.execute(query))


@cache
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

"""Lists of deliveries and events for people who look into the store."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from msgspec import Struct
from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    Table,
    Text,
    and_,
    case,
    cast,
    func,
    literal,
    null,
    or_,
    select,
    union_all,
)

from exporter.core.events import Event
from exporter.store.database import Database
from exporter.store.events import DELIVERED, DISCARDED, UNFINISHED, event_of
from exporter.store.schema import CARRIES, deliveries, events, messages

ORPHANED: Final = "orphaned"
"""State shown for an unfinished delivery of a receiver that is not configured any more."""

UNSETTLED: Final = (*UNFINISHED, ORPHANED)
STATES: Final = (*UNSETTLED, DELIVERED, DISCARDED)

_MAX_CANDIDATES: Final = 3
"""Number of ids that an error names when a prefix is ambiguous."""


class UnknownIdError(Exception):
    """No delivery has the given id, or the ids of several begin with it."""


class DeliveryFilter(Struct, frozen=True):
    """Criteria for deliveries; all must match.

    ``configured`` are the names of the receivers in the configuration. ``ids`` are ids of messages,
    or of events that no message carries, or unambiguous prefixes; empty matches all. ``states`` are
    those of DeliverySummary.
    """

    configured: frozenset[str]
    ids: tuple[str, ...] = ()
    receiver: str | None = None
    states: tuple[str, ...] = STATES


class DeliverySummary(Struct, frozen=True):
    """A message of one receiver, or an event queued for it that no message carries yet.

    The message of a single event has that event's id. ``state`` is one of STATES. Times are Unix
    seconds; ``queued_at`` is that of the event that was queued first.
    """

    receiver: str
    id: str
    state: str
    types: tuple[str, ...]
    events: int
    queued_at: float
    attempts: int
    last_attempt_at: float | None
    last_result: str
    minimal: bool
    in_flight: bool


class DeliveryDetails(Struct, frozen=True):
    """A delivery with its body (None before there is a message) and its events."""

    summary: DeliverySummary
    body: bytes | None
    events: tuple[Event, ...]


def list_deliveries(
    database: Database, criteria: DeliveryFilter, limit: int
) -> tuple[list[DeliverySummary], int]:
    """Return the newest deliveries, oldest first, and the number of all that match.

    Raises UnknownIdError, StoreError.
    """
    with database.read() as connection:
        return find_deliveries(connection, criteria, limit)


def load_details(database: Database, criteria: DeliveryFilter) -> list[DeliveryDetails]:
    """Return the details of all matching deliveries. Raises UnknownIdError, StoreError."""
    with database.read() as connection:
        found, _ = find_deliveries(connection, criteria)
        details = []
        for summary in found:
            body = select(messages.c.body).where(
                messages.c.receiver == summary.receiver, messages.c.id == summary.id
            )
            carried = (
                select(events)
                .join(deliveries)
                .where(belongs_to(literal(summary.receiver), literal(summary.id)))
                .order_by(events.c.number)
            )
            rows = connection.execute(carried)
            details.append(
                DeliveryDetails(summary, connection.scalar(body), tuple(map(event_of, rows)))
            )
        return details


def stored_receivers(database: Database) -> list[str]:
    """Return the names of all receivers with a stored delivery. Raises StoreError."""
    query = select(deliveries.c.receiver).distinct().order_by(deliveries.c.receiver)
    with database.read() as connection:
        return list(connection.execute(query).scalars())


def find_deliveries(
    connection: Connection, criteria: DeliveryFilter, limit: int | None = None
) -> tuple[list[DeliverySummary], int]:
    """Return the result of ``list_deliveries``, within the caller's transaction."""
    ids = [
        found
        for given in criteria.ids
        for found in _complete_ids(connection, given, criteria.receiver)
    ]
    found = union_all(_messages_query(criteria, ids), _events_query(criteria, ids)).subquery()
    query = select(found, func.count().over().label("total")).order_by(
        found.c.newest.desc(), found.c.receiver, found.c.id
    )
    if limit is not None:
        query = query.limit(limit)
    rows = connection.execute(query).all()
    types = _load_types(connection, query)
    summaries = [
        DeliverySummary(
            receiver, identifier, state, (only,) if only else types[receiver, identifier], *others
        )
        for receiver, identifier, state, only, *others, _newest, _total in reversed(rows)
    ]
    return summaries, rows[0].total if rows else 0


def belongs_to(receiver: ColumnElement[str], identifier: ColumnElement[str]) -> ColumnElement[bool]:
    """Return the condition for the rows of ``deliveries`` that a DeliverySummary stands for."""
    number = select(events.c.number).where(events.c.id == identifier).scalar_subquery()
    unsent = and_(deliveries.c.message.is_(None), deliveries.c.event == number)
    return and_(deliveries.c.receiver == receiver, or_(deliveries.c.message == identifier, unsent))


def _shown_state(table: Table, configured: frozenset[str]) -> ColumnElement[str]:
    unfinished = table.c.state.in_(UNFINISHED)
    orphaned = and_(unfinished, table.c.receiver.not_in(sorted(configured)))
    return case((orphaned, literal(ORPHANED)), else_=table.c.state)


def _messages_query(criteria: DeliveryFilter, ids: Sequence[str]) -> Select[Any]:
    """Select the fields of DeliverySummary in their order, and the newest event."""
    query = (
        select(
            messages.c.receiver,
            messages.c.id,
            _shown_state(messages, criteria.configured).label("state"),
            cast(null(), Text).label("type"),
            func.count().label("events"),
            func.min(deliveries.c.queued_at).label("queued_at"),
            messages.c.attempts,
            messages.c.last_attempt_at,
            messages.c.last_result,
            messages.c.minimal,
            messages.c.in_flight,
            func.max(deliveries.c.event).label("newest"),
        )
        .join(deliveries, CARRIES)
        .group_by(messages.c.receiver, messages.c.id)
    )
    return _matching(query, criteria, ids)


def _events_query(criteria: DeliveryFilter, ids: Sequence[str]) -> Select[Any]:
    query = (
        select(
            deliveries.c.receiver,
            events.c.id,
            _shown_state(deliveries, criteria.configured).label("state"),
            events.c.type,
            literal(1),
            deliveries.c.queued_at,
            literal(0),
            null(),
            literal(""),
            literal(value=False),
            literal(value=False),
            events.c.number,
        )
        .join(events)
        .where(deliveries.c.message.is_(None))
    )
    return _matching(query, criteria, ids)


def _matching(query: Select[Any], criteria: DeliveryFilter, ids: Sequence[str]) -> Select[Any]:
    receiver, identifier, state, *_ = query.selected_columns
    if criteria.receiver is not None:
        query = query.where(receiver == criteria.receiver)
    if ids:
        query = query.where(identifier.in_(ids))
    return query.where(state.in_(criteria.states))


def _load_types(
    connection: Connection, found: Select[Any]
) -> Mapping[tuple[str, str], tuple[str, ...]]:
    """Return the sorted event types of the messages among ``found``, by receiver and id."""
    chosen = found.subquery()
    carried = and_(deliveries.c.receiver == chosen.c.receiver, deliveries.c.message == chosen.c.id)
    query = (
        select(chosen.c.receiver, chosen.c.id, events.c.type)
        .distinct()
        .join(deliveries, carried)
        .join(events)
    )
    types: dict[tuple[str, str], list[str]] = {}
    for receiver, identifier, event_type in connection.execute(query):
        types.setdefault((receiver, identifier), []).append(event_type)
    return {key: tuple(sorted(names)) for key, names in types.items()}


def _complete_ids(connection: Connection, given: str, receiver: str | None) -> list[str]:
    """Return the ids of the deliveries for the only id that is ``given`` or begins with it.

    It is the id of a message, or of an event: then the deliveries are the messages that carry it,
    or the event itself. Raises UnknownIdError.
    """
    own = events.c.id.label("id"), func.coalesce(deliveries.c.message, events.c.id).label("found")
    stored = union_all(
        select(messages.c.receiver, messages.c.id, messages.c.id.label("found")),
        select(deliveries.c.receiver, *own).join(events),
    ).subquery()
    prefix = func.substr(stored.c.id, 1, len(given), type_=Text)
    matching = select(stored).where(prefix == given)
    if receiver is not None:
        matching = matching.where(stored.c.receiver == receiver)
    ids = matching.with_only_columns(stored.c.id).distinct().order_by(stored.c.id)
    candidates: list[str] = [*connection.scalars(ids.limit(_MAX_CANDIDATES))] if given else []
    # Sorted: a complete id comes before those that it is a prefix of.
    if len(candidates) == 1 or given in candidates:
        chosen = matching.with_only_columns(stored.c.found).where(stored.c.id == candidates[0])
        return list(connection.scalars(chosen.distinct()))
    if candidates:
        raise UnknownIdError(f"{given} is the beginning of {', '.join(candidates)} …: give more")
    raise UnknownIdError(f"no delivery{f' of {receiver}' if receiver else ''} has the id {given}")

"""Lists of deliveries and events for people who look into the store."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    Text,
    and_,
    case,
    cast,
    func,
    literal,
    null,
    or_,
    select,
    union,
    union_all,
)

from exporter.core.events import Event
from exporter.store.database import Database
from exporter.store.events import DEAD, DELIVERED, DISCARDED, PENDING, event_of
from exporter.store.schema import deliveries, events, messages

ORPHANED: Final = "orphaned"
"""State shown for a pending or dead delivery of a receiver that is not configured any more."""

UNSETTLED: Final = (PENDING, DEAD, ORPHANED)
STATES: Final = (*UNSETTLED, DELIVERED, DISCARDED)

_MAX_CANDIDATES: Final = 3
"""Number of ids that an error names when a prefix is ambiguous."""


class UnknownIdError(Exception):
    """No delivery has the given id, or the ids of several begin with it."""


@dataclass(frozen=True, slots=True)
class DeliveryFilter:
    """Criteria for deliveries; all must match.

    ``configured`` are the names of the receivers in the configuration. ``ids`` are ids of messages,
    or of events that no message carries, or unambiguous prefixes; empty matches all. ``states`` are
    those of DeliverySummary.
    """

    configured: frozenset[str]
    ids: tuple[str, ...] = ()
    receiver: str | None = None
    states: tuple[str, ...] = STATES


@dataclass(frozen=True, slots=True)
class DeliverySummary:
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


@dataclass(frozen=True, slots=True)
class DeliveryDetails:
    """A delivery with its body (None before there is a message) and its events."""

    summary: DeliverySummary
    body: bytes | None
    events: tuple[Event, ...]


@dataclass(frozen=True, slots=True)
class EventFilter:
    """Criteria for events; all must match, None or empty matches all.

    ``subject`` is a fine-tune's id.
    """

    account: str | None = None
    subject: str | None = None
    types: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class RecordedEvent:
    """An event, and the state of its delivery by receiver."""

    event: Event
    states: Mapping[str, str]


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
        return [_load_details(connection, summary) for summary in found]


def list_events(
    database: Database, criteria: EventFilter, configured: frozenset[str], limit: int
) -> tuple[list[RecordedEvent], int]:
    """Return the newest events, oldest first, and the number of all that match.

    Raises StoreError.
    """
    newest = _newest_events(criteria, limit).subquery()
    state = _shown_state(deliveries.c.receiver, deliveries.c.state, configured)
    queued = (
        select(deliveries.c.event, deliveries.c.receiver, state)
        .where(deliveries.c.event.in_(select(newest.c.number)))
        .order_by(deliveries.c.receiver)
    )
    with database.read() as connection:
        rows = connection.execute(select(newest).order_by(newest.c.number)).all()
        states: dict[int, dict[str, str]] = {row.number: {} for row in rows}
        for event, receiver, shown in connection.execute(queued):
            states[event][receiver] = shown
        found = [RecordedEvent(event_of(row), states[row.number]) for row in rows]
        return found, rows[0].total if rows else 0


def stored_receivers(database: Database) -> list[str]:
    """Return the names of all receivers with a stored delivery. Raises StoreError."""
    query = select(deliveries.c.receiver).distinct().order_by(deliveries.c.receiver)
    with database.read() as connection:
        return list(connection.execute(query).scalars())


def find_deliveries(
    connection: Connection, criteria: DeliveryFilter, limit: int | None = None
) -> tuple[list[DeliverySummary], int]:
    """Return the result of ``list_deliveries``, within the caller's transaction."""
    ids = [_complete_id(connection, given, criteria.receiver) for given in criteria.ids]
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
            row.receiver,
            row.id,
            row.state,
            (row.type,) if row.type else types[row.receiver, row.id],
            row.events,
            row.queued_at,
            row.attempts,
            row.last_attempt_at,
            row.last_result,
            row.minimal,
            row.in_flight,
        )
        for row in reversed(rows)
    ]
    return summaries, rows[0].total if rows else 0


def belongs_to(receiver: ColumnElement[str], identifier: ColumnElement[str]) -> ColumnElement[bool]:
    """Return the condition for the rows of ``deliveries`` that a DeliverySummary stands for."""
    number = select(events.c.number).where(events.c.id == identifier).scalar_subquery()
    unsent = and_(deliveries.c.message.is_(None), deliveries.c.event == number)
    return and_(deliveries.c.receiver == receiver, or_(deliveries.c.message == identifier, unsent))


def _shown_state(
    receiver: ColumnElement[str], state: ColumnElement[str], configured: frozenset[str]
) -> ColumnElement[str]:
    orphaned = and_(state.in_((PENDING, DEAD)), receiver.not_in(sorted(configured)))
    return case((orphaned, literal(ORPHANED)), else_=state)


def _messages_query(criteria: DeliveryFilter, ids: Sequence[str]) -> Select[Any]:
    carried = and_(
        deliveries.c.receiver == messages.c.receiver, deliveries.c.message == messages.c.id
    )
    state = _shown_state(messages.c.receiver, messages.c.state, criteria.configured)
    query = (
        select(
            messages.c.receiver,
            messages.c.id,
            state.label("state"),
            cast(null(), Text).label("type"),
            func.count().label("events"),
            func.min(deliveries.c.queued_at).label("queued_at"),
            func.max(deliveries.c.event).label("newest"),
            messages.c.attempts,
            messages.c.last_attempt_at,
            messages.c.last_result,
            messages.c.minimal,
            messages.c.in_flight,
        )
        .join(deliveries, carried)
        .group_by(messages.c.receiver, messages.c.id)
    )
    return _matching(query, criteria, ids, (messages.c.receiver, messages.c.id, state))


def _events_query(criteria: DeliveryFilter, ids: Sequence[str]) -> Select[Any]:
    state = _shown_state(deliveries.c.receiver, deliveries.c.state, criteria.configured)
    query = (
        select(
            deliveries.c.receiver,
            events.c.id,
            state.label("state"),
            events.c.type,
            literal(1),
            deliveries.c.queued_at,
            events.c.number,
            literal(0),
            null(),
            literal(""),
            literal(value=False),
            literal(value=False),
        )
        .join(events, events.c.number == deliveries.c.event)
        .where(deliveries.c.message.is_(None))
    )
    return _matching(query, criteria, ids, (deliveries.c.receiver, events.c.id, state))


def _matching(
    query: Select[Any],
    criteria: DeliveryFilter,
    ids: Sequence[str],
    columns: tuple[ColumnElement[str], ColumnElement[str], ColumnElement[str]],
) -> Select[Any]:
    receiver, identifier, state = columns
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
        .join(events, events.c.number == deliveries.c.event)
    )
    types: dict[tuple[str, str], list[str]] = {}
    for receiver, identifier, event_type in connection.execute(query):
        types.setdefault((receiver, identifier), []).append(event_type)
    return {key: tuple(sorted(names)) for key, names in types.items()}


def _complete_id(connection: Connection, given: str, receiver: str | None) -> str:
    """Return the only id that is ``given`` or begins with it. Raises UnknownIdError."""

    def matches(
        identifier: ColumnElement[str], receivers: ColumnElement[str]
    ) -> ColumnElement[bool]:
        prefix = func.substr(identifier, 1, len(given), type_=Text) == given
        return prefix if receiver is None else and_(prefix, receivers == receiver)

    of_messages = select(messages.c.id).where(matches(messages.c.id, messages.c.receiver))
    of_events = (
        select(events.c.id)
        .join(deliveries, deliveries.c.event == events.c.number)
        .where(deliveries.c.message.is_(None), matches(events.c.id, deliveries.c.receiver))
    )
    query = union(of_messages, of_events).order_by("id").limit(_MAX_CANDIDATES)
    found = [str(each) for each in connection.execute(query).scalars()] if given else []
    if given in found or len(found) == 1:
        return found[0]  # sorted: a complete id comes before those that it is a prefix of
    if found:
        raise UnknownIdError(f"{given} is the beginning of {', '.join(found)} …: give more of it")
    raise UnknownIdError(f"no delivery{f' of {receiver}' if receiver else ''} has the id {given}")


def _load_details(connection: Connection, summary: DeliverySummary) -> DeliveryDetails:
    body = select(messages.c.body).where(
        messages.c.receiver == summary.receiver, messages.c.id == summary.id
    )
    carried = (
        select(events)
        .join(deliveries, deliveries.c.event == events.c.number)
        .where(belongs_to(literal(summary.receiver), literal(summary.id)))
        .order_by(events.c.number)
    )
    return DeliveryDetails(
        summary,
        connection.execute(body).scalar(),
        tuple(event_of(row) for row in connection.execute(carried)),
    )


def _newest_events(criteria: EventFilter, limit: int) -> Select[Any]:
    query = select(events, func.count().over().label("total"))
    if criteria.account is not None:
        query = query.where(events.c.account == criteria.account)
    if criteria.subject is not None:
        query = query.where(events.c.subject == criteria.subject)
    if criteria.types:
        query = query.where(events.c.type.in_(sorted(criteria.types)))
    return query.order_by(events.c.number.desc()).limit(limit)

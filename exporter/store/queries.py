"""What is owed to whom and what became of it, for people who look into the store."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    Select,
    Text,
    and_,
    case,
    func,
    literal,
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
"""How a delivery is shown that is pending or dead for a receiver that left the configuration."""

UNSETTLED: Final = (PENDING, DEAD, ORPHANED)
STATES: Final = (*UNSETTLED, DELIVERED, DISCARDED)

_AMBIGUOUS: Final = 3
"""How many of the ids are named that begin with what was given."""


class UnknownIdError(Exception):
    """No delivery has the id that was asked for, or several begin with it."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Which deliveries are meant: those that all of it fits.

    ``configured`` are the names of the receivers in the configuration. ``ids`` are of messages, or
    of events that no message carries; the beginning of one is enough if it is the only one, and
    none stand for all. ``states`` are as shown.
    """

    configured: frozenset[str]
    ids: tuple[str, ...] = ()
    receiver: str | None = None
    states: tuple[str, ...] = STATES


@dataclass(frozen=True, slots=True)
class Entry:
    """A message of one receiver, or an event that it is owed and that no message carries.

    The message of a single event has that event's id. ``state`` is one of STATES, times are Unix
    seconds; ``owed_since`` is of the event that is owed the longest.
    """

    receiver: str
    id: str
    state: str
    types: tuple[str, ...]
    events: int
    owed_since: float
    attempts: int
    last_attempt_at: float | None
    last_result: str
    minimal: bool
    in_flight: bool


@dataclass(frozen=True, slots=True)
class Detail:
    """An entry, the bytes that are sent (None before there is a message) and what is in them."""

    entry: Entry
    body: bytes | None
    events: tuple[Event, ...]


def entries(database: Database, selection: Selection, limit: int) -> tuple[list[Entry], int]:
    """Return the newest entries of a selection, oldest first, and how many there are in all.

    Raises UnknownIdError, StoreError.
    """
    with database.read() as connection:
        return newest_entries(connection, selection, limit)


def details(database: Database, selection: Selection) -> list[Detail]:
    """Return everything about the entries of a selection; raises UnknownIdError, StoreError."""
    with database.read() as connection:
        found, _ = newest_entries(connection, selection, -1)
        return [_detail(connection, entry) for entry in found]


def receivers_known(database: Database) -> list[str]:
    """Return the names of all receivers that were ever to be told; raises StoreError."""
    query = select(deliveries.c.receiver).distinct().order_by(deliveries.c.receiver)
    with database.read() as connection:
        return list(connection.execute(query).scalars())


def newest_entries(
    connection: Connection, selection: Selection, limit: int
) -> tuple[list[Entry], int]:
    """Return what ``entries`` does, within the caller's transaction; a negative limit is none."""
    ids = [_whole_id(connection, given, selection.receiver) for given in selection.ids]
    found = union_all(_of_messages(selection, ids), _of_events(selection, ids)).subquery()
    query = select(found, func.count().over().label("total")).order_by(
        found.c.newest.desc(), found.c.receiver, found.c.id
    )
    rows = connection.execute(query.limit(limit)).all()
    return [_entry(row) for row in reversed(rows)], rows[0].total if rows else 0


def carried(receiver: ColumnElement[str], entry: ColumnElement[str]) -> ColumnElement[bool]:
    """Return the condition of the deliveries that belong to an entry of a receiver."""
    number = select(events.c.number).where(events.c.id == entry).scalar_subquery()
    unsent = and_(deliveries.c.message.is_(None), deliveries.c.event == number)
    return and_(deliveries.c.receiver == receiver, or_(deliveries.c.message == entry, unsent))


def shown_state(
    receiver: ColumnElement[str], state: ColumnElement[str], configured: frozenset[str]
) -> ColumnElement[str]:
    """Return the state as it is shown: ORPHANED where nobody is left to be told."""
    left = and_(state.in_((PENDING, DEAD)), receiver.not_in(sorted(configured)))
    return case((left, literal(ORPHANED)), else_=state)


def _of_messages(selection: Selection, ids: Sequence[str]) -> Select[Any]:
    of = and_(deliveries.c.receiver == messages.c.receiver, deliveries.c.message == messages.c.id)
    state = shown_state(messages.c.receiver, messages.c.state, selection.configured)
    query = (
        select(
            messages.c.receiver,
            messages.c.id,
            state.label("state"),
            func.group_concat(events.c.type.distinct()).label("types"),
            func.count().label("events"),
            func.min(deliveries.c.owed_since).label("owed_since"),
            func.max(events.c.number).label("newest"),
            messages.c.attempts,
            messages.c.last_attempt_at,
            messages.c.last_result,
            messages.c.minimal,
            messages.c.in_flight,
        )
        .join(deliveries, of)
        .join(events, events.c.number == deliveries.c.event)
        .group_by(messages.c.receiver, messages.c.id)
    )
    return _selected(query, selection, ids, (messages.c.receiver, messages.c.id, state))


def _of_events(selection: Selection, ids: Sequence[str]) -> Select[Any]:
    state = shown_state(deliveries.c.receiver, deliveries.c.state, selection.configured)
    query = (
        select(
            deliveries.c.receiver,
            events.c.id,
            state.label("state"),
            events.c.type,
            literal(1),
            deliveries.c.owed_since,
            events.c.number,
            literal(0),
            literal(None),
            literal(""),
            literal(value=False),
            literal(value=False),
        )
        .join(events, events.c.number == deliveries.c.event)
        .where(deliveries.c.message.is_(None))
    )
    return _selected(query, selection, ids, (deliveries.c.receiver, events.c.id, state))


def _selected(
    query: Select[Any],
    selection: Selection,
    ids: Sequence[str],
    columns: tuple[ColumnElement[str], ColumnElement[str], ColumnElement[str]],
) -> Select[Any]:
    receiver, identifier, state = columns
    if selection.receiver is not None:
        query = query.where(receiver == selection.receiver)
    if ids:
        query = query.where(identifier.in_(ids))
    return query.where(state.in_(selection.states))


def _whole_id(connection: Connection, given: str, receiver: str | None) -> str:
    """Return the one id that is ``given`` or begins with it."""

    def beginning(identifier: ColumnElement[str]) -> ColumnElement[bool]:
        return func.substr(identifier, 1, len(given), type_=Text) == given

    everybody = literal(receiver).is_(None)
    of_messages = select(messages.c.id).where(
        beginning(messages.c.id), or_(everybody, messages.c.receiver == receiver)
    )
    of_events = (
        select(events.c.id)
        .join(deliveries, deliveries.c.event == events.c.number)
        .where(
            deliveries.c.message.is_(None),
            beginning(events.c.id),
            or_(everybody, deliveries.c.receiver == receiver),
        )
    )
    query = union(of_messages, of_events).order_by("id").limit(_AMBIGUOUS)
    found = [str(each) for each in connection.execute(query).scalars()] if given else []
    if given in found or len(found) == 1:
        return found[0]  # an id that others begin with comes before them
    if found:
        raise UnknownIdError(f"{given} is the beginning of {', '.join(found)} …: give more of it")
    raise UnknownIdError(f"no delivery{f' of {receiver}' if receiver else ''} has the id {given}")


def _entry(row: Row[Any]) -> Entry:
    return Entry(
        row.receiver,
        row.id,
        row.state,
        tuple(sorted(row.types.split(","))),
        row.events,
        row.owed_since,
        row.attempts,
        row.last_attempt_at,
        row.last_result,
        bool(row.minimal),
        bool(row.in_flight),
    )


def _detail(connection: Connection, entry: Entry) -> Detail:
    body = select(messages.c.body).where(
        messages.c.receiver == entry.receiver, messages.c.id == entry.id
    )
    inside = (
        select(events)
        .join(deliveries, deliveries.c.event == events.c.number)
        .where(carried(literal(entry.receiver), literal(entry.id)))
        .order_by(events.c.number)
    )
    return Detail(
        entry,
        connection.execute(body).scalar(),
        tuple(event_of(row) for row in connection.execute(inside)),
    )


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

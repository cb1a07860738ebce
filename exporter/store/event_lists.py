"""Lists of events and of their deliveries, newest first."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from msgspec import Struct
from sqlalchemy import ColumnElement, Connection, Row, Select, Text, and_, func, or_, select

from exporter.core.events import Event
from exporter.core.message import title_of
from exporter.core.records import AttemptRecord, DeliveryRecord, EventRecord, at, at_or_none
from exporter.core.text import searchable
from exporter.store.events import DISCARDED, MUTED, PENDING, UNFINISHED, event_of
from exporter.store.pages import Page, PageRequest, UnknownCursorError, after, page_of
from exporter.store.queries import ORPHANED
from exporter.store.schema import attempts, deliveries, events, messages, mutes, receivers

_Row = Row[Any]


class EventFilter(Struct, frozen=True):
    """Criteria for events and their deliveries; all must match, None and empty match all.

    ``fine_tune`` is an id, or the beginning of ids if there is no such id. ``statuses`` are those
    that a fine-tune entered. ``text`` is part of the name or of the id of a fine-tune, whatever its
    case. ``since`` is Unix seconds. An event matches ``receiver`` and ``states`` if one of its
    deliveries matches both.
    """

    account: str | None = None
    fine_tune: str | None = None
    types: tuple[str, ...] = ()
    statuses: tuple[str, ...] = ()
    text: str = ""
    since: float | None = None
    receiver: str | None = None
    states: tuple[str, ...] = ()


class Events:
    """Queries of events at ``now`` (Unix seconds).

    ``group_intervals`` has the ``group_interval`` in seconds of each receiver in the configuration.
    """

    def __init__(
        self, connection: Connection, group_intervals: Mapping[str, float], now: float
    ) -> None:
        self._connection = connection
        self._group_intervals = group_intervals
        self._configured = frozenset(group_intervals)
        self._now = now

    def page(self, criteria: EventFilter, request: PageRequest) -> Page[EventRecord]:
        """Return one page of events with all their deliveries. Raises UnknownCursorError."""
        query = _event_conditions(select(events), criteria)
        delivered = _delivery_conditions(
            select(deliveries.c.event).where(deliveries.c.event == events.c.number),
            criteria,
            self._configured,
        )
        if criteria.receiver is not None or criteria.states:
            query = query.where(delivered.exists())
        if request.starting_after is not None:
            number = self._event_number(request.starting_after)
            query = query.where(events.c.number < number)
        ordered = query.order_by(events.c.number.desc()).limit(request.limit + 1)
        page = page_of(self._connection.execute(ordered).all(), request.limit)
        return Page(self.records(page.elements), page.has_more)

    def of_fine_tune(self, account: str, fine_tune_id: str, most: int) -> list[EventRecord]:
        """Return the last events of a fine-tune, oldest first, at most ``most``."""
        query = (
            select(events)
            .where(events.c.account == account, events.c.subject == fine_tune_id)
            .order_by(events.c.number.desc())
            .limit(most)
        )
        return self.records(self._connection.execute(query).all()[::-1])

    def records(self, rows: Sequence[_Row]) -> list[EventRecord]:
        """Return the records of rows of ``events``."""
        numbers = [row.number for row in rows]
        queued: dict[int, list[DeliveryRecord]] = {number: [] for number in numbers}
        query = _delivery_query().where(deliveries.c.event.in_(numbers))
        for row in self._connection.execute(query.order_by(deliveries.c.receiver)):
            queued[row.number].append(self._delivery(row))
        return [_event_record(event_of(row), queued[row.number]) for row in rows]

    def numbered(self, numbers: Sequence[int]) -> list[EventRecord]:
        """Return the events with these numbers, in this order; deleted ones are left out."""
        rows = self._connection.execute(select(events).where(events.c.number.in_(numbers))).all()
        return self.records(sorted(rows, key=lambda row: numbers.index(row.number)))

    def deliveries(self, criteria: EventFilter, request: PageRequest) -> Page[DeliveryRecord]:
        """Return one page of deliveries. Raises UnknownCursorError."""
        query = _event_conditions(_delivery_query(), criteria)
        query = _delivery_conditions(query, criteria, self._configured)
        keys = [(deliveries.c.event, True), (deliveries.c.receiver, False)]
        if request.starting_after is not None:
            event_id, _, receiver = request.starting_after.partition(":")
            query = after(query, keys, (self._event_number(event_id), receiver))
        ordered = query.order_by(*(c.desc() if down else c.asc() for c, down in keys))
        rows = self._connection.execute(ordered.limit(request.limit + 1)).all()
        page = page_of(rows, request.limit)
        return Page([self._delivery(row) for row in page.elements], page.has_more)

    def attempts(self, receiver: str, message: str, most: int) -> list[AttemptRecord]:
        """Return the last attempts of a message, oldest first, at most ``most``."""
        query = (
            select(attempts)
            .where(attempts.c.receiver == receiver, attempts.c.message == message)
            .order_by(attempts.c.number.desc())
            .limit(most)
        )
        return [
            AttemptRecord(
                at=at(row.at), seconds=row.seconds, outcome=row.outcome, answer=row.answer
            )
            for row in self._connection.execute(query).all()[::-1]
        ]

    def _event_number(self, event_id: str) -> int:
        number = self._connection.scalar(select(events.c.number).where(events.c.id == event_id))
        if number is None:
            raise UnknownCursorError(f"there is no event {event_id}")
        return int(number)

    def _delivery(self, row: _Row) -> DeliveryRecord:
        orphaned = row.state in UNFINISHED and row.receiver not in self._configured
        event = event_of(row)
        return DeliveryRecord(
            id=f"{row.id}:{row.receiver}",
            event=row.id,
            type=row.type,
            account=row.account,
            fine_tune=None if event.fine_tune is None else event.fine_tune.id,
            name=title_of(event) if event.fine_tune is None else event.fine_tune.name,
            status=None if event.fine_tune is None else event.fine_tune.status,
            observed_at=at(row.observed_at),
            receiver=row.receiver,
            state=ORPHANED if orphaned else row.state,
            queued_at=at(row.queued_at),
            settled_at=at_or_none(row.settled_at),
            attempts=row.attempts or 0,
            last_attempt_at=at_or_none(row.last_attempt_at),
            next_attempt_at=_next_attempt(row, orphaned=orphaned),
            held_until=self._held_until(row),
            mute=row.mute_id,
            muted_until=at(row.muted_until) if row.state == MUTED else None,
            muted_until_recovered=bool(row.state == MUTED and row.until_recovered),
            muted_by=row.muted_by if row.state == MUTED else "",
            discarded_by=row.settled_by if row.state == DISCARDED else "",
            answer=row.answer or row.last_result or "",
            message=row.message,
            message_events=row.message_events or 1,
        )

    def _held_until(self, row: _Row) -> datetime | None:
        unsent = row.state == PENDING and row.groupable and row.message is None
        if not unsent or row.grouped_at is None:
            return None
        until = row.grouped_at + self._group_intervals.get(row.receiver, 0.0)
        return at(until) if until > self._now else None


def _next_attempt(row: _Row, *, orphaned: bool) -> Any:
    if row.state != PENDING or orphaned or not row.failures:
        return None
    return at_or_none(row.resume_at)


def _event_record(event: Event, queued: list[DeliveryRecord]) -> EventRecord:
    fine_tune = event.fine_tune
    return EventRecord(
        id=event.id,
        type=event.type,
        title=title_of(event),
        account=event.account,
        observed_at=at(event.observed_at),
        fine_tune=None if fine_tune is None else fine_tune.id,
        name="" if fine_tune is None else fine_tune.name,
        model_id="" if fine_tune is None else fine_tune.model_id,
        dataset="" if fine_tune is None else fine_tune.dataset,
        status=None if fine_tune is None else fine_tune.status,
        previous_status=event.previous_status,
        facts=dict(event.facts),
        deliveries=queued,
    )


def _delivery_query() -> Select[Any]:
    carried = and_(
        messages.c.receiver == deliveries.c.receiver, messages.c.id == deliveries.c.message
    )
    return select(
        events,
        deliveries.c.receiver,
        deliveries.c.state,
        deliveries.c.queued_at,
        deliveries.c.settled_at,
        deliveries.c.answer,
        deliveries.c.message,
        deliveries.c.groupable,
        deliveries.c.settled_by,
        mutes.c.id.label("mute_id"),
        mutes.c.until_at.label("muted_until"),
        mutes.c.until_recovered,
        mutes.c.author.label("muted_by"),
        messages.c.attempts,
        messages.c.last_attempt_at,
        messages.c.last_result,
        messages.c.events.label("message_events"),
        receivers.c.resume_at,
        receivers.c.failures,
        receivers.c.grouped_at,
    ).select_from(
        events.join(deliveries)
        .outerjoin(messages, carried)
        .outerjoin(mutes, mutes.c.number == deliveries.c.mute)
        .outerjoin(receivers, receivers.c.name == deliveries.c.receiver)
    )


def _event_conditions(query: Select[Any], criteria: EventFilter) -> Select[Any]:
    if criteria.account is not None:
        query = query.where(events.c.account == criteria.account)
    if criteria.fine_tune is not None:
        query = query.where(_has_subject(criteria.fine_tune))
    if criteria.types:
        query = query.where(events.c.type.in_(criteria.types))
    if criteria.statuses:
        query = query.where(events.c.status.in_(criteria.statuses))
    if criteria.text:
        query = query.where(events.c.search.contains(searchable(criteria.text), autoescape=True))
    if criteria.since is not None:
        query = query.where(events.c.observed_at >= criteria.since)
    return query


def _has_subject(given: str) -> ColumnElement[bool]:
    """Return the condition for events of the id ``given``, else of those that begin with it."""
    complete = events.alias()
    is_known = select(complete.c.number).where(complete.c.subject == given).exists()
    # Not LIKE, which ignores the case in one engine.
    begins = func.substr(events.c.subject, 1, len(given), type_=Text) == given
    return or_(events.c.subject == given, and_(~is_known, begins))


def _delivery_conditions(
    query: Select[Any], criteria: EventFilter, configured: Iterable[str]
) -> Select[Any]:
    if criteria.receiver is not None:
        query = query.where(deliveries.c.receiver == criteria.receiver)
    if not criteria.states:
        return query
    orphaned = deliveries.c.receiver.not_in(sorted(configured))
    conditions: list[ColumnElement[bool]] = []
    for state in criteria.states:
        if state == ORPHANED:
            conditions.append(and_(deliveries.c.state.in_(UNFINISHED), orphaned))
        elif state in UNFINISHED:
            conditions.append(and_(deliveries.c.state == state, ~orphaned))
        else:
            conditions.append(deliveries.c.state == state)
    return query.where(or_(*conditions))


def failures_since(
    connection: Connection, accounts: Sequence[str], since: float, most: int
) -> Sequence[Any]:
    """Return rows with number, observed_at, account, subject and name of failures, newest first.

    They were observed from ``since`` (Unix seconds) on.
    """
    query = (
        select(
            events.c.number, events.c.observed_at, events.c.account, events.c.subject, events.c.name
        )
        .where(events.c.type == "fine_tune.failed", events.c.observed_at >= since)
        .where(events.c.account.in_(accounts))
        # As the index has them: sorting those of a mass failure takes long.
        .order_by(events.c.observed_at.desc(), events.c.account.desc())
        .limit(most)
    )
    rows = connection.execute(query).all()
    return sorted(rows, key=lambda row: (row.observed_at, row.number), reverse=True)


def count_failures(connection: Connection, accounts: Sequence[str], since: float) -> int:
    """Return the number of failures observed from ``since`` (Unix seconds) on."""
    query = select(func.count()).where(
        events.c.type == "fine_tune.failed",
        events.c.account.in_(accounts),
        events.c.observed_at >= since,
    )
    return connection.scalars(query).one()

"""The deliveries not yet taken, and the messages that carry them."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    and_,
    bindparam,
    case,
    func,
    insert,
    select,
    update,
)

from exporter.core.account import RoutedEvents
from exporter.core.events import Event
from exporter.core.model import OutboxMessage
from exporter.core.retry import CIRCUIT_CLOSED, CircuitState
from exporter.store.database import Database, in_store_thread
from exporter.store.engines import dialect_insert, upsert
from exporter.store.events import DEAD, DELIVERED, DISCARDED, PENDING, event_of, record_events
from exporter.store.schema import deliveries, events, messages, receivers


@dataclass(frozen=True, slots=True)
class ReceiverState:
    """A receiver's health and when it is to be tried again (Unix seconds, 0 for at once).

    ``retry_requests`` counts how often somebody asked to try at once.
    """

    health: CircuitState = CIRCUIT_CLOSED
    resume_at: float = 0.0
    retry_requests: int = 0


def load_standing(database: Database, receiver: str) -> ReceiverState:
    """Return what was stored of a receiver; that of a well one when nothing was."""
    table = receivers.c
    query = select(
        table.failures, table.since, table.open, table.reason, table.resume_at, table.retry_requests
    ).where(table.name == receiver)
    with database.read() as connection:
        row = connection.execute(query).first()
    if row is None:
        return ReceiverState()
    return ReceiverState(
        CircuitState(row[0], row[1], row[2], row[3]), row.resume_at, row.retry_requests
    )


def store_health(
    connection: Connection, receiver: str, health: CircuitState, resume_at: float
) -> None:
    """Store how a receiver is doing, within the caller's transaction."""
    values = {
        "failures": health.failures,
        "since": health.since,
        "open": health.open,
        "reason": health.reason,
        "resume_at": resume_at,
    }
    row = {"name": receiver, "retry_requests": 0, **values}
    upsert(connection, receivers, [row], update=values)


def request_retry(connection: Connection, receiver: str) -> None:
    """Ask the agent to try a receiver at once, within the caller's transaction."""
    nothing = {"failures": 0, "since": 0.0, "open": False, "reason": "", "resume_at": 0.0}
    statement = dialect_insert(connection, receivers)
    statement = statement.values(name=receiver, retry_requests=1, **nothing)
    more = {"retry_requests": receivers.c.retry_requests + 1}
    connection.execute(statement.on_conflict_do_update(index_elements=["name"], set_=more))


@dataclass(frozen=True, slots=True)
class Backlog:
    """What one receiver has not taken, in events: still owed, and given up.

    ``oldest`` is since when the oldest one is owed, in Unix seconds; None when none is.
    """

    pending: int = 0
    dead: int = 0
    oldest: float | None = None


@dataclass(frozen=True, slots=True)
class PendingEvent:
    """An event that no message carries yet, owed to a receiver ``since`` (Unix seconds)."""

    number: int
    event: Event
    since: float


@dataclass(frozen=True, slots=True)
class NewMessage:
    """A message about to be tried for the first time: its bytes and which events it carries."""

    id: str
    body: bytes
    events: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Result:
    """What an attempt led to: the state of the message, when (Unix seconds), why, in words.

    ``health`` is the receiver's after it, ``resume_at`` when that is to be tried again, and
    ``told`` are the events that follow, with the receivers to be told.
    """

    state: str
    at: float
    reason: str
    ambiguous: bool = False
    health: CircuitState = CIRCUIT_CLOSED
    resume_at: float = 0.0
    told: RoutedEvents = ()


class Outbox:
    """One receiver's part of the outbox."""

    def __init__(self, database: Database, receiver: str) -> None:
        self._database = database
        self._receiver = receiver

    async def receiver_state(self) -> ReceiverState:
        """Return what is stored of the receiver; that of a well one when nothing is."""
        return await self._database.run(load_standing, self._database, self._receiver)

    @in_store_thread
    def unsent(self) -> list[PendingEvent]:
        """Return the events that no message carries yet, oldest first."""
        query = (
            select(events, deliveries.c.queued_at)
            .join(deliveries, deliveries.c.event == events.c.number)
            .where(self._mine(PENDING), deliveries.c.message.is_(None))
            .order_by(events.c.number)
        )
        with self._database.read() as connection:
            return [
                PendingEvent(row.number, event_of(row), row.queued_at)
                for row in connection.execute(query)
            ]

    @in_store_thread
    def frozen(self) -> int:
        """Return how many messages are still to be taken."""
        query = select(func.count()).where(self._messages(), messages.c.state == PENDING)
        with self._database.read() as connection:
            return connection.execute(query).scalar_one()

    @in_store_thread
    def freeze(self, new: Sequence[NewMessage], now: float) -> None:
        """Fix the membership and the bytes of messages before their first attempt."""
        with self._database.write() as connection:
            turn = connection.execute(self._next_turn()).scalar_one()
            for number, message in enumerate(new):
                # None where somebody discarded or reassigned all of it since it was read.
                if carried := self._carry(connection, message):
                    row = _new_row(message, carried, now)
                    connection.execute(
                        insert(messages).values(receiver=self._receiver, turn=turn + number, **row)
                    )

    @in_store_thread
    def next(self, *, skipping: Collection[str] = ()) -> OutboxMessage | None:
        """Return the message tried least recently, one never tried first; None if none is owed."""
        query = (
            select(messages)
            .where(self._messages(), messages.c.state == PENDING, messages.c.id.not_in(skipping))
            .order_by(messages.c.attempts > 0, messages.c.turn)
            .limit(1)
        )
        with self._database.read() as connection:
            row = connection.execute(query).first()
        if row is None:
            return None
        return OutboxMessage(
            row.id,
            row.receiver,
            row.body,
            row.events,
            row.created_at,
            row.attempts,
            row.minimal,
            repeat=row.unanswered or row.in_flight,
        )

    @in_store_thread
    def claim(self, delivery: OutboxMessage) -> None:
        """Note that an attempt begins: what a crash leaves like this may have arrived."""
        with self._database.write() as connection:
            connection.execute(update(messages).where(self._is(delivery)).values(in_flight=True))

    @in_store_thread
    def record(self, delivery: OutboxMessage, result: Result) -> list[float]:
        """Store what an attempt led to; return when what was delivered by it had been observed."""
        with self._database.write() as connection:
            store_health(connection, self._receiver, result.health, result.resume_at)
            record_events(connection, result.told)
            connection.execute(
                update(messages)
                .where(self._is(delivery))
                .values(
                    state=_unless_discarded(messages.c.state, result.state),
                    attempts=messages.c.attempts + 1,
                    turn=self._next_turn().scalar_subquery(),
                    in_flight=False,
                    unanswered=delivery.repeat or result.ambiguous,
                    last_attempt_at=result.at,
                    last_result=result.reason,
                )
            )
            return [] if result.state == PENDING else self._settle(connection, delivery, result)

    @in_store_thread
    def replace_body(self, delivery: OutboxMessage, body: bytes) -> None:
        """Store the minimal rendering of a message that was refused as it was."""
        with self._database.write() as connection:
            connection.execute(
                update(messages).where(self._is(delivery)).values(body=body, minimal=True)
            )

    @in_store_thread
    def events_of(self, delivery: OutboxMessage) -> list[Event]:
        """Return the events that a message carries, oldest first."""
        query = (
            select(events)
            .join(deliveries, deliveries.c.event == events.c.number)
            .where(deliveries.c.receiver == self._receiver, deliveries.c.message == delivery.id)
            .order_by(events.c.number)
        )
        with self._database.read() as connection:
            return [event_of(row) for row in connection.execute(query)]

    @in_store_thread
    def expire(self, before: float, now: float) -> int:
        """Give up what is owed since before ``before``; return how many events that were."""
        old = and_(self._mine(PENDING), deliveries.c.queued_at < before)
        with self._database.read() as connection:
            if not connection.execute(select(func.count()).where(old)).scalar_one():
                return 0
        carried = and_(deliveries.c.message == messages.c.id, self._mine(PENDING))
        with self._database.write() as connection:
            given_up = connection.execute(
                update(deliveries).where(old).values(state=DEAD, settled_at=now)
            )
            connection.execute(
                update(messages)
                .where(
                    self._messages(),
                    messages.c.state == PENDING,
                    ~select(deliveries.c.event).where(carried).exists(),
                )
                .values(state=DEAD, last_result="expired: " + messages.c.last_result)
            )
            return given_up.rowcount

    @in_store_thread
    def backlog(self) -> Backlog:
        """Return how many events the receiver has not taken."""
        query = (
            select(deliveries.c.state, func.count(), func.min(deliveries.c.queued_at))
            .where(deliveries.c.receiver == self._receiver, deliveries.c.state.in_([PENDING, DEAD]))
            .group_by(deliveries.c.state)
        )
        with self._database.read() as connection:
            found = {row[0]: row for row in connection.execute(query)}
        _, pending, oldest = found.get(PENDING, (PENDING, 0, None))
        _, dead, _ = found.get(DEAD, (DEAD, 0, None))
        return Backlog(pending, dead, oldest)

    def _carry(self, connection: Connection, message: NewMessage) -> int:
        """Put what is still owed into a message; return how many events that are."""
        return connection.execute(
            update(deliveries)
            .where(
                self._mine(PENDING),
                deliveries.c.message.is_(None),
                deliveries.c.event == bindparam("number"),
            )
            .values(message=message.id),
            # One by one: a digest may carry more events than a statement takes values.
            [{"number": number} for number in message.events],
        ).rowcount

    def _next_turn(self) -> Any:
        # Turns, not times: a clock that is set back must not hold up what was tried before.
        return select(func.coalesce(func.max(messages.c.turn), 0) + 1).where(self._messages())

    def _settle(
        self, connection: Connection, delivery: OutboxMessage, result: Result
    ) -> list[float]:
        carried = and_(deliveries.c.receiver == self._receiver, deliveries.c.message == delivery.id)
        connection.execute(
            update(deliveries)
            .where(carried)
            .values(state=_unless_discarded(deliveries.c.state, result.state), settled_at=result.at)
        )
        observed = (
            select(events.c.observed_at)
            .join(deliveries, deliveries.c.event == events.c.number)
            .where(carried, deliveries.c.state == DELIVERED)
        )
        return list(connection.execute(observed).scalars())

    def _mine(self, state: str) -> ColumnElement[bool]:
        return and_(deliveries.c.receiver == self._receiver, deliveries.c.state == state)

    def _messages(self) -> ColumnElement[bool]:
        return messages.c.receiver == self._receiver

    def _is(self, delivery: OutboxMessage) -> ColumnElement[bool]:
        return and_(self._messages(), messages.c.id == delivery.id)


def _unless_discarded(column: ColumnElement[str], state: str) -> Any:
    """Return the state to set: what was discarded during an attempt stays so, unless it arrived."""
    if state == DELIVERED:
        return state
    return case((column == DISCARDED, DISCARDED), else_=state)


def _new_row(message: NewMessage, carried: int, now: float) -> dict[str, Any]:
    return {
        "id": message.id,
        "state": PENDING,
        "body": message.body,
        "events": carried,
        "minimal": False,
        "created_at": now,
        "attempts": 0,
        "in_flight": False,
        "unanswered": False,
        "last_result": "",
    }

"""Outbox of one receiver: its deliveries, and the messages that carry them."""

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    and_,
    bindparam,
    case,
    delete,
    func,
    insert,
    select,
    update,
)

from exporter.core.account import RoutedEvents
from exporter.core.events import Event
from exporter.core.model import OutboxMessage
from exporter.core.retry import CIRCUIT_CLOSED, Attempt, CircuitState
from exporter.store.database import Database, in_store_thread
from exporter.store.engines import dialect_insert, upsert
from exporter.store.events import DEAD, DELIVERED, DISCARDED, PENDING, event_of, record_events
from exporter.store.schema import CARRIES, CARRIES_NOTHING, deliveries, events, messages, receivers


@dataclass(frozen=True, slots=True)
class ReceiverState:
    """What is stored of a receiver: its circuit, and when it may be tried again (Unix seconds).

    ``retry_requests`` counts the requests to try it at once.
    """

    circuit: CircuitState = CIRCUIT_CLOSED
    resume_at: float = 0.0
    retry_requests: int = 0


@dataclass(frozen=True, slots=True)
class AttemptResult:
    """Result of an attempt: to a message, or to the events of a request to an Alertmanager.

    ``state`` is their state from ``at`` (Unix seconds), which is ``awake`` on the awake clock.
    ``circuit`` is the receiver's, which may be tried again at ``resume_at``. ``events`` follow from
    the attempt and are queued with it.
    """

    state: str
    at: float
    awake: float
    attempt: Attempt
    circuit: CircuitState = CIRCUIT_CLOSED
    resume_at: float = 0.0
    events: RoutedEvents = ()


def store_result(connection: Connection, receiver: str, result: AttemptResult) -> None:
    """Store the circuit and the events of a result, within the caller's transaction."""
    row = {"name": receiver, "resume_at": result.resume_at, **asdict(result.circuit)}
    upsert(connection, receivers, [row])
    record_events(connection, result.events)


def request_retry(connection: Connection, receiver: str) -> None:
    """Request that a receiver is tried at once, within the caller's transaction."""
    statement = dialect_insert(connection, receivers).values(name=receiver, retry_requests=1)
    more = {"retry_requests": receivers.c.retry_requests + 1}
    connection.execute(statement.on_conflict_do_update(index_elements=["name"], set_=more))


@dataclass(frozen=True, slots=True)
class Backlog:
    """Number of pending and of dead deliveries of a receiver.

    ``oldest_age`` is for how many awake seconds the oldest pending one has been queued; None
    without one.
    """

    pending: int = 0
    dead: int = 0
    oldest_age: float | None = None


@dataclass(frozen=True, slots=True)
class QueuedEvent:
    """An event that was queued for a receiver ``age`` awake seconds ago."""

    number: int
    event: Event
    age: float


@dataclass(frozen=True, slots=True)
class NewMessage:
    """A message to create: its bytes, and the numbers of the events that it carries."""

    id: str
    body: bytes
    events: tuple[int, ...]
    minimal: bool = False


class ReceiverOutbox:
    """The deliveries of one receiver. Every method raises StoreError."""

    def __init__(self, database: Database, receiver: str) -> None:
        self._database = database
        self.receiver = receiver

    def awake_now(self) -> float:
        """Return the time of the awake clock in seconds."""
        return self._database.awake.now()

    @in_store_thread
    def receiver_state(self) -> ReceiverState:
        """Return the stored state of the receiver; the default if there is none."""
        query = select(receivers).where(receivers.c.name == self.receiver)
        with self._database.read() as connection:
            row = connection.execute(query).first()
        if row is None:
            return ReceiverState()
        circuit = CircuitState(row.failures, row.since, row.open, row.reason, row.since_awake)
        return ReceiverState(circuit, row.resume_at, row.retry_requests)

    @in_store_thread
    def expire(self, max_age: float, now: float) -> int:
        """Mark deliveries that are older than ``max_age`` awake seconds as dead.

        Returns their number. ``now`` is Unix seconds.
        """
        awake = self.awake_now()
        old = and_(self._mine(PENDING), deliveries.c.queued_awake < awake - max_age)
        with self._database.read() as connection:
            if not connection.execute(select(func.count()).where(old)).scalar_one():
                return 0
        pending = select(deliveries.c.event).where(CARRIES, deliveries.c.state == PENDING)
        with self._database.write() as connection:
            expired = connection.execute(
                update(deliveries)
                .where(old)
                .values(state=DEAD, settled_at=now, settled_awake=awake)
            )
            connection.execute(
                update(messages)
                .where(self._messages(), messages.c.state == PENDING, ~pending.exists())
                .values(state=DEAD, last_result="expired: " + messages.c.last_result)
            )
            return expired.rowcount

    @in_store_thread
    def backlog(self) -> Backlog:
        """Return how many deliveries are pending and dead, and the age of the oldest."""
        pending, dead = self._mine(PENDING), self._mine(DEAD)
        query = select(
            func.count().filter(pending),
            func.count().filter(dead),
            func.min(deliveries.c.queued_awake).filter(pending),
        ).where(deliveries.c.receiver == self.receiver, deliveries.c.state.in_([PENDING, DEAD]))
        with self._database.read() as connection:
            pending_number, dead_number, oldest = connection.execute(query).one()
        age = None if oldest is None else self.awake_now() - oldest
        return Backlog(pending_number, dead_number, age)

    def _mine(self, state: str) -> ColumnElement[bool]:
        return and_(deliveries.c.receiver == self.receiver, deliveries.c.state == state)

    def _messages(self) -> ColumnElement[bool]:
        return messages.c.receiver == self.receiver


class Outbox(ReceiverOutbox):
    """The deliveries of one receiver, and the messages that carry them."""

    @in_store_thread
    def unsent(self) -> list[QueuedEvent]:
        """Return the events that no message carries yet, oldest first."""
        with self._database.read() as connection:
            return self._queued_events(
                connection, and_(self._mine(PENDING), deliveries.c.message.is_(None))
            )

    @in_store_thread
    def count_pending_messages(self) -> int:
        """Return the number of messages that are not settled."""
        query = select(func.count()).where(self._messages(), messages.c.state == PENDING)
        with self._database.read() as connection:
            return connection.scalars(query).one()

    @in_store_thread
    def create_messages(self, new: Sequence[NewMessage], now: float) -> None:
        """Store messages: their events and bytes do not change from here on.

        Events discarded or reassigned since they were read are left out.
        """
        with self._database.write() as connection:
            self._create(connection, new, deliveries.c.message.is_(None), created_at=now)

    @in_store_thread
    def next(self, *, skipping: Collection[str] = ()) -> OutboxMessage | None:
        """Return the pending message to try next; None without one.

        Those never tried come first, then the one tried least recently. ``skipping`` are ids.
        """
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
    def claim(self, message: OutboxMessage) -> None:
        """Mark a message as in flight: if the agent crashes now, it may have arrived."""
        with self._database.write() as connection:
            connection.execute(update(messages).where(self._is(message)).values(in_flight=True))

    @in_store_thread
    def record(self, message: OutboxMessage, result: AttemptResult) -> list[float]:
        """Store the result of an attempt; return the delays of the events it delivered.

        A delay is in awake seconds, from the observation of an event to its delivery.
        """
        with self._database.write() as connection:
            self._record_attempt(connection, message, result)
            if result.state == PENDING:
                return []
            carried = self._carried_by(message)
            state = _unless_discarded(deliveries.c.state, result.state)
            connection.execute(
                update(deliveries)
                .where(carried)
                .values(state=state, settled_at=result.at, settled_awake=result.awake)
            )
            observed = (
                select(events.c.observed_awake)
                .join(deliveries)
                .where(carried, deliveries.c.state == DELIVERED)
            )
            return [result.awake - awake for awake in connection.scalars(observed)]

    @in_store_thread
    def split(
        self, message: OutboxMessage, parts: Sequence[NewMessage], result: AttemptResult
    ) -> None:
        """Store the result of an attempt, and move the pending events of its message to ``parts``.

        One transaction: no event is in two messages or in none. Events discarded or reassigned in
        the meantime stay where they are.
        """
        with self._database.write() as connection:
            self._record_attempt(connection, message, result)
            self._create(
                connection,
                parts,
                deliveries.c.message == message.id,
                created_at=message.created_at,
                # The message may have arrived in an attempt before this one.
                unanswered=message.repeat,
                last_attempt_at=result.at,
                last_result=result.attempt.reason,
            )
            connection.execute(delete(messages).where(self._is(message), CARRIES_NOTHING))

    @in_store_thread
    def replace_body(self, message: OutboxMessage, body: bytes) -> None:
        """Replace the bytes of a message that was refused by its minimal form."""
        with self._database.write() as connection:
            connection.execute(
                update(messages).where(self._is(message)).values(body=body, minimal=True)
            )

    @in_store_thread
    def events_of(self, message: OutboxMessage, most: int | None = None) -> list[QueuedEvent]:
        """Return the events that a message carries, at most ``most``, oldest first."""
        with self._database.read() as connection:
            return self._queued_events(connection, self._carried_by(message), most)

    def _queued_events(
        self, connection: Connection, criteria: ColumnElement[bool], most: int | None = None
    ) -> list[QueuedEvent]:
        query = (
            select(events, deliveries.c.queued_awake)
            .join(deliveries)
            .where(criteria)
            .order_by(events.c.number)
            .limit(most)
        )
        awake = self.awake_now()
        return [
            QueuedEvent(row.number, event_of(row), awake - row.queued_awake)
            for row in connection.execute(query)
        ]

    def _record_attempt(
        self, connection: Connection, message: OutboxMessage, result: AttemptResult
    ) -> None:
        store_result(connection, self.receiver, result)
        connection.execute(
            update(messages)
            .where(self._is(message))
            .values(
                state=_unless_discarded(messages.c.state, result.state),
                attempts=messages.c.attempts + 1,
                turn=self._next_turn().scalar_subquery(),
                in_flight=False,
                unanswered=message.repeat or result.attempt.ambiguous,
                last_attempt_at=result.at,
                last_result=result.attempt.reason,
            )
        )

    def _create(
        self,
        connection: Connection,
        new: Sequence[NewMessage],
        source: ColumnElement[bool],
        **values: Any,
    ) -> None:
        """Create messages of those of their events that are pending and meet ``source``."""
        turn = connection.execute(self._next_turn()).scalar_one()
        for number, message in enumerate(new):
            assigned = connection.execute(
                update(deliveries)
                .where(self._mine(PENDING), source, deliveries.c.event == bindparam("number"))
                .values(message=message.id),
                # One by one: a digest may carry more events than a statement takes parameters.
                [{"number": number} for number in message.events],
            ).rowcount
            if assigned:
                row = {"receiver": self.receiver, "state": PENDING, "turn": turn + number}
                row |= {"id": message.id, "body": message.body, "minimal": message.minimal}
                connection.execute(insert(messages).values(row | {"events": assigned, **values}))

    def _next_turn(self) -> Any:
        # Turns, not times: a wall clock that is set back must not delay messages tried before.
        return select(func.coalesce(func.max(messages.c.turn), 0) + 1).where(self._messages())

    def _carried_by(self, message: OutboxMessage) -> ColumnElement[bool]:
        return and_(deliveries.c.receiver == self.receiver, deliveries.c.message == message.id)

    def _is(self, message: OutboxMessage) -> ColumnElement[bool]:
        return and_(self._messages(), messages.c.id == message.id)


def _unless_discarded(column: ColumnElement[str], state: str) -> Any:
    """Return the state to set: discarded during an attempt stays, unless it was delivered."""
    if state == DELIVERED:
        return state
    return case((column == DISCARDED, DISCARDED), else_=state)

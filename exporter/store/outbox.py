"""Outbox of one receiver: its deliveries, and the messages that carry them."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import inf
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
    literal,
    select,
    update,
)

from exporter.core.account import RoutedEvents
from exporter.core.events import Event
from exporter.core.model import OutboxMessage
from exporter.core.mutes import AccountLabels
from exporter.core.retry import CIRCUIT_CLOSED, Attempt, CircuitState
from exporter.store.database import Database, in_store_thread
from exporter.store.engines import dialect_insert, upsert
from exporter.store.events import (
    DEAD,
    DELIVERED,
    DISCARDED,
    MUTED,
    PENDING,
    QueuedEvent,
    event_of,
    record_events,
)
from exporter.store.muting import MuteChanges, find_changes, store_changes
from exporter.store.schema import (
    CARRIES,
    CARRIES_NOTHING,
    attempts,
    deliveries,
    events,
    messages,
    receivers,
)


@dataclass(frozen=True, slots=True)
class ReceiverState:
    """What is stored of a receiver: its circuit, and when it may be tried again (Unix seconds).

    ``retry_requests`` counts the requests to try it at once. ``grouped_awake`` is when its group
    interval began, on the awake clock; None if none has begun.
    """

    circuit: CircuitState = CIRCUIT_CLOSED
    resume_at: float = 0.0
    retry_requests: int = 0
    grouped_awake: float | None = None

    def held_until(self, group_interval: float) -> float:
        """Return until when the group interval holds events back, on the awake clock."""
        return -inf if self.grouped_awake is None else self.grouped_awake + group_interval


@dataclass(frozen=True, slots=True)
class AttemptResult:
    """Result of an attempt: to a message, or to the events of a request to an Alertmanager.

    ``state`` is their state from ``at`` (Unix seconds), which is ``awake`` on the awake clock. The
    request took ``seconds``. ``circuit`` is the receiver's, which may be tried again at
    ``resume_at``. ``events`` follow from the attempt and are queued with it.
    """

    state: str
    at: float
    awake: float
    attempt: Attempt
    circuit: CircuitState = CIRCUIT_CLOSED
    resume_at: float = 0.0
    events: RoutedEvents = ()
    seconds: float = 0.0


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
    """Numbers of deliveries of a receiver by state.

    ``held`` counts the pending ones that the group interval holds back. ``oldest_age`` is for how
    many awake seconds the oldest of the others may have been sent; None without one.
    """

    pending: int = 0
    dead: int = 0
    oldest_age: float | None = None
    held: int = 0
    muted: int = 0


@dataclass(frozen=True, slots=True)
class NewMessage:
    """A message to create: its bytes, and the numbers of the events that it carries.

    ``starts_interval``: the receiver's group interval begins with it.
    """

    id: str
    body: bytes
    events: tuple[int, ...]
    minimal: bool = False
    starts_interval: bool = False


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
        return ReceiverState(circuit, row.resume_at, row.retry_requests, row.grouped_awake)

    @in_store_thread
    def expire(self, max_age: float, now: float, held_until: float = -inf) -> int:
        """Mark deliveries that could be sent for more than ``max_age`` awake seconds as dead.

        Returns their number. ``now`` is Unix seconds. Events that no message carries were held back
        until ``held_until`` on the awake clock.
        """
        awake = self.awake_now()
        old = and_(self._mine(PENDING), _due_awake(held_until) < awake - max_age)
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
    def backlog(self, group_interval: float = 0.0) -> Backlog:
        """Return the numbers of deliveries, and for how long the oldest may have been sent."""
        grouped = select(receivers.c.grouped_awake).where(receivers.c.name == self.receiver)
        awake = self.awake_now()
        with self._database.read() as connection:
            began = connection.scalar(grouped)
            held_until = -inf if began is None else began + group_interval
            pending, due = self._mine(PENDING), _due_awake(held_until)
            row = connection.execute(
                select(
                    func.count().filter(pending).label("pending"),
                    func.count().filter(self._mine(DEAD)).label("dead"),
                    func.count().filter(pending, due > awake).label("held"),
                    func.count().filter(self._mine(MUTED)).label("muted"),
                    func.min(due).filter(pending, due <= awake).label("oldest"),
                ).where(
                    deliveries.c.receiver == self.receiver,
                    deliveries.c.state.in_([PENDING, DEAD, MUTED]),
                )
            ).one()
        age = None if row.oldest is None else awake - row.oldest
        return Backlog(row.pending, row.dead, age, row.held, row.muted)

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
    def apply_mutes(self, labels: AccountLabels, now: float) -> MuteChanges:
        """Store what the mutes change at ``now`` (Unix seconds), and return it.

        ``labels`` are those of each account. What is to be released stays muted until
        ``create_messages`` stores the message that carries it.
        """
        receiver, awake = self.receiver, self.awake_now()
        with self._database.read() as connection:
            changes = find_changes(connection, receiver, labels, now, awake)
        if changes.must_be_stored:
            with self._database.write() as connection:
                store_changes(connection, receiver, changes, now, awake)
        return changes

    @in_store_thread
    def count_pending_messages(self) -> int:
        """Return the number of messages that are not settled."""
        query = select(func.count()).where(self._messages(), messages.c.state == PENDING)
        with self._database.read() as connection:
            return connection.scalars(query).one()

    @in_store_thread
    def create_messages(
        self,
        new: Sequence[NewMessage],
        now: float,
        *,
        held_until: float = -inf,
        muted: bool = False,
    ) -> None:
        """Store messages at ``now`` (Unix seconds): their events and bytes do not change any more.

        Events discarded or reassigned since they were read are left out. The events were held back
        until ``held_until`` on the awake clock; those that are ``muted`` until now.
        """
        awake = self.awake_now()
        source = and_(deliveries.c.state == PENDING, deliveries.c.message.is_(None))
        due: Any = _due_awake(held_until)
        if muted:
            source, due = deliveries.c.state == MUTED, awake
        with self._database.write() as connection:
            assigned = {"state": PENDING, "due_awake": due}
            self._create(connection, new, source, assigned, created_at=now)
            if any(message.starts_interval for message in new):
                began = {"name": self.receiver, "grouped_at": now, "grouped_awake": awake}
                upsert(connection, receivers, [began])

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
                .values(
                    state=state,
                    settled_at=result.at,
                    settled_awake=result.awake,
                    answer=result.attempt.reason,
                )
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
                and_(deliveries.c.state == PENDING, deliveries.c.message == message.id),
                {},
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
            select(events, deliveries.c.due_awake)
            .join(deliveries)
            .where(criteria)
            .order_by(events.c.number)
            .limit(most)
        )
        awake = self.awake_now()
        return [
            QueuedEvent(row.number, event_of(row), awake - row.due_awake)
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
        connection.execute(
            insert(attempts).values(
                receiver=self.receiver,
                message=message.id,
                at=result.at,
                seconds=result.seconds,
                outcome=result.attempt.outcome.value,
                answer=result.attempt.reason,
            )
        )

    def _create(
        self,
        connection: Connection,
        new: Sequence[NewMessage],
        source: ColumnElement[bool],
        assigned_values: Mapping[str, Any],
        **values: Any,
    ) -> None:
        """Create messages of those of their events whose deliveries meet ``source``."""
        mine = deliveries.c.receiver == self.receiver
        turn = connection.execute(self._next_turn()).scalar_one()
        for number, message in enumerate(new):
            assigned = connection.execute(
                update(deliveries)
                .where(mine, source, deliveries.c.event == bindparam("number"))
                .values(message=message.id, **assigned_values),
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


def _due_awake(held_until: float) -> ColumnElement[float]:
    """Return from when a pending delivery may be sent, on the awake clock.

    Those of fine-tunes that no message carries are held back until ``held_until``.
    """
    if held_until == -inf:
        return deliveries.c.due_awake
    is_held = and_(
        deliveries.c.groupable,
        deliveries.c.message.is_(None),
        deliveries.c.due_awake < held_until,
    )
    return case((is_held, literal(held_until)), else_=deliveries.c.due_awake)


def _unless_discarded(column: ColumnElement[str], state: str) -> Any:
    """Return the state to set: discarded during an attempt stays, unless it was delivered."""
    if state == DELIVERED:
        return state
    return case((column == DISCARDED, DISCARDED), else_=state)

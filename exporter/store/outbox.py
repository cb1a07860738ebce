"""Outbox of one receiver: its deliveries, and the messages that carry them."""

from collections.abc import Collection, Mapping, Sequence
from functools import cache
from math import inf
from typing import Any

from msgspec import Struct
from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    Update,
    and_,
    bindparam,
    case,
    delete,
    func,
    insert,
    select,
    update,
)

from exporter.core.event_context import EventContext
from exporter.core.grouping import QueuedEvent
from exporter.core.match import AccountLabels
from exporter.core.model import OutboxMessage
from exporter.store.database import in_store_thread
from exporter.store.engines import upsert
from exporter.store.event_contexts import event_contexts
from exporter.store.events import (
    DELIVERED,
    DISCARDED,
    MUTED,
    PENDING,
    event_of,
)
from exporter.store.muting import MuteChanges, find_changes, store_changes
from exporter.store.receiver_outbox import (
    AttemptResult,
    ReceiverOutbox,
    due_awake,
    store_result,
)
from exporter.store.schema import (
    CARRIES_NOTHING,
    attempts,
    deliveries,
    events,
    messages,
    receivers,
)


class NewMessage(Struct, frozen=True):
    """A message to create: its bytes, and the numbers of the events that it carries.

    ``starts_interval``: the receiver's group interval begins with it.
    """

    id: str
    body: bytes
    events: tuple[int, ...]
    minimal: bool = False
    starts_interval: bool = False


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
            with self._database.write(self._claim) as connection:
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
        due: Any = due_awake(held_until)
        if muted:
            source, due = deliveries.c.state == MUTED, awake
        with self._database.write(self._claim) as connection:
            if any(message.starts_interval for message in new):
                began = {"name": self.receiver, "grouped_at": now, "grouped_awake": awake}
                upsert(connection, receivers, [began])
            assigned = {"state": PENDING, "due_awake": due}
            self._create(connection, new, source, assigned, created_at=now)

    @in_store_thread
    def next(self, *, skipping: Collection[str] = ()) -> OutboxMessage | None:
        """Return the pending message to try next; None without one.

        Those never tried come first, then the one tried least recently. ``skipping`` are ids.
        """
        values = {"receiver": self.receiver, "skipping": list(skipping)}
        with self._database.read() as connection:
            row = connection.execute(_next_query(), values).first()
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
        with self._database.write(self._claim) as connection:
            connection.execute(
                _mark_in_flight(), {"receiver_name": self.receiver, "message_id": message.id}
            )

    @in_store_thread
    def record(self, message: OutboxMessage, result: AttemptResult) -> list[float]:
        """Store the result of an attempt; return the delays of the events it delivered.

        A delay is in awake seconds, from the observation of an event to its delivery.
        """
        with self._database.write(self._claim) as connection:
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
        with self._database.write(self._claim) as connection:
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
        with self._database.write(self._claim) as connection:
            connection.execute(
                update(messages).where(self._is(message)).values(body=body, minimal=True)
            )

    @in_store_thread
    def events_of(self, message: OutboxMessage, most: int | None = None) -> list[QueuedEvent]:
        """Return the events that a message carries, at most ``most``, oldest first."""
        with self._database.read() as connection:
            return self._queued_events(connection, self._carried_by(message), most)

    @in_store_thread
    def contexts(self, carried: Sequence[QueuedEvent]) -> Mapping[str, EventContext]:
        """Return what the store knows about the events of a message, by their ids."""
        reported, last_number = [each.event for each in carried], max(e.number for e in carried)
        with self._database.read() as connection:
            return event_contexts(connection, reported, last_number)

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
        values = {
            "receiver_name": self.receiver,
            "message_id": message.id,
            "ambiguous": message.repeat or result.attempt.ambiguous,
            "now": result.at,
            "reason": result.attempt.reason,
        }
        connection.execute(_after_attempt(result.state), values)
        attempt = {
            "receiver": self.receiver,
            "message": message.id,
            "at": result.at,
            "seconds": result.seconds,
            "outcome": result.attempt.outcome.value,
            "answer": result.attempt.reason,
        }
        connection.execute(insert(attempts), attempt)

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
        turn = connection.execute(_next_turn(), {"receiver_name": self.receiver}).scalar_one()
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

    def _carried_by(self, message: OutboxMessage) -> ColumnElement[bool]:
        return and_(deliveries.c.receiver == self.receiver, deliveries.c.message == message.id)

    def _is(self, message: OutboxMessage) -> ColumnElement[bool]:
        return and_(self._messages(), messages.c.id == message.id)


@cache
def _next_query() -> Select[Any]:
    mine = messages.c.receiver == bindparam("receiver")
    skipped = messages.c.id.in_(bindparam("skipping", expanding=True))
    query = select(messages).where(mine, messages.c.state == PENDING, ~skipped)
    return query.order_by(messages.c.attempts > 0, messages.c.turn).limit(1)


# In an UPDATE, a parameter may not have the name of a column.
@cache
def _of_message() -> Update:
    is_mine = messages.c.receiver == bindparam("receiver_name")
    return update(messages).where(is_mine, messages.c.id == bindparam("message_id"))


@cache
def _mark_in_flight() -> Update:
    return _of_message().values(in_flight=True)


@cache
def _after_attempt(state: str) -> Update:
    """Return the UPDATE of a message after an attempt that sets this state."""
    return _of_message().values(
        state=_unless_discarded(messages.c.state, state),
        attempts=messages.c.attempts + 1,
        turn=_next_turn().scalar_subquery(),
        in_flight=False,
        unanswered=bindparam("ambiguous"),
        last_attempt_at=bindparam("now"),
        last_result=bindparam("reason"),
    )


@cache
def _next_turn() -> Select[int]:
    # Turns, not times: a wall clock that is set back must not delay messages tried before.
    newest = func.coalesce(func.max(messages.c.turn), 0)
    return select(newest + 1).where(messages.c.receiver == bindparam("receiver_name"))


def _unless_discarded(column: ColumnElement[str], state: str) -> Any:
    """Return the state to set: discarded during an attempt stays, unless it was delivered."""
    if state == DELIVERED:
        return state
    return case((column == DISCARDED, DISCARDED), else_=state)

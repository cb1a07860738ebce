"""The deliveries not yet taken, and the messages that carry them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from sqlalchemy import Connection, Row, and_, bindparam, func, select, update
from sqlalchemy.dialects.sqlite import insert

from exporter.core.model import Delivery, Event, FineTune
from exporter.store.database import Database
from exporter.store.schema import deliveries, events, messages

PENDING: Final = "pending"
DELIVERED: Final = "delivered"
DEAD: Final = "dead"


@dataclass(frozen=True, slots=True)
class Backlog:
    """What one receiver has not taken, in events: still owed, and given up."""

    pending: int
    dead: int


@dataclass(frozen=True, slots=True)
class Owed:
    """An event owed to a receiver that no message carries yet."""

    number: int
    event: Event


@dataclass(frozen=True, slots=True)
class NewMessage:
    """A message about to be tried for the first time: its bytes and which events it carries."""

    id: str
    body: bytes
    events: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Result:
    """What an attempt led to: the state after it, when (Unix seconds), and why, in words."""

    state: str
    at: float
    reason: str


class Outbox:
    """One receiver's part of the outbox."""

    def __init__(self, database: Database, receiver: str) -> None:
        self._database = database
        self._receiver = receiver

    async def unsent(self) -> list[Owed]:
        """Return the events that no message carries yet, oldest first."""
        return await self._database.run(self._unsent)

    async def freeze(self, new: Sequence[NewMessage], now: float) -> None:
        """Fix the membership and the bytes of messages before their first attempt."""
        await self._database.run(self._freeze, new, now)

    async def next(self) -> Delivery | None:
        """Return the message tried least recently, one never tried first; None if none is owed."""
        return await self._database.run(self._next)

    async def record(self, delivery: Delivery, result: Result) -> None:
        """Store what an attempt of ``delivery`` led to."""
        await self._database.run(self._record, delivery, result)

    async def replace_body(self, delivery: Delivery, body: bytes) -> None:
        """Store the minimal rendering of a message that was refused as it was."""
        await self._database.run(self._replace_body, delivery, body)

    async def events_of(self, delivery: Delivery) -> list[Event]:
        """Return the events that a message carries, oldest first."""
        return await self._database.run(self._events_of, delivery)

    async def backlog(self) -> Backlog:
        """Return how many events the receiver has not taken."""
        return await self._database.run(self._backlog)

    def _unsent(self) -> list[Owed]:
        query = (
            select(events)
            .join(deliveries, deliveries.c.event == events.c.number)
            .where(
                deliveries.c.receiver == self._receiver,
                deliveries.c.state == PENDING,
                deliveries.c.message.is_(None),
            )
            .order_by(events.c.number)
        )
        with self._database.read() as connection:
            return [Owed(row.number, _event(row)) for row in connection.execute(query)]

    def _freeze(self, new: Sequence[NewMessage], now: float) -> None:
        with self._database.write() as connection:
            for message in new:
                connection.execute(
                    insert(messages).values(
                        receiver=self._receiver,
                        id=message.id,
                        state=PENDING,
                        body=message.body,
                        events=len(message.events),
                        minimal=False,
                        created_at=now,
                        attempts=0,
                        last_result="",
                    )
                )
                connection.execute(
                    update(deliveries)
                    .where(
                        deliveries.c.receiver == self._receiver,
                        deliveries.c.event == bindparam("number"),
                    )
                    .values(message=message.id),
                    # One by one: a digest may carry more events than a statement takes values.
                    [{"number": number} for number in message.events],
                )

    def _next(self) -> Delivery | None:
        query = (
            select(messages)
            .where(messages.c.receiver == self._receiver, messages.c.state == PENDING)
            .order_by(messages.c.last_attempt_at.nulls_first(), messages.c.created_at)
            .limit(1)
        )
        with self._database.read() as connection:
            row = connection.execute(query).first()
        if row is None:
            return None
        return Delivery(
            row.id, row.receiver, row.body, row.events, row.created_at, row.attempts, row.minimal
        )

    def _record(self, delivery: Delivery, result: Result) -> None:
        settled = result.state != PENDING
        with self._database.write() as connection:
            connection.execute(
                update(messages)
                .where(self._is(delivery))
                .values(
                    state=result.state,
                    attempts=messages.c.attempts + 1,
                    last_attempt_at=result.at,
                    last_result=result.reason,
                )
            )
            if settled:
                connection.execute(
                    update(deliveries)
                    .where(
                        deliveries.c.receiver == self._receiver,
                        deliveries.c.message == delivery.id,
                    )
                    .values(state=result.state, settled_at=result.at)
                )

    def _replace_body(self, delivery: Delivery, body: bytes) -> None:
        with self._database.write() as connection:
            connection.execute(
                update(messages).where(self._is(delivery)).values(body=body, minimal=True)
            )

    def _events_of(self, delivery: Delivery) -> list[Event]:
        query = (
            select(events)
            .join(deliveries, deliveries.c.event == events.c.number)
            .where(deliveries.c.receiver == self._receiver, deliveries.c.message == delivery.id)
            .order_by(events.c.number)
        )
        with self._database.read() as connection:
            return [_event(row) for row in connection.execute(query)]

    def _backlog(self) -> Backlog:
        query = (
            select(deliveries.c.state, func.count())
            .where(deliveries.c.receiver == self._receiver, deliveries.c.state != DELIVERED)
            .group_by(deliveries.c.state)
        )
        with self._database.read() as connection:
            counts = {row[0]: row[1] for row in connection.execute(query)}
        return Backlog(counts.get(PENDING, 0), counts.get(DEAD, 0))

    def _is(self, delivery: Delivery) -> Any:
        return and_(messages.c.receiver == self._receiver, messages.c.id == delivery.id)


class _Content(msgspec.Struct):
    fine_tune: FineTune | None
    previous_status: str | None
    facts: dict[str, Any]


def record_events(connection: Connection, owed: Sequence[tuple[Event, Sequence[str]]]) -> None:
    """Store events and which receivers are owed them, within the caller's transaction.

    An event that is there already is left as it is: the same transition, detected again after a
    commit whose success was not seen, owes nothing new.
    """
    if not owed:
        return
    last = connection.execute(select(func.coalesce(func.max(events.c.number), 0))).scalar_one()
    unless_there = insert(events).on_conflict_do_nothing(index_elements=["id"])
    connection.execute(unless_there, [_row(event) for event, _ in owed])
    new = select(events.c.id, events.c.number).where(events.c.number > last)
    numbers = {row.id: row.number for row in connection.execute(new)}
    rows = [
        {"event": numbers[event.id], "receiver": name, "state": PENDING}
        for event, receivers in owed
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
        "observed_at": event.observed_at,
        "content": msgspec.json.encode(content).decode(),
    }


def _event(row: Row[Any]) -> Event:
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

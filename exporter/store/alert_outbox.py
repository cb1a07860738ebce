"""Outbox of one Alertmanager: its alerts matter for a while after they are delivered."""

from collections.abc import Collection, Hashable
from typing import Any, Final

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    Connection,
    Select,
    bindparam,
    case,
    select,
    update,
)

from exporter.core.active_alerts import AlertRow
from exporter.core.events import ENDS, TROUBLES, Event
from exporter.store.database import Database, in_store_thread
from exporter.store.events import DEAD, DELIVERED, DISCARDED, PENDING, event_of
from exporter.store.outbox import AttemptResult, Backlog, Outbox, ReceiverState, store_result
from exporter.store.schema import deliveries, events

_NUMBER: Final[BindParameter[int]] = bindparam("of_event")


class AlertOutbox:
    """The deliveries of one Alertmanager; no messages carry them."""

    def __init__(self, database: Database, receiver: str) -> None:
        self._database = database
        self._receiver = receiver
        self._outbox = Outbox(database, receiver)

    async def receiver_state(self) -> ReceiverState:
        """Return the stored state of the receiver; the default if there is none."""
        return await self._outbox.receiver_state()

    async def backlog(self) -> Backlog:
        """Return how many deliveries are pending and dead."""
        return await self._outbox.backlog()

    async def expire(self, before: float, now: float) -> int:
        """Mark deliveries queued before ``before`` as dead; return their number."""
        return await self._outbox.expire(before, now)

    @in_store_thread
    def version(self) -> Hashable:
        """Return a value that changes when an event is recorded or another process writes.

        Results stored by this object do not change it. Retention does not either.
        """
        # The id, not the number: SQLite gives the number of a deleted event to a new one.
        newest = select(events.c.id).order_by(events.c.number.desc()).limit(1)
        with self._database.read() as connection:
            return self._database.external_changes(connection), connection.execute(newest).scalar()

    @in_store_thread
    def alert_rows(self, since: float) -> list[AlertRow]:
        """Return the events that are pending, or were delivered after ``since`` (Unix seconds)."""
        # Two queries: with an OR, SQLite would read everything that was ever delivered.
        pending = self._of_state(PENDING)
        delivered = self._of_state(DELIVERED).where(deliveries.c.settled_at > since)
        with self._database.read() as connection:
            rows = [*connection.execute(pending), *connection.execute(delivered)]
            return [AlertRow(*row) for row in rows]

    @in_store_thread
    def events(self, numbers: Collection[int]) -> dict[int, Event]:
        """Return the events with these numbers, by number; deleted ones are left out."""
        query = select(events).where(events.c.number.in_(numbers))
        with self._database.read() as connection:
            return {row.number: event_of(row) for row in connection.execute(query)}

    @in_store_thread
    def record(self, numbers: Collection[int], result: AttemptResult) -> list[float]:
        """Store the result of a post: events with these numbers are delivered, dead or pending.

        Returns the delays of those newly delivered, in seconds from observation to delivery. An
        event is delivered although it was marked as dead or discarded in the meantime.
        """
        with self._database.write() as connection:
            store_result(connection, self._receiver, result)
            observed = self._settle(connection, numbers, result)
        return [max(result.at - at, 0.0) for at in observed if result.state == DELIVERED]

    def _of_state(self, state: str) -> Select[Any]:
        return (
            select(events.c.number, events.c.observed_at, deliveries.c.settled_at, _left_at())
            .join(deliveries, deliveries.c.event == events.c.number)
            .where(self._mine(), deliveries.c.state == state)
        )

    def _settle(
        self, connection: Connection, numbers: Collection[int], result: AttemptResult
    ) -> list[float]:
        """Set the state of the events that may change to it; return when they were observed."""
        # Only the first delivery counts: ``hold`` starts with it.
        changeable = {DELIVERED: {PENDING, DEAD, DISCARDED}, DEAD: {PENDING}, PENDING: set[str]()}
        query = (
            select(events.c.number, events.c.observed_at, deliveries.c.state)
            .join(deliveries, deliveries.c.event == events.c.number)
            .where(self._mine(), deliveries.c.event.in_(numbers))
        )
        # States are compared here: in SQL, SQLite might search all deliveries by state.
        states = changeable[result.state]
        found = {number: at for number, at, state in connection.execute(query) if state in states}
        if found:
            # One statement: compiling it takes many times longer than running it.
            connection.execute(
                update(deliveries)
                .where(self._mine(), deliveries.c.event == _NUMBER)
                .values(state=result.state, settled_at=result.at),
                [{_NUMBER.key: number} for number in found],
            )
        return list(found.values())

    def _mine(self) -> ColumnElement[bool]:
        return deliveries.c.receiver == self._receiver


def _left_at() -> Any:
    """Select when an event's trouble ended: at the next event that ends it, NULL without one.

    An event that is no trouble ends when it begins; it can be reassigned to an Alertmanager.
    """
    later = events.alias("later")
    ended = (
        select(later.c.observed_at)
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
    return case((events.c.type.in_(TROUBLES), ended), else_=events.c.observed_at)

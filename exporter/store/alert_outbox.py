"""Outbox of one Alertmanager: its alerts matter for a while after they are delivered."""

from collections.abc import Collection, Hashable
from typing import Any

from sqlalchemy import Select, bindparam, case, select, update

from exporter.core.active_alerts import AlertRow
from exporter.core.events import ENDS, TROUBLES, Event
from exporter.store.database import in_store_thread
from exporter.store.events import DEAD, DELIVERED, DISCARDED, PENDING, event_of
from exporter.store.outbox import AttemptResult, ReceiverOutbox, store_result
from exporter.store.schema import deliveries, events


class AlertOutbox(ReceiverOutbox):
    """The deliveries of one Alertmanager; no messages carry them."""

    @in_store_thread
    def version(self) -> Hashable:
        """Return a value that changes when an event is recorded or another process writes.

        Results stored by this object do not change it. Retention does not either.
        """
        # The id, not the number: SQLite gives the number of a deleted event to a new one.
        newest = select(events.c.id).order_by(events.c.number.desc()).limit(1)
        with self._database.read() as connection:
            changes = self._database.engine.external_changes(connection)
            return changes, connection.scalar(newest)

    @in_store_thread
    def alert_rows(self, since: float) -> list[AlertRow]:
        """Return the events that are pending, or were delivered after ``since`` (awake seconds)."""
        # Two queries: with an OR, SQLite would read everything that was ever delivered.
        pending = self._of_state(PENDING)
        delivered = self._of_state(DELIVERED).where(deliveries.c.settled_awake > since)
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

        Returns the delays of those newly delivered, in awake seconds from observation to delivery.
        An event is delivered although it was marked as dead or discarded in the meantime.
        """
        # Only the first delivery counts: ``hold`` starts with it.
        changeable = {DELIVERED: {PENDING, DEAD, DISCARDED}, DEAD: {PENDING}, PENDING: set[str]()}
        mine = deliveries.c.receiver == self.receiver
        query = (
            select(events.c.number, events.c.observed_awake, deliveries.c.state)
            .join(deliveries)
            .where(mine, deliveries.c.event.in_(numbers))
        )
        with self._database.write() as connection:
            store_result(connection, self.receiver, result)
            # States are compared here: in SQL, SQLite might search all deliveries by state.
            states = changeable[result.state]
            found = {
                row.number: row.observed_awake
                for row in connection.execute(query)
                if row.state in states
            }
            if found:
                # One statement: compiling it takes many times longer than running it.
                connection.execute(
                    update(deliveries)
                    .where(mine, deliveries.c.event == bindparam("number"))
                    .values(state=result.state, settled_at=result.at, settled_awake=result.awake),
                    [{"number": number} for number in found],
                )
        return [result.awake - awake for awake in found.values() if result.state == DELIVERED]

    def _of_state(self, state: str) -> Select[Any]:
        """Select the fields of AlertRow.

        The last one is when an event's trouble ended: at the next event that ends it, NULL without
        one. An event that is no trouble ends when it begins; it can be reassigned to an
        Alertmanager.
        """
        later = events.alias("later")
        ended = (
            select(later.c.observed_awake)
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
        left = case((events.c.type.in_(TROUBLES), ended), else_=events.c.observed_awake)
        settled = deliveries.c.settled_awake
        return (
            select(events.c.number, events.c.observed_at, events.c.observed_awake, settled, left)
            .join(deliveries)
            .where(self._mine(state))
        )

"""Outbox of one Alertmanager: its alerts matter for a while after they are delivered."""

from collections.abc import Collection, Hashable
from functools import cache
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Float,
    Select,
    and_,
    bindparam,
    case,
    func,
    literal,
    or_,
    select,
    update,
)

from exporter.core.active_alerts import AlertRow
from exporter.core.events import LASTING, TROUBLES, Event
from exporter.core.ownership import Claim
from exporter.store.database import Database, in_store_thread
from exporter.store.events import DEAD, DELIVERED, DISCARDED, MUTED, PENDING, event_of, later_end
from exporter.store.receiver_outbox import AttemptResult, ReceiverOutbox, store_result
from exporter.store.schema import deliveries, events, poll_outages


class AlertOutbox(ReceiverOutbox):
    """The deliveries of one Alertmanager; no messages carry them.

    ``receivers`` are the names of all receivers in the configuration: the trouble of another one
    ends like that of a fine-tune, since nothing will say that it is over.
    """

    def __init__(
        self,
        database: Database,
        receiver: str,
        receivers: Collection[str] = frozenset(),
        claim: Claim | None = None,
    ) -> None:
        super().__init__(database, receiver, claim)
        self._receivers = frozenset(receivers)

    @in_store_thread
    def version(self) -> Hashable:
        """Return a value that changes when an event is recorded or another process writes.

        Results stored by this object do not change it. Retention does not either.
        """
        with self._database.read() as connection:
            changes = self._database.engine.external_changes(connection)
            return changes, connection.scalar(_newest_event())

    @in_store_thread
    def alert_rows(self, since: float) -> list[AlertRow]:
        """Return the events that are pending, or were delivered after ``since`` (awake seconds)."""
        values = {
            "receiver": self.receiver,
            "configured": sorted(self._receivers),
            "since": since,
        }
        # Several queries: with an OR, SQLite would read everything that was ever delivered. Muted
        # ones are of the time when the receiver had another type.
        queries = _of_state(PENDING), _of_state(MUTED), _delivered_since()
        with self._database.read() as connection:
            rows = [row for query in queries for row in connection.execute(query, values)]
            if numbers := [*connection.scalars(_lasting(), values)]:
                rows += connection.execute(_delivered(), {**values, "numbers": numbers})
            return [AlertRow(*row) for row in dict.fromkeys(rows)]

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
        changeable = {
            DELIVERED: {PENDING, MUTED, DEAD, DISCARDED},
            DEAD: {PENDING, MUTED},
            PENDING: set[str](),
        }
        mine = deliveries.c.receiver == self.receiver
        query = (
            select(events.c.number, events.c.observed_awake, deliveries.c.state)
            .join(deliveries)
            .where(mine, deliveries.c.event.in_(numbers))
        )
        with self._database.write(self._claim) as connection:
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
                    .values(
                        state=result.state,
                        settled_at=result.at,
                        settled_awake=result.awake,
                        answer=result.attempt.reason,
                    ),
                    [{"number": number} for number in found],
                )
        return [result.awake - awake for awake in found.values() if result.state == DELIVERED]


@cache
def _newest_event() -> Select[str]:
    # The id, not the number: SQLite gives the number of a deleted event to a new one.
    return select(events.c.id).order_by(events.c.number.desc()).limit(1)


@cache
def _alert_rows() -> Select[Any]:
    """Select the fields of AlertRow.

    The trouble of a receiver that is not configured does not last: nothing would end it.
    """
    is_receiver = events.c.type == "agent.receiver_unhealthy"
    is_configured = events.c.subject.in_(bindparam("configured", expanding=True))
    is_lasting = and_(events.c.type.in_(LASTING), or_(~is_receiver, is_configured))
    lasting = case((is_lasting, literal(value=True)), else_=literal(value=False))
    times = events.c.observed_at, events.c.observed_awake, deliveries.c.settled_awake
    query = select(events.c.number, *times, _left(), lasting).join(deliveries)
    return query.where(deliveries.c.receiver == bindparam("receiver"))


@cache
def _of_state(state: str) -> Select[Any]:
    return _alert_rows().where(deliveries.c.state == state)


@cache
def _delivered_since() -> Select[Any]:
    return _of_state(DELIVERED).where(deliveries.c.settled_awake > bindparam("since"))


@cache
def _delivered() -> Select[Any]:
    # Not by state: an index on it would lead through everything that was ever delivered.
    is_delivered = func.coalesce(deliveries.c.state, "") == DELIVERED
    is_named = deliveries.c.event.in_(bindparam("numbers", expanding=True))
    return _alert_rows().where(is_named, is_delivered)


@cache
def _lasting() -> Select[int]:
    """Select the numbers of troubles that last, or lasted until after ``since``."""
    left, since = _left(), bindparam("since", type_=Float)
    is_late = or_(left.is_(None), left > since)
    return select(events.c.number).where(events.c.type.in_(LASTING), is_late)


@cache
def _left() -> ColumnElement[float | None]:
    """Return when an event's trouble ended: at the next event that ends it, NULL without one.

    An event that is no trouble ends when it begins; it can be reassigned to an Alertmanager.
    """
    ended = later_end()
    # The account was removed from the configuration before it could be read again.
    is_forgotten = and_(
        events.c.type == "agent.poll_failing",
        ~select(poll_outages.c.name)
        .where(poll_outages.c.name == events.c.account)
        .correlate(events)
        .exists(),
    )
    return case(
        (is_forgotten, func.coalesce(ended, events.c.observed_awake)),
        (events.c.type.in_(TROUBLES), ended),
        else_=events.c.observed_awake,
    )

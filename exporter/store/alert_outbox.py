"""What an Alertmanager is owed: events that stay of interest for a while once they are taken."""

from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import BindParameter, ColumnElement, Connection, Select, bindparam, select, update

from exporter.core.account import RoutedEvents
from exporter.core.active_alerts import AlertRow
from exporter.core.events import ENDS, Event
from exporter.core.retry import CIRCUIT_CLOSED, CircuitState
from exporter.store.database import Database, in_store_thread
from exporter.store.events import DEAD, DELIVERED, DISCARDED, PENDING, event_of, record_events
from exporter.store.outbox import Backlog, Outbox, ReceiverState, store_health
from exporter.store.schema import deliveries, events

_NUMBER: Final[BindParameter[int]] = bindparam("of_event")
_AT: Final[BindParameter[float]] = bindparam("at")


@dataclass(frozen=True, slots=True)
class Findings:
    """What posts led to: which events were taken or given up, when (Unix seconds), and the rest.

    ``health`` is the receiver's, ``resume_at`` when it is to be tried again, and ``told`` are the
    events that follow, with the receivers to be told.
    """

    delivered: Mapping[int, float] = field(default_factory=dict)
    dead: Mapping[int, float] = field(default_factory=dict)
    health: CircuitState = CIRCUIT_CLOSED
    resume_at: float = 0.0
    told: RoutedEvents = ()


class AlertOutbox:
    """One Alertmanager's part of the outbox; nothing in it is frozen, so no message carries it."""

    def __init__(self, database: Database, receiver: str) -> None:
        self._database = database
        self._receiver = receiver
        self._outbox = Outbox(database, receiver)

    async def receiver_state(self) -> ReceiverState:
        """Return what is stored of the receiver; that of a well one when nothing is."""
        return await self._outbox.receiver_state()

    async def backlog(self) -> Backlog:
        """Return how many events no member has taken."""
        return await self._outbox.backlog()

    async def expire(self, before: float, now: float) -> int:
        """Give up what is owed since before ``before``; return how many events that were."""
        return await self._outbox.expire(before, now)

    @in_store_thread
    def version(self) -> Hashable:
        """Return what is another value once something happened or another process wrote.

        What this object stored makes no difference, and nothing else that runs in this process
        changes what an Alertmanager is owed: but old events are deleted.
        """
        # The id, not the number: that of an event that was deleted is given out again.
        newest = select(events.c.id).order_by(events.c.number.desc()).limit(1)
        with self._database.read() as connection:
            return self._database.external_changes(connection), connection.execute(newest).scalar()

    @in_store_thread
    def owed(self, since: float) -> list[AlertRow]:
        """Return what is pending, and what was taken after ``since`` (Unix seconds)."""
        # Two queries: with an OR, SQLite would read all that was ever delivered.
        pending = self._of_state(PENDING)
        taken = self._of_state(DELIVERED).where(deliveries.c.settled_at > since)
        with self._database.read() as connection:
            return [
                AlertRow(*row) for query in (pending, taken) for row in connection.execute(query)
            ]

    @in_store_thread
    def events(self, numbers: Collection[int]) -> dict[int, Event]:
        """Return events by their numbers, without those that are no longer there."""
        query = select(events).where(events.c.number.in_(numbers))
        with self._database.read() as connection:
            return {row.number: event_of(row) for row in connection.execute(query)}

    @in_store_thread
    def record(self, findings: Findings) -> list[float]:
        """Store what posts led to; return in how many seconds what is newly delivered was.

        Delivered wins: what another member or a person gave up meanwhile has arrived all the same.
        """
        with self._database.write() as connection:
            store_health(connection, self._receiver, findings.health, findings.resume_at)
            record_events(connection, findings.told)
            self._settle(connection, DEAD, findings.dead, (PENDING,))
            # Only the first member's 2xx counts: `hold` begins with it.
            first = (PENDING, DEAD, DISCARDED)
            observed = self._settle(connection, DELIVERED, findings.delivered, first)
        return [max(findings.delivered[number] - at, 0.0) for number, at in observed.items()]

    def _of_state(self, state: str) -> Select[Any]:
        return (
            select(events.c.number, events.c.observed_at, deliveries.c.settled_at, _left_at())
            .join(deliveries, deliveries.c.event == events.c.number)
            .where(self._mine(), deliveries.c.state == state)
        )

    def _settle(
        self, connection: Connection, to: str, settled: Mapping[int, float], states: Sequence[str]
    ) -> dict[int, float]:
        """Settle what is in one of ``states``; return when each of these was observed."""
        query = (
            select(events.c.number, events.c.observed_at, deliveries.c.state)
            .join(deliveries, deliveries.c.event == events.c.number)
            .where(self._mine(), deliveries.c.event.in_(settled))
        )
        # Their states are compared here: by them, SQLite might look for these among all.
        found = {n: at for n, at, state in connection.execute(query) if state in states}
        if found:
            # At once: to put a statement together takes many times as long as to run it.
            connection.execute(
                update(deliveries)
                .where(self._mine(), deliveries.c.event == _NUMBER)
                .values(state=to, settled_at=_AT),
                [{_NUMBER.key: number, _AT.key: settled[number]} for number in found],
            )
        return found

    def _mine(self) -> ColumnElement[bool]:
        return deliveries.c.receiver == self._receiver


def _left_at() -> Any:
    """Return when what an event tells of was over: at the next one that ends it, if any."""
    later = events.alias("later")
    return (
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

"""What an Alertmanager is owed: events that stay of interest for a while once they are taken."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, and_, select, update

from exporter.core.circuit import WELL, Health
from exporter.core.firing import ENDS, OwedAlert
from exporter.core.model import Event
from exporter.store.database import Database
from exporter.store.events import DEAD, DELIVERED, PENDING, Told, event_of, record_events
from exporter.store.outbox import Outbox
from exporter.store.receivers import Standing, store_health
from exporter.store.records import Backlog
from exporter.store.schema import deliveries, events


@dataclass(frozen=True, slots=True)
class Findings:
    """What posts led to: which events were taken or given up, when (Unix seconds), and the rest.

    ``health`` is the receiver's, ``resume_at`` when it is to be tried again, and ``told`` are the
    events that follow, with the receivers to be told.
    """

    delivered: Mapping[int, float] = field(default_factory=dict)
    dead: Mapping[int, float] = field(default_factory=dict)
    health: Health = WELL
    resume_at: float = 0.0
    told: Told = ()


class AlertOutbox:
    """One Alertmanager's part of the outbox; nothing in it is frozen, so no message carries it."""

    def __init__(self, database: Database, receiver: str) -> None:
        self._database = database
        self._receiver = receiver
        self._outbox = Outbox(database, receiver)

    async def standing(self) -> Standing:
        """Return what is stored of the receiver; that of a well one when nothing is."""
        return await self._outbox.standing()

    async def backlog(self) -> Backlog:
        """Return how many events no member has taken."""
        return await self._outbox.backlog()

    async def expire(self, before: float, now: float) -> int:
        """Give up what is owed since before ``before``; return how many events that were."""
        return await self._outbox.expire(before, now)

    async def owed(self, since: float) -> list[OwedAlert]:
        """Return what is pending, and what was taken after ``since`` (Unix seconds)."""
        return await self._database.run(self._owed, since)

    async def events(self, numbers: Collection[int]) -> dict[int, Event]:
        """Return events by their numbers, without those that are no longer there."""
        return await self._database.run(self._events, numbers)

    async def record(self, findings: Findings) -> list[float]:
        """Store what posts led to; return in how many seconds what is newly delivered was.

        Delivered wins: what another member or a person gave up meanwhile has arrived all the same.
        """
        return await self._database.run(self._record, findings)

    def _owed(self, since: float) -> list[OwedAlert]:
        # Two queries: with an OR, SQLite would read all that was ever delivered.
        pending = self._of_state(PENDING)
        taken = self._of_state(DELIVERED).where(deliveries.c.settled_at > since)
        with self._database.read() as connection:
            return [
                OwedAlert(*row) for query in (pending, taken) for row in connection.execute(query)
            ]

    def _of_state(self, state: str) -> Select[Any]:
        return (
            select(events.c.number, events.c.observed_at, deliveries.c.settled_at, _left_at())
            .join(deliveries, deliveries.c.event == events.c.number)
            .where(deliveries.c.receiver == self._receiver, deliveries.c.state == state)
        )

    def _events(self, numbers: Collection[int]) -> dict[int, Event]:
        query = select(events).where(events.c.number.in_(numbers))
        with self._database.read() as connection:
            return {row.number: event_of(row) for row in connection.execute(query)}

    def _record(self, findings: Findings) -> list[float]:
        with self._database.write() as connection:
            store_health(connection, self._receiver, findings.health, findings.resume_at)
            record_events(connection, findings.told)
            for number, at in findings.dead.items():
                given_up = update(deliveries).where(self._is(number), deliveries.c.state == PENDING)
                connection.execute(given_up.values(state=DEAD, settled_at=at))
            delays = [
                self._deliver(connection, number, at) for number, at in findings.delivered.items()
            ]
        return [delay for delay in delays if delay is not None]

    def _deliver(self, connection: Connection, number: int, at: float) -> float | None:
        # Only the first member's 2xx counts: `hold` begins with it.
        first = and_(self._is(number), deliveries.c.state != DELIVERED)
        values = {"state": DELIVERED, "settled_at": at}
        if not connection.execute(update(deliveries).where(first).values(values)).rowcount:
            return None
        observed = select(events.c.observed_at).where(events.c.number == number)
        observed_at: float = connection.execute(observed).scalar_one()
        return max(at - observed_at, 0.0)

    def _is(self, number: int) -> ColumnElement[bool]:
        return and_(deliveries.c.receiver == self._receiver, deliveries.c.event == number)


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

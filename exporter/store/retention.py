"""What keeps the state small: old events go. And what is owed to nobody configured shows."""

from collections.abc import Collection

from sqlalchemy import and_, delete, func, or_, select

from exporter.store.database import Database, in_store_thread
from exporter.store.events import DEAD, PENDING
from exporter.store.schema import deliveries, events, messages

_CHUNK = 500
"""How many events go in one transaction: a delivery must not wait for thousands."""


class Upkeep:
    """The work on the store that no receiver and no account is the owner of."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def delete_old(self, before: float) -> int:
        """Delete events observed and settled before ``before`` (Unix seconds), in small chunks.

        Returns how many. What is owed still, or was given up, stays.
        """
        deleted = 0
        while chunk := await self._database.run(self._delete_some, before):
            deleted += chunk
        if deleted:
            await self._database.run(self._delete_empty_messages)
        return deleted

    @in_store_thread
    def orphaned(self, receivers: Collection[str]) -> dict[str, int]:
        """Return how many events are owed to, or were given up for, receivers not among these."""
        query = (
            select(deliveries.c.receiver, func.count())
            .where(deliveries.c.receiver.not_in(receivers), deliveries.c.state.in_([PENDING, DEAD]))
            .group_by(deliveries.c.receiver)
        )
        with self._database.read() as connection:
            return {row[0]: row[1] for row in connection.execute(query)}

    def _delete_some(self, before: float) -> int:
        kept = and_(
            deliveries.c.event == events.c.number,
            or_(deliveries.c.state.in_([PENDING, DEAD]), deliveries.c.settled_at >= before),
        )
        old = (
            select(events.c.number)
            .where(events.c.observed_at < before, ~select(deliveries.c.event).where(kept).exists())
            .order_by(events.c.number)
            .limit(_CHUNK)
        )
        with self._database.read() as connection:
            numbers = list(connection.execute(old).scalars())
        if numbers:
            with self._database.write() as connection:
                connection.execute(delete(deliveries).where(deliveries.c.event.in_(numbers)))
                connection.execute(delete(events).where(events.c.number.in_(numbers)))
        return len(numbers)

    def _delete_empty_messages(self) -> None:
        carries = and_(
            deliveries.c.receiver == messages.c.receiver, deliveries.c.message == messages.c.id
        )
        with self._database.write() as connection:
            connection.execute(
                delete(messages).where(~select(deliveries.c.event).where(carries).exists())
            )

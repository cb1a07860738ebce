"""Deletion of old events, and the count of orphaned deliveries."""

from collections.abc import Collection
from typing import Final

from sqlalchemy import and_, delete, func, or_, select

from exporter.store.database import Database, in_store_thread
from exporter.store.events import DEAD, PENDING
from exporter.store.schema import deliveries, events, messages

_BATCH_EVENTS: Final = 500
"""Events per transaction: a delivery must not wait for the deletion of thousands."""


class Retention:
    """Store maintenance that belongs to no account and no receiver."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def delete_old(self, before: float) -> int:
        """Delete events observed and settled before ``before`` (Unix seconds), in batches.

        Returns the number of events. One with a pending or dead delivery is kept.
        """
        deleted = 0
        while batch := await self._delete_batch(before):
            deleted += batch
        if deleted:
            await self._delete_empty_messages()
        return deleted

    @in_store_thread
    def orphaned(self, receivers: Collection[str]) -> dict[str, int]:
        """Return the number of pending and dead deliveries by receiver, without ``receivers``."""
        query = (
            select(deliveries.c.receiver, func.count())
            .where(deliveries.c.receiver.not_in(receivers), deliveries.c.state.in_([PENDING, DEAD]))
            .group_by(deliveries.c.receiver)
        )
        with self._database.read() as connection:
            return {row[0]: row[1] for row in connection.execute(query)}

    @in_store_thread
    def _delete_batch(self, before: float) -> int:
        kept = and_(
            deliveries.c.event == events.c.number,
            or_(deliveries.c.state.in_([PENDING, DEAD]), deliveries.c.settled_at >= before),
        )
        old = (
            select(events.c.number)
            .where(events.c.observed_at < before, ~select(deliveries.c.event).where(kept).exists())
            .order_by(events.c.number)
            .limit(_BATCH_EVENTS)
        )
        with self._database.read() as connection:
            numbers = list(connection.execute(old).scalars())
        if numbers:
            with self._database.write() as connection:
                connection.execute(delete(deliveries).where(deliveries.c.event.in_(numbers)))
                connection.execute(delete(events).where(events.c.number.in_(numbers)))
        return len(numbers)

    @in_store_thread
    def _delete_empty_messages(self) -> None:
        carried = and_(
            deliveries.c.receiver == messages.c.receiver, deliveries.c.message == messages.c.id
        )
        with self._database.write() as connection:
            connection.execute(
                delete(messages).where(~select(deliveries.c.event).where(carried).exists())
            )

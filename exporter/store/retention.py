"""Deletion of old events, and the count of orphaned deliveries."""

from collections.abc import Callable, Collection, Mapping
from typing import Final

from sqlalchemy import ColumnElement, and_, delete, func, or_, select, update

from exporter.core.events import ENDS, LASTING, TROUBLES
from exporter.core.model import AccountKey
from exporter.core.ownership import Claim
from exporter.store.database import Database, in_store_thread
from exporter.store.events import UNFINISHED, later_end
from exporter.store.history import delete_history
from exporter.store.mutes import delete_ended
from exporter.store.schema import CARRIES_NOTHING, accounts, deliveries, events, messages

_BATCH_EVENTS: Final = 500
"""Events per transaction: a delivery must not wait for the deletion of thousands."""


class Retention:
    """Store maintenance that belongs to no account and no receiver.

    ``claim`` returns the claim of the agent that does it, None without replicas.
    """

    def __init__(
        self, database: Database, claim: Callable[[], Claim | None] = lambda: None
    ) -> None:
        self._database = database
        self.claim = claim

    @property
    def database(self) -> Database:
        """The database that is maintained."""
        return self._database

    async def delete_old(self, before: float, needed: float) -> int:
        """Delete events observed and settled before ``before`` (Unix seconds), in batches.

        Returns the number of events. Kept are events with a pending, muted or dead delivery, those
        observed or settled within the last ``needed`` awake seconds, whatever the wall clock says,
        those that end one of these, and the troubles of the agent that have not ended.
        """
        deleted = 0
        while batch := await self._delete_batch(before, self._database.awake.now() - needed):
            deleted += batch
        if deleted:
            await self._delete_empty_messages()
        return deleted

    @in_store_thread
    def delete_history(self, before: float) -> None:
        """Delete the history for the pages, and the mutes, that ended before ``before``.

        It is Unix seconds. A mute that a delivery still names stays.
        """
        with self._database.write(self.claim()) as connection:
            delete_history(connection, before)
            delete_ended(connection, before)

    @in_store_thread
    def store_reads(self, read_at: Mapping[AccountKey, float]) -> None:
        """Store the times of the last complete polls (Unix seconds): most polls store nothing."""
        with self._database.write() as connection:
            for key, at in read_at.items():
                of_account = and_(accounts.c.name == key.name, accounts.c.base_url == key.base_url)
                connection.execute(update(accounts).where(of_account).values(read_at=at))

    @in_store_thread
    def orphaned(self, receivers: Collection[str]) -> dict[str, int]:
        """Return the number of unfinished deliveries by receiver, without ``receivers``."""
        query = (
            select(deliveries.c.receiver, func.count())
            .where(deliveries.c.receiver.not_in(receivers), deliveries.c.state.in_(UNFINISHED))
            .group_by(deliveries.c.receiver)
        )
        with self._database.read() as connection:
            return {row[0]: row[1] for row in connection.execute(query)}

    @in_store_thread
    def _delete_batch(self, before: float, before_awake: float) -> int:
        kept = or_(_is_needed(before_awake), deliveries.c.settled_at >= before)
        is_kept = select(deliveries.c.event).where(deliveries.c.event == events.c.number, kept)
        old = (
            select(events.c.number)
            .where(
                events.c.observed_at < before,
                events.c.observed_awake < before_awake,
                ~is_kept.exists(),
                ~_ends_a_needed_event(before_awake),
                or_(events.c.type.not_in(LASTING), later_end() < before_awake),
            )
            .order_by(events.c.number)
            .limit(_BATCH_EVENTS)
        )
        with self._database.read() as connection:
            numbers = list(connection.execute(old).scalars())
        if numbers:
            with self._database.write(self.claim()) as connection:
                connection.execute(delete(deliveries).where(deliveries.c.event.in_(numbers)))
                connection.execute(delete(events).where(events.c.number.in_(numbers)))
        return len(numbers)

    @in_store_thread
    def _delete_empty_messages(self) -> None:
        with self._database.write(self.claim()) as connection:
            connection.execute(delete(messages).where(CARRIES_NOTHING))


def _is_needed(before_awake: float) -> ColumnElement[bool]:
    """Return the condition for a delivery that is not settled, or only since ``before_awake``."""
    unsettled = deliveries.c.state.in_(UNFINISHED)
    return or_(unsettled, deliveries.c.settled_awake >= before_awake)


def _ends_a_needed_event(before_awake: float) -> ColumnElement[bool]:
    """Return the condition for an event that ended a trouble whose delivery is needed."""
    previous, trouble = events.alias("previous"), events.alias("trouble")
    previous_end = (
        select(previous.c.number)
        .where(
            previous.c.account == events.c.account,
            previous.c.subject == events.c.subject,
            previous.c.number < events.c.number,
            previous.c.type.in_(ENDS),
        )
        .order_by(previous.c.number.desc())
        .limit(1)
        .scalar_subquery()
        .correlate(events)
    )
    # A failure ends an alert and begins one: the previous end may be the trouble itself.
    ended = (
        select(trouble.c.number)
        .join(deliveries, deliveries.c.event == trouble.c.number)
        .where(
            trouble.c.account == events.c.account,
            trouble.c.subject == events.c.subject,
            trouble.c.number < events.c.number,
            trouble.c.number >= func.coalesce(previous_end, 0),
            trouble.c.type.in_(TROUBLES),
            _is_needed(before_awake),
        )
        .correlate(events)
    )
    return and_(events.c.type.in_(ENDS), ended.exists())

"""Old events are deleted when they are settled, and only then; orphaned deliveries are counted."""

import pytest

from exporter.store.events import DEAD, DELIVERED, PENDING
from exporter.store.outbox import Outbox
from exporter.store.retention import Retention
from tests.store.raw_sqlite import count_rows
from tests.store.sample_outbox import attempt_digest
from tests.store.sample_polls import (
    NOW,
    commit_snapshot,
    fine_tune,
    queue_failures,
    snapshot_of,
)

DAY = 86400.0


@pytest.mark.parametrize(
    ("state", "settled_at", "before", "left"),
    [
        (DELIVERED, NOW, NOW + 1, 0),  # delivered long ago
        (DELIVERED, NOW + DAY, NOW + DAY, 3),  # delivered recently
        (DELIVERED, NOW, NOW, 3),  # observed recently
        (DEAD, NOW, NOW + 900 * DAY, 3),
        (PENDING, NOW, NOW + 900 * DAY, 3),
    ],
)
async def test_only_old_settled_events_are_deleted(database, state, settled_at, before, left):
    await queue_failures(database, 3)
    await attempt_digest(database, "slack", state, settled_at)
    assert await Retention(database).delete_old(before, -900 * DAY) == 3 - left
    tables = ("events", "deliveries", "messages")
    assert [count_rows(database.path, name) for name in tables] == [left, left, bool(left)]


async def test_a_pending_delivery_of_one_receiver_keeps_the_event(database):
    state = await commit_snapshot(database, None, snapshot_of())
    await commit_snapshot(database, state, snapshot_of(fine_tune("f", "failed")))
    await attempt_digest(database, "slack", DELIVERED)
    assert await Retention(database).delete_old(NOW + DAY, -1) == 0
    assert len(await Outbox(database, "webhook").unsent()) == 1


async def test_many_events_are_deleted_in_several_transactions(database, monkeypatch):
    """A delivery can be recorded between them."""
    await queue_failures(database, 1700)
    await attempt_digest(database, "slack", DELIVERED)
    transactions, real = [], database.write

    def counted():
        transactions.append(1)
        return real()

    monkeypatch.setattr(database, "write", counted)
    assert await Retention(database).delete_old(NOW + DAY, -1) == 1700
    assert len(transactions) == 5  # four batches, and the empty messages


async def test_pending_and_dead_deliveries_of_unknown_receivers_are_orphaned(database):
    await queue_failures(database, 2, "gone")
    retention = Retention(database)
    assert await retention.orphaned(["slack"]) == {"gone": 2}
    assert await retention.orphaned(["gone", "slack"]) == {}
    await attempt_digest(database, "gone", DEAD)
    assert await retention.orphaned([]) == {"gone": 2}


async def test_a_delivered_event_is_not_orphaned(database):
    await queue_failures(database, 2, "gone")
    await attempt_digest(database, "gone", DELIVERED)
    assert await Retention(database).orphaned([]) == {}

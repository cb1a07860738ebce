"""Large accounts: written in batches within one transaction, and held in memory once."""

import pytest

from exporter.core.model import FAILED
from exporter.store.accounts import Accounts
from exporter.store.errors import StoreError
from exporter.store.outbox import Outbox
from tests.store.raw_sql import accept_inserts, reject_inserts
from tests.store.sample_polls import KEY, commit_snapshot, fine_tune, snapshot_of

NUMBER = 1_201
"""More than a batch, and not a multiple of it."""


async def test_a_large_baseline_is_stored_as_a_whole_or_not_at_all(database):
    """Its last row, in the last batch, is rejected."""
    many = [fine_tune(f"ft_{n:04d}") for n in range(NUMBER)]
    await reject_inserts(database, "fine_tunes", f"WHEN (NEW.id = 'ft_{NUMBER - 1:04d}')")
    with pytest.raises(StoreError, match="no room"):
        await commit_snapshot(database, None, snapshot_of(*many))
    assert await Accounts(database).load(KEY) is None
    await accept_inserts(database)
    state = await commit_snapshot(database, None, snapshot_of(*many))
    assert await Accounts(database).load(KEY) == state
    assert len(state.tracked) == NUMBER


async def test_many_events_are_queued_once_and_in_order_also_when_stored_again(database):
    failed = [fine_tune(f"ft_{n:04d}", FAILED) for n in range(NUMBER)]
    state = await commit_snapshot(database, None, snapshot_of())
    for _ in range(2):
        await commit_snapshot(database, state, snapshot_of(*failed))
    queued = await Outbox(database, "slack").unsent()
    assert [each.event.subject for each in queued] == [each.id for each in failed]


async def test_texts_that_fine_tunes_share_are_held_once(database):
    await commit_snapshot(
        database, None, snapshot_of(*(fine_tune(x, dataset="d" * 9) for x in "ab"))
    )
    state = await Accounts(database).load(KEY)
    assert state is not None
    one, other = (each.fine_tune for each in state.tracked.values())
    for name in ("language", "model_id", "dataset", "status"):
        assert getattr(one, name) is getattr(other, name)

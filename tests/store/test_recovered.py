"""A recovery is queued for the receivers that were notified of the failure, and for no other."""

from typing import Any

import pytest
from msgspec.structs import replace

from exporter.core.account import AccountState
from exporter.store.accounts import Accounts
from exporter.store.database import Database
from exporter.store.events import DEAD, DELIVERED, DISCARDED, MUTED, PENDING
from exporter.store.retention import Retention
from tests.fakes.clock import FakeClock
from tests.store.raw_sql import execute
from tests.store.sample_outbox import attempt_digest
from tests.store.sample_polls import (
    KEY,
    commit_snapshot,
    fine_tune,
    poll_result,
    snapshot_of,
)

DAY = 86400.0


async def poll(
    database: Database, state: AccountState | None, statuses: str, *receivers: str
) -> AccountState:
    """Commit a poll per word: the status of the fine-tunes `a` and `b`."""
    for status in statuses.split():
        listed = [fine_tune(each, status) for each in "ab"]
        state = await commit_snapshot(database, state, snapshot_of(*listed), receivers)
    assert state is not None
    return state


async def recoveries(database: Database) -> list[Any]:
    """Return fine-tune and receiver of each stored recovery, those without a receiver too."""
    query = (
        "SELECT subject, receiver FROM events LEFT JOIN deliveries ON event = number"
        " WHERE type = 'fine_tune.recovered' ORDER BY number, receiver"
    )
    return await execute(database, query)


@pytest.mark.parametrize("status", ["created", "training", "completed"])
async def test_it_is_queued_for_those_who_were_notified_of_the_failure(database, status):
    state = await poll(database, None, "training failed", "slack", "webhook")
    await attempt_digest(database, "slack", DELIVERED)
    state = await poll(database, state, status, "slack", "webhook", "new")
    assert await recoveries(database) == [], "one poll does not confirm it"
    await poll(database, state, f"{status} {status}", "slack", "webhook", "new")
    assert await recoveries(database) == [
        (each, to) for each in "ab" for to in ("slack", "webhook")
    ]


@pytest.mark.parametrize("state", [DEAD, DISCARDED, MUTED])
async def test_a_receiver_that_was_not_notified_gets_none(database, state):
    known = await poll(database, None, "training failed", "slack", "webhook")
    await attempt_digest(database, "slack", PENDING)
    await execute(database, "UPDATE deliveries SET state = :s WHERE receiver = 'slack'", s=state)
    await poll(database, known, "training training", "slack", "webhook")
    assert await recoveries(database) == [("a", "webhook"), ("b", "webhook")]


async def test_the_last_failure_decides(database):
    state = await poll(database, None, "training failed", "slack")
    state = await poll(database, state, "training training")
    state = await poll(database, state, "failed", "webhook")
    await poll(database, state, "training training", "slack", "webhook")
    assert await recoveries(database) == [("a", "webhook"), ("b", "webhook")]


async def test_a_recovery_that_nobody_gets_is_not_stored(database):
    state = await poll(database, None, "failed training training", "slack")
    state = await poll(database, state, "failed")
    await poll(database, state, "training training", "slack")
    assert await recoveries(database) == []


async def test_a_failure_in_another_account_or_of_another_fine_tune_does_not_count(database):
    elsewhere = replace(KEY, name="elsewhere")
    for key, ids in ((elsewhere, "ab"), (KEY, "b")):
        accounts = Accounts(database)
        result = poll_result(None, snapshot_of(), key=key)
        await accounts.commit(result)
        failed = snapshot_of(*(fine_tune(each, "failed") for each in ids))
        await accounts.commit(poll_result(result.state, failed, key=key))
    state = await Accounts(database).load(KEY)
    await poll(database, state, "failed", "webhook")
    state = await Accounts(database).load(KEY)
    await poll(database, state, "training training", "slack")
    assert await recoveries(database) == [("b", "slack")]


async def test_a_commit_repeated_after_a_crash_queues_it_once(database):
    state = await poll(database, None, "training failed training", "slack")
    result = poll_result(state, snapshot_of(*(fine_tune(each) for each in "ab")), ["slack"])
    for _ in range(2):
        await Accounts(database).commit(result)
    assert await recoveries(database) == [("a", "slack"), ("b", "slack")]


async def test_a_failure_deleted_by_the_retention_has_no_recovery(database, clock: FakeClock):
    state = await poll(database, None, "training failed", "slack")
    await attempt_digest(database, "slack", DELIVERED)
    clock.now += 91 * DAY
    assert await Retention(database).delete_old(clock.clock.now() - 90 * DAY, 3600.0) == 2
    await poll(database, state, "training training", "slack")
    assert await recoveries(database) == []


async def test_more_than_a_batch_is_queued(database):
    ids = [f"f{number}" for number in range(1_201)]
    state = None
    for status in ("training", "failed", "training", "training"):
        listed = [fine_tune(each, status) for each in ids]
        state = await commit_snapshot(database, state, snapshot_of(*listed), ["slack"])
    assert await recoveries(database) == [(each, "slack") for each in ids]

"""Old events are deleted when they are settled, and only then; orphaned deliveries are counted."""

from collections.abc import Awaitable, Callable

import pytest
from sqlalchemy import Table, select

from exporter.core.events import Event, EventType
from exporter.core.model import AccountKey, Outage
from exporter.store.accounts import Accounts
from exporter.store.database import Database
from exporter.store.events import DEAD, DELIVERED, PENDING
from exporter.store.outbox import Outbox
from exporter.store.retention import Retention
from exporter.store.schema import accounts, attempts, hourly_counts, outages, trainings
from tests.fakes.clock import FakeClock
from tests.store.raw_sql import count_rows, execute
from tests.store.sample_outbox import attempt_digest, queue_events
from tests.store.sample_polls import (
    KEY,
    NOW,
    commit_snapshot,
    fine_tune,
    poll_result,
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
    assert [await count_rows(database, name) for name in tables] == [left, left, bool(left)]


async def test_a_pending_delivery_of_one_receiver_keeps_the_event(database):
    state = await commit_snapshot(database, None, snapshot_of())
    await commit_snapshot(database, state, snapshot_of(fine_tune("f", "failed")))
    await attempt_digest(database, "slack", DELIVERED)
    assert await Retention(database).delete_old(NOW + DAY, -1) == 0
    assert len(await Outbox(database, "webhook").unsent()) == 1


@pytest.fixture
def record(database: Database, clock: FakeClock) -> Callable[..., Awaitable[None]]:
    """Record an event of the fine-tune or receiver `subject`, and queue it for the receivers."""

    async def record(event_type: EventType, *receivers: str, subject: str = "x") -> None:
        clock.now += 1
        fields = (
            {"fine_tune": fine_tune(subject)}
            if event_type.startswith("fine_tune")
            else {"facts": {"receiver": subject}}
        )
        event = Event(f"evt{clock.now}", event_type, "main", clock.clock.now(), **fields)
        await queue_events(database, [event], *receivers)

    return record


async def delete_old(database: Database, clock: FakeClock) -> list[str]:
    """Delete what is older than a day, and not needed for an hour; return the types that stay."""
    await Retention(database).delete_old(clock.clock.now() - DAY, 3600.0)
    rows = await execute(database, "SELECT type FROM events ORDER BY number")
    return [row[0] for row in rows]


@pytest.mark.parametrize("years", [-30, 30])
async def test_a_wrong_wall_clock_deletes_nothing_that_is_needed(database, clock, record, years):
    await record("fine_tune.failed", "slack")
    await attempt_digest(database, "slack", DELIVERED)
    await record("fine_tune.completed")
    clock.set_by = years * 365 * DAY
    assert len(await delete_old(database, clock)) == 2
    clock.now += 3601
    assert len(await delete_old(database, clock)) == (0 if years > 0 else 2)


async def test_a_clock_that_is_ahead_deletes_neither_new_nor_newly_delivered_events(
    database, clock, record
):
    await record("fine_tune.failed", "slack")
    clock.now += 7200
    await attempt_digest(database, "slack", DELIVERED, clock.now)
    await record("fine_tune.created", subject="another")
    clock.set_by = 10_000 * DAY
    assert await delete_old(database, clock) == ["fine_tune.failed", "fine_tune.created"]
    clock.now += 3601
    assert await delete_old(database, clock) == []


@pytest.mark.parametrize("state", [PENDING, DEAD])
@pytest.mark.parametrize("trouble", ["fine_tune.failed", "fine_tune.stuck"])
async def test_the_event_that_ends_an_unsettled_trouble_is_kept(
    database, clock, record, trouble, state
):
    await record("fine_tune.completed")
    await record(trouble, "am", subject="other")
    await record(trouble, "am")
    await record("fine_tune.removed")
    await record("fine_tune.changed")
    await record("fine_tune.completed")
    await attempt_digest(database, "am", state)
    clock.now += 900 * DAY
    kept = [trouble, trouble, "fine_tune.changed"]
    assert await delete_old(database, clock) == kept
    await execute(database, "UPDATE deliveries SET state = 'discarded', settled_awake = 0")
    assert await delete_old(database, clock) == []


async def test_a_failure_that_ends_a_failure_is_kept_with_it(database, clock, record):
    await record("fine_tune.failed", "am")
    await record("fine_tune.failed")
    await record("fine_tune.failed")
    clock.now += 900 * DAY
    assert await delete_old(database, clock) == ["fine_tune.failed"] * 2


@pytest.mark.parametrize(
    ("begin", "end"),
    [
        ("agent.poll_failing", "agent.poll_recovered"),
        ("agent.receiver_unhealthy", "agent.receiver_recovered"),
    ],
)
async def test_a_trouble_of_the_agent_is_kept_until_an_hour_after_its_end(
    database, clock, record, begin, end
):
    await record(begin, "am", subject="chat")
    await attempt_digest(database, "am", DELIVERED)
    await record(end, subject="another")
    clock.now += 900 * DAY
    assert await delete_old(database, clock) == [begin]
    await record(end, subject="chat")
    clock.now += 3600
    assert await delete_old(database, clock) == [begin, end]
    clock.now += 2 * DAY
    assert await delete_old(database, clock) == []


async def test_many_events_are_deleted_in_several_transactions(database, monkeypatch):
    """A delivery can be recorded between them."""
    await queue_failures(database, 1700)
    await attempt_digest(database, "slack", DELIVERED)
    transactions, real = [], database.write

    def counted(claim=None):
        transactions.append(1)
        return real(claim)

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


async def column(database: Database, table: Table, name: str) -> list[float]:
    """Return a column of a table of the history, in order."""

    def read() -> list[float]:
        with database.read() as connection:
            return sorted(connection.scalars(select(table.c[name])))

    return await database.run(read)


async def test_history_is_deleted_after_its_end(database):
    state = None
    for day in range(3):
        at = NOW + day * DAY
        await Accounts(database).store_outage(KEY, Outage(at - 60, 0.0, has_baseline=True), ())
        training, failed = fine_tune(f"f{day}"), fine_tune(f"f{day}", "failed")
        state = await commit_snapshot(database, state, snapshot_of(training, at=at))
        state = await commit_snapshot(database, state, snapshot_of(failed, at=at))
        await attempt_digest(database, "slack", DELIVERED, at)
    retention, ends = Retention(database), [NOW, NOW + DAY, NOW + 2 * DAY]
    history = [(trainings, "ended_at"), (outages, "until"), (attempts, "at")]
    for before, left in ((NOW, ends), (NOW + 1, ends[1:]), (NOW + 2 * DAY, ends[2:])):
        await retention.delete_history(before)
        for table, name in history:
            assert await column(database, table, name) == left, table.name
    await retention.delete_history(NOW + 3 * DAY)
    assert [await column(database, *each) for each in history] == [[], [], []]


async def test_the_counts_that_still_hold_are_kept(database):
    state = None
    for hour in (0, 2, 9):
        snapshot = snapshot_of(*map(fine_tune, map(str, range(hour + 1))), at=NOW + hour * 3600)
        state = await commit_snapshot(database, state, snapshot)
    first = int(NOW // 3600)
    retention = Retention(database)
    for hour, left in ((0, [0, 2, 9]), (1, [0, 2, 9]), (2, [2, 9]), (8, [2, 9]), (99, [9])):
        await retention.delete_history(NOW + hour * 3600)
        kept = [each - first for each in await column(database, hourly_counts, "hour")]
        assert kept == left, hour


async def test_the_times_of_reads_are_stored_by_account(database):
    await commit_snapshot(database, None, snapshot_of())
    other, unknown = AccountKey(KEY.name, "https://eu.example"), AccountKey("new", KEY.base_url)
    await Accounts(database).commit(poll_result(None, snapshot_of(), key=other))
    await Retention(database).store_reads({KEY: NOW + 60, unknown: NOW + 90})
    assert await column(database, accounts, "read_at") == [NOW, NOW + 60]

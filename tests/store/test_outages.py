"""Outages: stored when they are reported, ended by a poll that succeeds."""

import pytest
from msgspec.structs import replace
from sqlalchemy import select

from exporter.core.events import Event
from exporter.core.model import AccountKey, Outage
from exporter.store.accounts import Accounts, StoredOutage
from exporter.store.database import Database
from exporter.store.errors import StoreError
from exporter.store.outbox import Outbox
from exporter.store.schema import outages
from tests.store.raw_sql import reject_inserts
from tests.store.sample_polls import (
    KEY,
    NOW,
    commit_snapshot,
    fine_tune,
    poll_result,
    snapshot_of,
)

FAILING = Event("evt_f", "agent.poll_failing", KEY.name, NOW, facts={"reason": "timeout"})
RECOVERED = Event("evt_r", "agent.poll_recovered", KEY.name, NOW + 60)


def for_slack(*events: Event) -> list[tuple[Event, list[str]]]:
    return [(event, ["slack"]) for event in events]


async def queued(database: Database) -> list[Event]:
    return [each.event for each in await Outbox(database, "slack").unsent()]


def outage(since: float = NOW, since_awake: float = 0.0) -> Outage:
    return Outage(since, since_awake, has_baseline=True)


async def test_an_outage_survives_a_restart(location):
    async with Database(location) as database:
        assert await Accounts(database).outage(KEY) is None
        began = outage(NOW + 0.123456789, 5.123456789)
        await Accounts(database).store_outage(KEY, began, ())
    async with Database(location) as database:
        stored = StoredOutage(NOW + 0.123456789, 5.123456789, reported=False)
        assert await Accounts(database).outage(KEY) == stored
        assert await queued(database) == []


async def test_a_stored_outage_keeps_its_start_and_queues_its_report_once(database):
    accounts = Accounts(database)
    await accounts.store_outage(KEY, outage(), ())
    reported = StoredOutage(NOW, 0.0, reported=True)
    for events in (for_slack(FAILING), for_slack(FAILING), ()):
        assert await accounts.store_outage(KEY, outage(NOW + 60, 60.0), events) == reported
    assert await queued(database) == [FAILING]


async def test_an_outage_and_its_deliveries_are_stored_together_or_not_at_all(database):
    await reject_inserts(database, "deliveries")
    with pytest.raises(StoreError, match="no room"):
        await Accounts(database).store_outage(KEY, outage(), for_slack(FAILING))
    assert await Accounts(database).outage(KEY) is None


async def test_a_poll_without_changes_ends_an_outage(database):
    accounts = Accounts(database)
    state = await commit_snapshot(database, None, snapshot_of(fine_tune("a")))
    await accounts.store_outage(KEY, outage(), for_slack(FAILING))
    result = poll_result(state, snapshot_of(fine_tune("a"), at=NOW + 60))
    assert result.is_empty
    result = replace(result, recovery=for_slack(RECOVERED))
    assert not result.is_empty
    await accounts.commit(result)
    assert await accounts.outage(KEY) is None
    assert await queued(database) == [FAILING, RECOVERED]


async def test_the_end_of_an_outage_that_was_not_reported_queues_nothing(database):
    accounts = Accounts(database)
    await accounts.store_outage(KEY, outage(), ())
    result = poll_result(None, snapshot_of())
    await accounts.commit(replace(result, recovery=for_slack(RECOVERED)))
    assert await accounts.outage(KEY) is None
    assert await queued(database) == []


async def test_only_the_outages_of_other_accounts_are_deleted(database):
    accounts, other = Accounts(database), AccountKey("second", KEY.base_url)
    moved = AccountKey(KEY.name, "https://eu.example")
    for key in (KEY, other, moved):
        await accounts.store_outage(key, outage(), ())
    await accounts.delete_outages(other_than=[KEY, AccountKey("new", KEY.base_url)])
    assert await accounts.outage(KEY) is not None
    assert await accounts.outage(other) is await accounts.outage(moved) is None


async def test_without_a_stored_outage_no_recovery_is_queued(database):
    result = poll_result(None, snapshot_of())
    await Accounts(database).commit(replace(result, recovery=for_slack(RECOVERED)))
    assert await queued(database) == []


@pytest.mark.parametrize(
    "other", [AccountKey(KEY.name, "https://eu.example"), AccountKey("second", KEY.base_url)]
)
async def test_accounts_have_separate_outages(database, other):
    accounts = Accounts(database)
    await accounts.store_outage(KEY, outage(), for_slack(FAILING))
    assert await accounts.outage(other) is None
    result = poll_result(None, snapshot_of(), key=other)
    await accounts.commit(replace(result, recovery=for_slack(RECOVERED)))
    assert await accounts.outage(KEY) is not None


async def test_the_end_of_an_outage_is_kept_as_history(database):
    accounts = Accounts(database)
    for since, events in ((NOW, for_slack(FAILING)), (NOW + 300, ())):
        began = replace(outage(since), reason="timeout")
        await accounts.store_outage(KEY, began, events)
        await accounts.commit(poll_result(None, snapshot_of(at=since + 60)))
    assert await ended_outages(database) == [
        (KEY, NOW, NOW + 60, "timeout"),
        (KEY, NOW + 300, NOW + 360, "timeout"),
    ]
    await accounts.commit(poll_result(None, snapshot_of(at=NOW + 500)))
    assert len(await ended_outages(database)) == 2


async def test_the_outage_of_a_removed_account_is_no_history(database):
    await Accounts(database).store_outage(KEY, outage(), ())
    await Accounts(database).delete_outages(other_than=())
    assert await ended_outages(database) == []


async def ended_outages(database: Database) -> list[tuple[AccountKey, float, float, str]]:
    """Return account, start, end and reason of the outages that ended."""

    def read() -> list[tuple[AccountKey, float, float, str]]:
        with database.read() as connection:
            rows = connection.execute(select(outages).order_by(outages.c.number))
            return [
                (AccountKey(row.account, row.base_url), row.since, row.until, row.reason)
                for row in rows
            ]

    return await database.run(read)

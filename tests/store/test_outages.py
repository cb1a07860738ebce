"""An outage that was told is kept until a poll ends it, and only what was told has an end."""

import asyncio
from dataclasses import replace

import pytest

from exporter.core.events import Event
from exporter.core.model import AccountKey
from exporter.store.accounts import Accounts
from exporter.store.database import Database
from exporter.store.errors import StoreError
from exporter.store.outbox import Outbox
from tests.store.sample_polls import KEY, NOW, committed, fine_tune, reading, record_of

FAILING = Event("evt_f", "agent.poll_failing", KEY.name, NOW, facts={"reason": "timeout"})
RECOVERED = Event("evt_r", "agent.poll_recovered", KEY.name, NOW + 60)


def owed(*events: Event) -> list[tuple[Event, list[str]]]:
    return [(event, ["slack"]) for event in events]


async def told(database: Database) -> list[Event]:
    return [each.event for each in await Outbox(database, "slack").unsent()]


def test_an_outage_survives_a_restart_with_what_is_owed_for_it(tmp_path):
    async def run() -> None:
        async with Database(tmp_path / "state.db") as database:
            assert await Accounts(database).outage_since(KEY) is None
            await Accounts(database).begin_outage(KEY, NOW + 0.123456789, owed(FAILING))
        async with Database(tmp_path / "state.db") as database:
            assert await Accounts(database).outage_since(KEY) == NOW + 0.123456789
            assert await told(database) == [FAILING]

    asyncio.run(run())


def test_begun_again_it_stays_and_owes_nothing_new(tmp_path):
    async def run() -> None:
        async with Database(tmp_path / "state.db") as database:
            accounts = Accounts(database)
            await accounts.begin_outage(KEY, NOW, owed(FAILING))
            await accounts.begin_outage(KEY, NOW + 60, owed(FAILING))
            assert await accounts.outage_since(KEY) == NOW
            assert await told(database) == [FAILING]

    asyncio.run(run())


def test_an_outage_and_what_is_owed_for_it_are_stored_together_or_not_at_all(tmp_path):
    async def run() -> None:
        async with Database(tmp_path / "state.db") as database:

            def forbid() -> None:
                with database.write() as connection:
                    connection.exec_driver_sql(
                        "CREATE TRIGGER no BEFORE INSERT ON deliveries "
                        "BEGIN SELECT RAISE(ABORT, 'no room'); END"
                    )

            await database.run(forbid)
            with pytest.raises(StoreError, match="no room"):
                await Accounts(database).begin_outage(KEY, NOW, owed(FAILING))
            assert await Accounts(database).outage_since(KEY) is None

    asyncio.run(run())


def test_a_poll_that_found_nothing_new_ends_it_as_well(tmp_path):
    async def run() -> None:
        async with Database(tmp_path / "state.db") as database:
            accounts = Accounts(database)
            state = await committed(database, None, reading(fine_tune("a")))
            await accounts.begin_outage(KEY, NOW, owed(FAILING))
            record = record_of(state, reading(fine_tune("a"), at=NOW + 60))
            assert record.is_empty
            record = replace(record, recovery=owed(RECOVERED))
            assert not record.is_empty
            await accounts.commit(record)
            assert await accounts.outage_since(KEY) is None
            assert await told(database) == [FAILING, RECOVERED]

    asyncio.run(run())


def test_what_was_not_told_has_no_end_to_tell(tmp_path):
    async def run() -> None:
        async with Database(tmp_path / "state.db") as database:
            record = record_of(None, reading())
            await Accounts(database).commit(replace(record, recovery=owed(RECOVERED)))
            assert await told(database) == []

    asyncio.run(run())


@pytest.mark.parametrize(
    "other", [AccountKey(KEY.name, "https://eu.example"), AccountKey("second", KEY.base_url)]
)
def test_the_outages_of_two_accounts_do_not_meet(tmp_path, other):
    async def run() -> None:
        async with Database(tmp_path / "state.db") as database:
            accounts = Accounts(database)
            await accounts.begin_outage(KEY, NOW, owed(FAILING))
            assert await accounts.outage_since(other) is None
            record = record_of(None, reading(), key=other)
            await accounts.commit(replace(record, recovery=owed(RECOVERED)))
            assert await accounts.outage_since(KEY) == NOW

    asyncio.run(run())

"""The store behind PgBouncer in transaction mode: each transaction may have another session."""

import asyncio
import time

import pytest
from msgspec.structs import replace

from exporter.core.model import AccountKey
from exporter.store.accounts import Accounts
from exporter.store.database import Database
from exporter.store.errors import StoreError
from exporter.store.event_lists import EventFilter, Events
from exporter.store.events import DELIVERED
from exporter.store.location import PostgresLocation
from exporter.store.outbox import Outbox
from exporter.store.pages import PageRequest
from tests.pgbouncer import pgbouncer
from tests.postgres_server import location_of
from tests.store.raw_sql import execute
from tests.store.sample_outbox import attempt, create_messages, queue
from tests.store.sample_polls import KEY, fine_tune, poll_result, snapshot_of


@pytest.fixture(scope="module")
def port(postgres):
    with pgbouncer(postgres) as bouncer:
        yield bouncer.port


@pytest.fixture
def location(postgres, port) -> PostgresLocation:
    database = postgres.emptied_database()
    return location_of(postgres.url(database, port=port))


async def test_pollers_deliverers_and_pages_work_side_by_side(location):
    async with Database(location) as first, Database(location) as second, first.reader() as reader:
        version = await reader.version()

        async def poll(database: Database, key: AccountKey) -> None:
            state = None
            for status in ("training", "failed", "completed"):
                listed = [fine_tune(f"f{n}", status) for n in range(300)]
                result = poll_result(state, snapshot_of(*listed), ["slack"], key)
                await Accounts(database).commit(result)
                state = result.state
            assert await Accounts(database).load(key) == state

        async def deliver(database: Database, receiver: str) -> None:
            await queue(database, range(5), receiver)
            await create_messages(database, receiver)
            for _ in range(5):
                await attempt(database, receiver, DELIVERED)

        keys = [AccountKey(str(n), KEY.base_url) for n in range(2)]
        async with asyncio.timeout(60):
            await asyncio.gather(poll(first, keys[0]), poll(second, keys[1]))
            await asyncio.gather(deliver(first, "ops"), queue(second, range(100, 110), "chat"))
        assert (await Outbox(second, "ops").backlog()).pending == 0
        assert len(await Outbox(second, "slack").unsent()) == 600
        assert await reader.version() != version
        page = await reader.read(
            lambda connection: Events(connection, {}, 0.0).page(EventFilter(), PageRequest(50))
        )
        assert len(page.elements) == 50


async def test_timeouts_hold_for_one_transaction_only(location):
    async with Database(location) as database:
        show = "SHOW idle_in_transaction_session_timeout"

        def within() -> object:
            with database.write() as connection:
                return connection.exec_driver_sql(show).scalar()

        assert await database.run(within) == "6s"
        for _ in range(5):
            assert await execute(database, show) == [("0",)]


async def test_an_agent_that_pauses_within_a_transaction_stores_nothing_and_works_again(location):
    async with Database(replace(location, lease=2.0)) as database:

        def pause() -> None:
            with database.write() as connection:
                connection.exec_driver_sql("DELETE FROM awake_clock")
                time.sleep(1.5)

        with pytest.raises(StoreError):
            await database.run(pause)
        await queue(database, [1], "slack")
        assert await execute(database, "SELECT count(*) FROM awake_clock") == [(1,)]

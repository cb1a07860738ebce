"""Once a minute: the store is tried, orphans are counted and told, old events go."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass

from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from exporter.agent.housekeeping import Housekeeper, HousekeepingSettings
from exporter.store.database import Database
from exporter.store.events import DELIVERED
from exporter.store.retention import Retention
from tests.fakes.clock import FakeClock
from tests.store.sample_outbox import attempt_digest
from tests.store.sample_polls import NOW, queue_failures

DAY = 86400.0


@dataclass
class House:
    database: Database
    keeper: Housekeeper
    registry: CollectorRegistry
    clock: FakeClock

    @property
    def orphaned(self) -> float | None:
        return self.registry.get_sample_value("cartesia_exporter_deliveries_orphaned")


def in_house(path, test: Callable[[House], Coroutine[None, None, None]], *receivers: str) -> None:
    async def run() -> None:
        registry, clock = CollectorRegistry(), FakeClock(NOW)
        async with Database(path / "state.db") as database:
            plan = HousekeepingSettings(receivers, 90 * DAY)
            keeper = Housekeeper(database, lambda: plan, registry, clock.clock)
            await test(House(database, keeper, registry, clock))

    asyncio.run(run())


def test_orphans_are_counted_and_told_once(tmp_path):
    async def test(house: House) -> None:
        await queue_failures(house.database, 3, "gone")
        with capture_logs() as logs:
            await house.keeper.round()
            await house.keeper.round()
        [line] = logs
        assert (line["log_level"], line["receiver"], line["events"]) == ("warning", "gone", 3)
        assert "deliveries reassign" in line["event"]
        assert house.orphaned == 3

    in_house(tmp_path, test, "slack")


def test_what_a_configured_receiver_is_owed_is_no_orphan(tmp_path):
    async def test(house: House) -> None:
        await queue_failures(house.database, 3, "slack")
        with capture_logs() as logs:
            await house.keeper.round()
        assert logs == []
        assert house.orphaned == 0

    in_house(tmp_path, test, "slack")


def test_settled_events_go_after_the_retention_looked_at_once_an_hour(tmp_path):
    async def left(house: House) -> int:
        return await house.database.run(count, house.database)

    def count(database: Database) -> int:
        with database.read() as connection:
            return int(connection.exec_driver_sql("SELECT count(*) FROM events").scalar_one())

    async def test(house: House) -> None:
        await queue_failures(house.database, 2)
        await attempt_digest(house.database, "slack", DELIVERED)
        await house.keeper.round()
        assert await left(house) == 2
        house.clock.now += 91 * DAY
        await house.keeper.round()
        assert await left(house) == 0

    in_house(tmp_path, test, "slack")


def test_a_store_that_cannot_be_written_is_told_once_and_so_is_its_end(tmp_path, monkeypatch):
    async def test(house: House) -> None:
        def execute(statement: str) -> None:
            with house.database.write() as connection:
                connection.exec_driver_sql(statement)

        refuse = "CREATE TRIGGER no BEFORE UPDATE ON meta BEGIN SELECT RAISE(ABORT, 'no room'); END"
        await house.database.run(execute, refuse)
        with capture_logs() as logs:
            await house.keeper.round()
            await house.keeper.round()
            assert "no room" in house.database.trouble
            assert house.database.errors == 2
            await house.database.run(execute, "DROP TRIGGER no")
            await house.keeper.round()
        assert house.database.trouble == ""
        told = [(line["log_level"], line["event"]) for line in logs]
        assert told == [
            ("error", "the state cannot be kept"),
            ("info", "the state can be kept again"),
        ]
        assert "state.db" in logs[0]["error"]

    in_house(tmp_path, test)


def test_it_ends_at_once_when_it_is_told_to(tmp_path):
    async def test(house: House) -> None:
        stop = asyncio.Event()
        running = asyncio.create_task(house.keeper.run(stop))
        await asyncio.sleep(0)
        stop.set()
        async with asyncio.timeout(5):
            await running

    in_house(tmp_path, test)


def test_the_store_is_tried_without_a_change(tmp_path):
    async def test(house: House) -> None:
        before = house.database.store_id
        await house.database.try_to_write()
        assert await Retention(house.database).orphaned([]) == {}
        assert house.database.store_id == before

    in_house(tmp_path, test)

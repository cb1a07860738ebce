"""Housekeeping: write check, orphaned deliveries, retention."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from exporter.agent.housekeeping import Housekeeper, needed_of
from exporter.config import load
from exporter.core.view import AccountStatus
from exporter.store.database import Database
from exporter.store.events import DELIVERED
from exporter.store.retention import Retention
from tests.config.config_file import KEY, write_config
from tests.fakes.clock import FakeClock
from tests.store.raw_sqlite import count_rows, query_file, state_path
from tests.store.sample_outbox import attempt_digest
from tests.store.sample_polls import NOW, queue_failures

DAY = 86400.0


@dataclass
class HousekeeperFixture:
    database: Database
    housekeeper: Housekeeper
    registry: CollectorRegistry
    clock: FakeClock
    statuses: list[AccountStatus]

    @property
    def orphaned(self) -> float | None:
        return self.registry.get_sample_value("cartesia_exporter_deliveries_orphaned")


@asynccontextmanager
async def open_housekeeper(path: Path, *receivers: str) -> AsyncIterator[HousekeeperFixture]:
    """Open a store below ``path``, and make a housekeeper with these configured receivers."""
    registry, clock = CollectorRegistry(), FakeClock(NOW)
    async with Database(path / "state.db", monotonic=clock.clock.monotonic) as database:
        sections = [{"name": each, "type": "slack", "url": "https://x.test"} for each in receivers]
        config = load(write_config(path, json.dumps({"receivers": sections})), KEY)
        statuses: list[AccountStatus] = []
        housekeeper = Housekeeper(
            Retention(database), lambda: config, registry, clock.clock, lambda: statuses
        )
        yield HousekeeperFixture(database, housekeeper, registry, clock, statuses)


async def test_orphaned_deliveries_are_counted_and_logged_once(tmp_path):
    async with open_housekeeper(tmp_path, "slack") as h:
        await queue_failures(h.database, 3, "gone")
        with capture_logs() as logs:
            await h.housekeeper.round()
            await h.housekeeper.round()
        [line] = logs
        assert (line["log_level"], line["receiver"], line["events"]) == ("warning", "gone", 3)
        assert "deliveries reassign" in line["event"]
        assert h.orphaned == 3


async def test_pending_deliveries_of_a_configured_receiver_are_not_orphaned(tmp_path):
    async with open_housekeeper(tmp_path, "slack") as h:
        await queue_failures(h.database, 3, "slack")
        with capture_logs() as logs:
            await h.housekeeper.round()
        assert logs == []
        assert h.orphaned == 0


async def test_settled_events_are_deleted_after_the_retention(tmp_path):
    async def stored_events(database: Database) -> int:
        return await database.run(count, database)

    def count(database: Database) -> int:
        with database.read() as connection:
            return int(connection.exec_driver_sql("SELECT count(*) FROM events").scalar_one())

    async with open_housekeeper(tmp_path, "slack") as h:
        await queue_failures(h.database, 2)
        await attempt_digest(h.database, "slack", DELIVERED)
        await h.housekeeper.round()
        assert await stored_events(h.database) == 2
        h.clock.now += 91 * DAY
        await h.housekeeper.round()
        assert await stored_events(h.database) == 0


async def test_a_store_that_cannot_be_written_is_logged_once(tmp_path, monkeypatch):
    async with open_housekeeper(tmp_path) as h:
        query_file(
            state_path(h.database),
            "CREATE TRIGGER no BEFORE UPDATE ON awake_clock"
            " BEGIN SELECT RAISE(ABORT, 'no room'); END",
        )
        with capture_logs() as logs:
            await h.housekeeper.round()
            await h.housekeeper.round()
            assert "no room" in h.database.trouble
            assert h.database.errors == 2
            query_file(state_path(h.database), "DROP TRIGGER no")
            await h.housekeeper.round()
        assert h.database.trouble == ""
        lines = [(line["log_level"], line["event"]) for line in logs]
        assert lines == [
            ("error", "cannot write the state"),
            ("info", "state is writable again"),
        ]
        assert "state.db" in logs[0]["error"]


async def test_a_stop_takes_effect_immediately(tmp_path):
    async with open_housekeeper(tmp_path) as h:
        stop = asyncio.Event()
        running = asyncio.create_task(h.housekeeper.run(stop))
        await asyncio.sleep(0)
        stop.set()
        async with asyncio.timeout(5):
            await running


async def test_each_round_stores_the_awake_clock(tmp_path):
    async with open_housekeeper(tmp_path) as h:
        for seconds in (60, 120):
            h.clock.now += 60
            await h.housekeeper.round()
            stored = query_file(state_path(h.database), "SELECT seconds FROM awake_clock")
            assert stored == [(seconds,)]


def test_events_are_needed_for_max_age_and_the_hold_of_an_alertmanager(tmp_path):
    alertmanager = '{name: am, type: alertmanager, urls: ["http://am:9093"], hold: 5d, max_age: 1d}'
    slack = "{name: slack, type: slack, url: https://x.test, max_age: 7d}"
    for receivers, expected in {
        "": 900,
        alertmanager: 6 * DAY + 900,
        slack: 7 * DAY + 900,
        f"{alertmanager}, {slack}": 7 * DAY + 900,
    }.items():
        config = load(write_config(tmp_path, f"receivers: [{receivers}]"), KEY)
        assert needed_of(config) == expected


async def test_each_round_writes_the_log_to_the_state_file(tmp_path):
    """A backup of the file alone is at most a minute old."""
    backup = tmp_path / "backup.db"
    async with open_housekeeper(tmp_path) as h:
        await queue_failures(h.database, 3, "slack")
        await h.housekeeper.round()
        backup.write_bytes(state_path(h.database).read_bytes())
        assert count_rows(backup, "events") == 3


async def test_each_round_stores_when_the_accounts_were_read(tmp_path):
    async with open_housekeeper(tmp_path) as h:
        await queue_failures(h.database, 1)
        h.statuses += [
            AccountStatus("default", succeeded_at=NOW + 30),
            AccountStatus("gone", succeeded_at=NOW + 40),
        ]
        await h.housekeeper.round()
        stored = query_file(state_path(h.database), "SELECT name, read_at FROM accounts")
        assert stored == [("default", NOW + 30)]
        h.statuses[0] = AccountStatus("default", up=False)  # restarted, and not read since
        await h.housekeeper.round()
        assert query_file(state_path(h.database), "SELECT name, read_at FROM accounts") == stored


async def test_history_is_deleted_after_the_retention(tmp_path):
    async with open_housekeeper(tmp_path, "slack") as h:
        await queue_failures(h.database, 1)
        await attempt_digest(h.database, "slack", DELIVERED)
        for days, left in ((89, 1), (91, 0)):
            h.clock.now = NOW + days * DAY
            await h.housekeeper.round()
            assert count_rows(state_path(h.database), "attempts") == left, days

"""Old events go when they are settled, and only then; what nobody sends is counted."""

import asyncio
import sqlite3

import pytest

from exporter.store.database import Database
from exporter.store.events import DEAD, DELIVERED, PENDING
from exporter.store.outbox import NewMessage, Outbox
from exporter.store.retention import Upkeep
from tests.store.sample_outbox import result_of
from tests.store.sample_polls import NOW, committed, fine_tune, owe_failures, reading

DAY = 86400.0


async def settle(outbox: Outbox, state: str, at: float = NOW) -> None:
    """Make one message of all that is owed, and let an attempt end so."""
    owed = await outbox.unsent()
    await outbox.create_messages([NewMessage("m", b"body", tuple(o.number for o in owed))], at)
    delivery = await outbox.next()
    assert delivery is not None
    await outbox.record(delivery, result_of(state, at))


def rows(path, table: str) -> int:
    connection = sqlite3.connect(path)
    count: int = connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
    connection.close()
    return count


@pytest.mark.parametrize(
    ("state", "settled_at", "before", "left"),
    [
        (DELIVERED, NOW, NOW + 1, 0),  # delivered long ago: it goes
        (DELIVERED, NOW + DAY, NOW + DAY, 3),  # delivered lately
        (DELIVERED, NOW, NOW, 3),  # observed lately
        (DEAD, NOW, NOW + 900 * DAY, 3),
        (PENDING, NOW, NOW + 900 * DAY, 3),
    ],
)
def test_what_goes_and_what_stays(tmp_path, state, settled_at, before, left):
    path = tmp_path / "state.db"

    async def run() -> None:
        async with Database(path) as database:
            await owe_failures(database, 3)
            await settle(Outbox(database, "slack"), state, settled_at)
            assert await Upkeep(database).delete_old(before) == 3 - left

    asyncio.run(run())
    assert [rows(path, name) for name in ("events", "deliveries")] == [left, left]
    assert rows(path, "messages") == bool(left)


def test_what_one_receiver_is_owed_keeps_the_event_for_it(tmp_path):
    async def run() -> None:
        async with Database(tmp_path / "state.db") as database:
            state = await committed(database, None, reading())
            await committed(database, state, reading(fine_tune("f", "failed")))
            await settle(Outbox(database, "slack"), DELIVERED)
            assert await Upkeep(database).delete_old(NOW + DAY) == 0
            assert len(await Outbox(database, "webhook").unsent()) == 1

    asyncio.run(run())


def test_thousands_go_in_many_transactions_between_which_others_have_their_turn(tmp_path):
    async def run() -> None:
        async with Database(tmp_path / "state.db") as database:
            await owe_failures(database, 1700)
            await settle(Outbox(database, "slack"), DELIVERED)
            commits = []
            real = database.write

            def counted():
                commits.append(1)
                return real()

            database.write = counted  # type: ignore[method-assign]
            assert await Upkeep(database).delete_old(NOW + DAY) == 1700
            assert len(commits) == 5

    asyncio.run(run())


def test_orphans_are_what_nobody_configured_is_owed_or_was_given_up_for(tmp_path):
    async def run() -> None:
        async with Database(tmp_path / "state.db") as database:
            await owe_failures(database, 2, "gone")
            upkeep = Upkeep(database)
            assert await upkeep.orphaned(["slack"]) == {"gone": 2}
            assert await upkeep.orphaned(["gone", "slack"]) == {}
            await settle(Outbox(database, "gone"), DEAD)
            assert await upkeep.orphaned([]) == {"gone": 2}

    asyncio.run(run())


def test_an_event_that_was_delivered_is_no_orphan(tmp_path):
    async def run() -> None:
        async with Database(tmp_path / "state.db") as database:
            await owe_failures(database, 2, "gone")
            await settle(Outbox(database, "gone"), DELIVERED)
            assert await Upkeep(database).orphaned([]) == {}

    asyncio.run(run())

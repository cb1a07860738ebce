"""One receiver's part of the outbox: what goes first, what is frozen, what is counted."""

import asyncio
import sqlite3
from dataclasses import replace

import pytest
from sqlalchemy import event

from exporter.core.model import OutboxMessage
from exporter.store.accounts import Accounts
from exporter.store.database import Database
from exporter.store.errors import StoreError
from exporter.store.events import DEAD, DELIVERED, PENDING
from exporter.store.outbox import Backlog, NewMessage, Outbox, Result
from tests.store.raw_sqlite import sqlalchemy_engine
from tests.store.sample_polls import (
    KEY,
    NOW,
    commit_snapshot,
    fine_tune,
    queue_failures,
    snapshot_of,
)


async def freeze_each(outbox: Outbox, at: float = NOW) -> None:
    """Freeze each event that no message carries into one of its own: m1, m2, …"""
    new = [
        NewMessage(f"m{owed.number}", b"body of %d" % owed.number, (owed.number,))
        for owed in await outbox.unsent()
    ]
    await outbox.freeze(new, at)


async def next_id(outbox: Outbox) -> str:
    delivery = await outbox.next()
    assert delivery is not None
    return delivery.id


def test_what_was_never_tried_goes_first_then_what_was_tried_least_recently(tmp_path):
    async def run() -> list[str]:
        async with Database(tmp_path / "state.db") as database:
            outbox = Outbox(database, "slack")
            await queue_failures(database, 3)
            await freeze_each(outbox)
            tried = []
            for minute in range(7):
                delivery = await outbox.next()
                assert delivery is not None
                tried.append(delivery.id)
                await outbox.record(delivery, Result(PENDING, NOW + 60 * minute, "503"))
                if minute == 3:
                    state = await Accounts(database).load(KEY)
                    failed = (fine_tune(f"f{n}", "failed") for n in range(4))
                    await commit_snapshot(
                        database, state, snapshot_of(*failed, at=NOW + 200), ["slack"]
                    )
                    await freeze_each(outbox, NOW + 200)
            return tried

    assert asyncio.run(run()) == ["m1", "m2", "m3", "m1", "m4", "m2", "m3"]


def test_a_frozen_message_is_the_same_at_each_attempt_and_after_a_restart(tmp_path):
    path = tmp_path / "state.db"

    async def first() -> OutboxMessage | None:
        async with Database(path) as database:
            outbox = Outbox(database, "slack")
            await queue_failures(database, 2)
            [one, two] = await outbox.unsent()
            body = b"\x00\xff two of them"
            await outbox.freeze([NewMessage("m", body, (one.number, two.number))], NOW)
            delivery = await outbox.next()
            assert delivery == OutboxMessage("m", "slack", body, 2, NOW)
            await outbox.record(delivery, Result(PENDING, NOW + 1, "503"))
            return delivery

    async def after(sent: OutboxMessage) -> None:
        async with Database(path) as database:
            outbox = Outbox(database, "slack")
            assert await outbox.unsent() == []
            assert await outbox.next() == replace(sent, attempts=1)
            assert [e.fine_tune and e.fine_tune.id for e in await outbox.events_of(sent)] == [
                "f0",
                "f1",
            ]

    sent = asyncio.run(first())
    assert sent is not None
    asyncio.run(after(sent))


def test_the_minimal_body_takes_the_others_place_under_the_same_id(tmp_path):
    async def run() -> None:
        async with Database(tmp_path / "state.db") as database:
            outbox = Outbox(database, "slack")
            await queue_failures(database, 1)
            await freeze_each(outbox)
            delivery = await outbox.next()
            assert delivery is not None
            await outbox.replace_body(delivery, b"minimal")
            assert await outbox.next() == replace(delivery, body=b"minimal", minimal=True)

    asyncio.run(run())


@pytest.mark.parametrize(
    ("state", "left"),
    [
        (DELIVERED, Backlog(2, 0, NOW)),
        (DEAD, Backlog(2, 1, NOW)),
        (PENDING, Backlog(3, 0, NOW)),
    ],
)
def test_the_backlog_counts_events_not_messages(tmp_path, state, left):
    async def run() -> Backlog:
        async with Database(tmp_path / "state.db") as database:
            outbox = Outbox(database, "slack")
            await queue_failures(database, 3)
            assert await outbox.backlog() == Backlog(3, 0, NOW)
            await freeze_each(outbox)
            delivery = await outbox.next()
            assert delivery is not None
            await outbox.record(delivery, Result(state, NOW, ""))
            if state != PENDING:
                assert await next_id(outbox) != delivery.id
            return await outbox.backlog()

    assert asyncio.run(run()) == left


def test_receivers_do_not_see_each_others_deliveries(tmp_path):
    async def run() -> None:
        async with Database(tmp_path / "state.db") as database:
            slack, webhook = Outbox(database, "slack"), Outbox(database, "webhook")
            state = await commit_snapshot(database, None, snapshot_of(fine_tune("a")))
            await commit_snapshot(database, state, snapshot_of(fine_tune("a", "failed")))
            await freeze_each(slack)
            assert await webhook.next() is None
            await freeze_each(webhook)  # the same id: the key is the receiver and the id
            delivery = await slack.next()
            assert delivery is not None
            await slack.record(delivery, Result(DELIVERED, NOW, ""))
            await slack.replace_body(delivery, b"other")
            assert await slack.backlog() == Backlog(0, 0)
            assert await webhook.backlog() == Backlog(1, 0, NOW)
            left = await webhook.next()
            assert left is not None
            assert left.body == delivery.body

    asyncio.run(run())


def lower_the_limit(database: Database, values: int) -> None:
    """Have SQLite take so many values in a statement; by itself it takes 32,766."""

    @event.listens_for(sqlalchemy_engine(database), "checkout")
    def lower(connection: sqlite3.Connection, *_: object) -> None:
        connection.setlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, values)


def test_one_digest_takes_more_events_than_a_statement_takes_values(tmp_path):
    number = 1_000

    async def run() -> None:
        async with Database(tmp_path / "state.db") as database:
            outbox = Outbox(database, "slack")
            await queue_failures(database, number)
            lower_the_limit(database, number - 1)
            numbers = tuple(owed.number for owed in await outbox.unsent())
            assert len(numbers) == number
            await outbox.freeze([NewMessage("digest", b"all", numbers)], NOW)
            delivery = await outbox.next()
            assert delivery is not None
            assert delivery.events == len(await outbox.events_of(delivery)) == number
            await outbox.record(delivery, Result(DELIVERED, NOW, ""))
            assert await outbox.backlog() == Backlog(0, 0)
            assert await outbox.next() is None

    asyncio.run(run())


def test_freezing_is_all_or_nothing(tmp_path):
    async def run() -> None:
        async with Database(tmp_path / "state.db") as database:
            outbox = Outbox(database, "slack")
            await queue_failures(database, 2)
            before = await outbox.unsent()
            twice = [NewMessage("m", b"", (owed.number,)) for owed in before]
            with pytest.raises(StoreError):
                await outbox.freeze(twice, NOW)
            assert await outbox.unsent() == before
            assert await outbox.next() is None

    asyncio.run(run())


def test_digests_frozen_together_go_in_their_order(tmp_path):
    async def run() -> list[str]:
        async with Database(tmp_path / "state.db") as database:
            outbox = Outbox(database, "slack")
            await queue_failures(database, 3)
            numbers = [owed.number for owed in await outbox.unsent()]
            ids = ("c", "a", "b")
            pairs = zip(ids, numbers, strict=True)
            await outbox.freeze([NewMessage(id_, b"", (n,)) for id_, n in pairs], NOW)
            tried = []
            for _ in ids:
                delivery = await outbox.next()
                assert delivery is not None
                tried.append(delivery.id)
                await outbox.record(delivery, Result(DELIVERED, NOW, ""))
            return tried

    assert asyncio.run(run()) == ["c", "a", "b"]

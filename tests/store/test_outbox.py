"""Outbox of one receiver: order of messages, their contents, and what is counted."""

import sqlite3

import pytest
from msgspec.structs import replace
from sqlalchemy import event

from exporter.core.model import OutboxMessage
from exporter.store.accounts import Accounts
from exporter.store.database import Database
from exporter.store.engines.sqlite import SQLiteEngine
from exporter.store.errors import StoreError
from exporter.store.events import DEAD, DELIVERED, PENDING
from exporter.store.outbox import NewMessage, Outbox
from exporter.store.receiver_outbox import Backlog, request_retry
from tests.store.raw_sql import sqlalchemy_engine
from tests.store.sample_outbox import result_of
from tests.store.sample_polls import (
    KEY,
    NOW,
    commit_snapshot,
    fine_tune,
    queue_failures,
    snapshot_of,
)


@pytest.fixture
def outbox(database: Database) -> Outbox:
    return Outbox(database, "slack")


async def create_message_per_event(outbox: Outbox, at: float = NOW) -> None:
    """Create a message of each event that has none: m1, m2, …"""
    new = [
        NewMessage(f"m{queued.number}", b"body of %d" % queued.number, (queued.number,))
        for queued in await outbox.unsent()
    ]
    await outbox.create_messages(new, at)


async def next_message(outbox: Outbox) -> OutboxMessage:
    message = await outbox.next()
    assert message is not None
    return message


async def test_messages_never_tried_come_first_then_the_least_recently_tried(database, outbox):
    await queue_failures(database, 3)
    await create_message_per_event(outbox)
    tried = []
    for minute in range(7):
        message = await next_message(outbox)
        tried.append(message.id)
        await outbox.record(message, result_of(PENDING, NOW + 60 * minute, "503"))
        if minute == 3:
            state = await Accounts(database).load(KEY)
            failed = (fine_tune(f"f{n}", "failed") for n in range(4))
            await commit_snapshot(database, state, snapshot_of(*failed, at=NOW + 200), ["slack"])
            await create_message_per_event(outbox, NOW + 200)
    assert tried == ["m1", "m2", "m3", "m1", "m4", "m2", "m3"]


async def test_a_message_is_the_same_at_each_attempt_and_after_a_restart(location):
    body = b"\x00\xff two of them"
    async with Database(location) as database:
        outbox = Outbox(database, "slack")
        await queue_failures(database, 2)
        [one, two] = await outbox.unsent()
        await outbox.create_messages([NewMessage("m", body, (one.number, two.number))], NOW)
        message = await next_message(outbox)
        assert message == OutboxMessage("m", "slack", body, 2, NOW)
        await outbox.record(message, result_of(PENDING, NOW + 1, "503"))
    async with Database(location) as database:
        outbox = Outbox(database, "slack")
        assert await outbox.unsent() == []
        assert await outbox.next() == replace(message, attempts=1)
        assert [each.event.subject for each in await outbox.events_of(message)] == ["f0", "f1"]


async def test_a_result_keeps_a_retry_request_made_during_the_attempt(database, outbox):
    """Otherwise the deliverer would not notice that a retry was requested."""
    await queue_failures(database, 1)
    await create_message_per_event(outbox)
    message = await next_message(outbox)
    await outbox.claim(message)

    def request() -> None:
        with database.write() as connection:
            request_retry(connection, "slack")

    await database.run(request)
    await outbox.record(message, result_of(PENDING, NOW, "503"))
    assert (await outbox.receiver_state()).retry_requests == 1


async def test_the_minimal_body_replaces_the_full_one_under_the_same_id(database, outbox):
    await queue_failures(database, 1)
    await create_message_per_event(outbox)
    message = await next_message(outbox)
    await outbox.replace_body(message, b"minimal")
    assert await outbox.next() == replace(message, body=b"minimal", minimal=True)


@pytest.mark.parametrize(
    ("state", "left"),
    [
        (DELIVERED, Backlog(2, 0, 60)),
        (DEAD, Backlog(2, 1, 60)),
        (PENDING, Backlog(3, 0, 60)),
    ],
)
async def test_the_backlog_counts_events_not_messages(database, outbox, clock, state, left):
    await queue_failures(database, 3)
    clock.now += 60
    assert await outbox.backlog() == Backlog(3, 0, 60)
    await create_message_per_event(outbox)
    message = await next_message(outbox)
    await outbox.record(message, result_of(state))
    if state != PENDING:
        assert (await next_message(outbox)).id != message.id
    assert await outbox.backlog() == left


async def test_record_returns_the_delays_of_delivered_events_only(database, outbox):
    await queue_failures(database, 2)
    await create_message_per_event(outbox)
    first = await next_message(outbox)
    assert await outbox.record(first, result_of(PENDING, NOW + 10)) == []
    assert await outbox.record(first, result_of(DELIVERED, NOW + 30)) == [30]
    second = await next_message(outbox)
    assert await outbox.record(second, result_of(DEAD, NOW + 30)) == []


async def test_receivers_do_not_see_each_others_deliveries(database, outbox):
    webhook = Outbox(database, "webhook")
    state = await commit_snapshot(database, None, snapshot_of(fine_tune("a")))
    await commit_snapshot(database, state, snapshot_of(fine_tune("a", "failed")))
    await create_message_per_event(outbox)
    assert await webhook.next() is None
    await create_message_per_event(webhook)  # the same id: receiver and id are the key
    message = await next_message(outbox)
    await outbox.record(message, result_of(DELIVERED))
    await outbox.replace_body(message, b"other")
    assert await outbox.backlog() == Backlog(0, 0)
    assert await webhook.backlog() == Backlog(1, 0, 0)
    assert (await next_message(webhook)).body == message.body


def limit_parameters(database: Database, number: int) -> None:
    """Set the number of parameters that SQLite takes in a statement; its default is 32,766."""
    if not isinstance(database.engine, SQLiteEngine):
        return

    @event.listens_for(sqlalchemy_engine(database), "checkout")
    def limit(connection: sqlite3.Connection, *_: object) -> None:
        connection.setlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, number)


async def test_a_digest_carries_more_events_than_a_statement_takes_parameters(database, outbox):
    number = 1_000
    await queue_failures(database, number)
    limit_parameters(database, number - 1)
    numbers = tuple(queued.number for queued in await outbox.unsent())
    assert len(numbers) == number
    await outbox.create_messages([NewMessage("digest", b"all", numbers)], NOW)
    message = await next_message(outbox)
    assert message.events == len(await outbox.events_of(message)) == number
    await outbox.record(message, result_of(DELIVERED))
    assert await outbox.backlog() == Backlog(0, 0)
    assert await outbox.next() is None


async def test_messages_are_created_all_or_none(database, outbox):
    await queue_failures(database, 2)
    before = await outbox.unsent()
    same_id = [NewMessage("m", b"", (queued.number,)) for queued in before]
    with pytest.raises(StoreError):
        await outbox.create_messages(same_id, NOW)
    assert await outbox.unsent() == before
    assert await outbox.next() is None


async def test_messages_created_together_keep_their_order(database, outbox):
    await queue_failures(database, 3)
    numbers = [queued.number for queued in await outbox.unsent()]
    ids = ["c", "a", "b"]
    new = [NewMessage(id_, b"", (n,)) for id_, n in zip(ids, numbers, strict=True)]
    await outbox.create_messages(new, NOW)
    tried = []
    for _ in ids:
        message = await next_message(outbox)
        tried.append(message.id)
        await outbox.record(message, result_of(DELIVERED))
    assert tried == ids

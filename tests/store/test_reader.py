"""Reads on a connection of their own: bounded in number and time, and never in a commit's way."""

import asyncio

import pytest
from sqlalchemy import Connection, insert, select, text

from exporter.store import reader as reader_module
from exporter.store.errors import StoreError, StoreRefusedError
from exporter.store.reader import MAX_WAITING, BusyError
from exporter.store.schema import meta
from tests.store.sample_polls import commit_snapshot, fine_tune, queue_failures, snapshot_of

ENDLESS = text(
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"
)


@pytest.fixture
async def reader(database):
    async with database.reader() as opened:
        yield opened


def run_for_ever(connection: Connection) -> None:
    connection.execute(ENDLESS)


async def test_a_read_that_takes_too_long_is_interrupted(reader, monkeypatch):
    monkeypatch.setattr(reader_module, "READ_SECONDS", 0.2)
    async with asyncio.timeout(10):
        with pytest.raises(BusyError, match="could not be read within"):
            await reader.read(run_for_ever)
        assert await reader.read(lambda connection: connection.scalar(select(meta.c.name)))


async def test_a_commit_does_not_wait_for_a_read(database, reader, monkeypatch):
    monkeypatch.setattr(reader_module, "READ_SECONDS", 3)
    reading = asyncio.create_task(reader.read(run_for_ever))
    try:
        async with asyncio.timeout(10):
            await commit_snapshot(database, None, snapshot_of(fine_tune("f")))
        assert not reading.done()
    finally:
        reader._engine._deadline = 0.0
        with pytest.raises(BusyError):
            await reading


async def test_too_many_reads_are_refused_at_once(reader, monkeypatch):
    monkeypatch.setattr(reader_module, "READ_SECONDS", 3)
    first = asyncio.create_task(reader.read(run_for_ever))
    waiting = [asyncio.create_task(reader.version()) for _ in range(MAX_WAITING - 1)]
    await asyncio.sleep(0)
    with pytest.raises(BusyError, match="too many"):
        await reader.version()
    reader._engine._deadline = 0.0
    with pytest.raises(BusyError):
        await first
    assert len({*await asyncio.gather(*waiting)}) == 1


async def test_the_version_changes_with_a_commit_and_only_then(database, reader):
    before = await reader.version()
    assert await reader.version() == before
    await queue_failures(database, 1)
    assert await reader.version() != before


async def test_a_reader_cannot_write(reader):
    statement = insert(meta).values(name="x", value="y")
    with pytest.raises(StoreError, match=r"read-?only"):
        await reader.read(lambda connection: connection.execute(statement))


async def test_a_damaged_event_is_named_as_damage(database, reader):
    from exporter.store.event_lists import EventFilter, Events
    from exporter.store.pages import PageRequest

    await queue_failures(database, 1)

    def damage() -> None:
        with database.write() as connection:
            connection.execute(text("UPDATE events SET content = '{'"))

    await database.run(damage)
    with pytest.raises(StoreRefusedError, match="damaged"):
        await reader.read(
            lambda connection: Events(connection, {}, 0.0).page(EventFilter(), PageRequest())
        )

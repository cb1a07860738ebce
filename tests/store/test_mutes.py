"""Mutes in the store: what is refused, how they end, what is listed and kept."""

from typing import Any

import pytest

from exporter.core.mutes import InvalidMuteError, MuteRequest
from exporter.core.records import MuteRecord
from exporter.store.database import Database
from exporter.store.mutes import UnknownMuteError, add_mute, end_mute, mute_records
from exporter.store.retention import Retention
from tests.store.sample_polls import NOW

HOUR = 3600.0


def request(seconds: float | None = HOUR, **fields: Any) -> MuteRequest:
    return MuteRequest(seconds, "alice", "known", **(fields or {"match": {"dataset": "x"}}))


async def records(database: Database, now: float = NOW) -> list[MuteRecord]:
    def read() -> list[MuteRecord]:
        with database.read() as connection:
            return mute_records(connection, now)

    return await database.run(read)


@pytest.mark.parametrize(
    ("invalid", "reason"),
    [
        (request(59.0), "1m to 30d"),
        (request(31 * 86_400.0), "1m to 30d"),
        (request(None), "only a mute of one fine-tune"),
        (request(match={}), "give matchers"),
        (request(match={"dataset": "x"}, account="a", fine_tune="ft"), "give matchers"),
        (request(fine_tune="ft"), "give the account"),
        (request(match={"colour": "x"}), "unknown matcher colour"),
        (request(match={"label.": "x"}), "unknown matcher label."),
        (request(match={"name": "("}), "name: must be a regular expression"),
        (request(match={f"label.l{n}": "x" for n in range(11)}), "at most 10 matchers"),
        (MuteRequest(HOUR, "alice", "x" * 501, {"name": "x"}), "the reason must have"),
        (MuteRequest(HOUR, "a" * 101, "", {"name": "x"}), "the author must have"),
    ],
)
async def test_what_is_refused(database, invalid, reason):
    with pytest.raises(InvalidMuteError, match=reason):
        await database.run(add_mute, database, invalid, NOW)
    assert await records(database) == []


async def test_mutes_are_listed_newest_first(database):
    first = await database.run(add_mute, database, request(), NOW)
    one = request(None, account="a", fine_tune="ft")
    second = await database.run(add_mute, database, one, NOW + 1)
    found = await records(database, NOW + 2)
    assert [(each.id, each.active, each.until_recovered) for each in found] == [
        (second, True, True),
        (first, True, False),
    ]
    assert (found[1].match, found[1].author, found[1].reason) == (
        {"dataset": "x"},
        "alice",
        "known",
    )
    assert (found[0].account, found[0].fine_tune) == ("a", "ft")
    assert (found[1].until - found[1].created_at).total_seconds() == HOUR


async def test_a_mute_is_over_at_its_end_also_before_the_agent_has_seen_it(database):
    await database.run(add_mute, database, request(), NOW)
    assert [each.active for each in await records(database, NOW + HOUR)] == [False]


async def test_a_mute_ends_once(database):
    mute = await database.run(add_mute, database, request(), NOW)
    await database.run(end_mute, database, mute, "bob", NOW + 1)
    [found] = await records(database, NOW + 2)
    assert (found.active, found.ended_by) == (False, "bob")
    for known in (mute, "mute_none"):
        with pytest.raises(UnknownMuteError, match=known):
            await database.run(end_mute, database, known, "bob", NOW + 2)


async def test_a_mute_that_someone_without_a_name_ended_is_over(database):
    mute = await database.run(add_mute, database, request(), NOW)
    await database.run(end_mute, database, mute, "", NOW + 1)
    assert [each.active for each in await records(database, NOW + 2)] == [False]


async def test_the_number_of_active_mutes_is_bounded(database, monkeypatch):
    monkeypatch.setattr("exporter.store.mutes.MAX_MUTES", 3)
    for _ in range(3):
        await database.run(add_mute, database, request(), NOW)
    with pytest.raises(InvalidMuteError, match="3 mutes are active"):
        await database.run(add_mute, database, request(), NOW + HOUR - 1)
    await database.run(add_mute, database, request(), NOW + HOUR)


async def test_retention_deletes_mutes_that_ended_long_ago(database):
    old = await database.run(add_mute, database, request(), NOW)
    await database.run(end_mute, database, old, "bob", NOW + 1)
    new = await database.run(add_mute, database, request(), NOW + 2)
    await Retention(database).delete_history(NOW + 2)
    assert [each.id for each in await records(database)] == [new]

"""The cursors of an account's list: stored with the poll that found them, and only a hint."""

import pytest
from msgspec.structs import replace

from exporter.core.model import AccountKey
from exporter.store.accounts import Accounts
from exporter.store.database import Database
from exporter.store.errors import StoreError
from tests.store.raw_sql import execute, reject_inserts
from tests.store.sample_polls import KEY, NOW, fine_tune, poll_result, snapshot_of

HOSTILE = (
    "a/b&c?d",
    "'; DROP TABLE cursors; --",
    "\x00\x1b[31m\u202e",
    "\U0001f3a4",
    "",
    "a/b&c?d",
)
SECOND = AccountKey("second", KEY.base_url)


async def commit(database, cursors, key=KEY) -> None:
    accounts = Accounts(database)
    state = await accounts.load(key)
    result = poll_result(state, snapshot_of(fine_tune("a")), key=key)
    await accounts.commit(replace(result, cursors=cursors))


async def test_an_account_without_a_poll_has_no_cursors(database):
    assert await Accounts(database).cursors(KEY) == ()


async def test_cursors_survive_a_restart_and_a_later_poll_replaces_them(location):
    for cursors in (HOSTILE, ("b",), ()):
        async with Database(location) as database:
            await commit(database, cursors)
        async with Database(location) as database:
            assert await Accounts(database).cursors(KEY) == cursors


async def test_a_poll_with_unchanged_cursors_keeps_them(database):
    await commit(database, ["a"])
    await commit(database, None)
    assert await Accounts(database).cursors(KEY) == ("a",)


async def test_accounts_have_separate_cursors(database):
    await commit(database, ["first"])
    await commit(database, ["second"], SECOND)
    assert await Accounts(database).cursors(KEY) == ("first",)
    assert await Accounts(database).cursors(SECOND) == ("second",)


def test_a_result_with_new_cursors_is_not_empty():
    state = poll_result(None, snapshot_of(fine_tune("a"))).state
    result = poll_result(state, snapshot_of(fine_tune("a"), at=NOW + 60))
    assert result.is_empty
    assert not replace(result, cursors=()).is_empty


async def test_a_failed_commit_does_not_change_the_cursors(database):
    await commit(database, ["before"])
    await reject_inserts(database, "fine_tunes")
    state = await Accounts(database).load(KEY)
    result = poll_result(state, snapshot_of(fine_tune("a", "failed")))
    with pytest.raises(StoreError, match="no room"):
        await Accounts(database).commit(replace(result, cursors=["after"]))
    assert await Accounts(database).cursors(KEY) == ("before",)


async def test_damaged_cursors_are_ignored(database):
    await commit(database, ["a"])
    for damaged in ("", "[", '["a", 1]', "null"):
        await execute(database, "UPDATE cursors SET ids = :ids", ids=damaged)
        assert await Accounts(database).cursors(KEY) == (), damaged

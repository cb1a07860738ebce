"""Where the pages of a list begin is kept with the poll that found it, and is only a hint."""

import asyncio
import sqlite3
from dataclasses import replace

import pytest

from exporter.core.model import AccountKey
from exporter.store.accounts import Accounts
from exporter.store.database import Database
from exporter.store.errors import StoreError
from tests.store.sample_polls import KEY, NOW, fine_tune, reading, record_of

HOSTILE = (
    "a/b&c?d",
    "'; DROP TABLE cursors; --",
    "\x00\x1b[31m\u202e",
    "\U0001f3a4",
    "",
    "a/b&c?d",
)
SECOND = AccountKey("second", KEY.base_url)


def read(path, key=KEY) -> tuple[str, ...]:
    async def run() -> tuple[str, ...]:
        async with Database(path) as database:
            return await Accounts(database).cursors(key)

    return asyncio.run(run())


def commit(path, cursors, key=KEY) -> None:
    async def run() -> None:
        async with Database(path) as database:
            accounts = Accounts(database)
            state = await accounts.load(key)
            record = record_of(state, reading(fine_tune("a")), key=key)
            await accounts.commit(replace(record, cursors=cursors))

    asyncio.run(run())


def test_an_account_that_was_never_read_has_none(tmp_path):
    assert read(tmp_path / "state.db") == ()


def test_cursors_survive_a_restart_and_are_replaced_by_those_of_a_later_poll(tmp_path):
    path = tmp_path / "state.db"
    commit(path, HOSTILE)
    assert read(path) == HOSTILE
    commit(path, ["b"])
    assert read(path) == ("b",)
    commit(path, [])
    assert read(path) == ()


def test_a_poll_whose_pages_begin_where_they_did_leaves_them(tmp_path):
    path = tmp_path / "state.db"
    commit(path, ["a"])
    commit(path, None)
    assert read(path) == ("a",)


def test_accounts_have_cursors_of_their_own(tmp_path):
    path = tmp_path / "state.db"
    commit(path, ["first"])
    commit(path, ["second"], SECOND)
    assert (read(path), read(path, SECOND)) == (("first",), ("second",))


def test_new_cursors_are_something_to_write():
    state = record_of(None, reading(fine_tune("a"))).state
    record = record_of(state, reading(fine_tune("a"), at=NOW + 60))
    assert record.is_empty
    assert not replace(record, cursors=()).is_empty


def test_cursors_are_not_kept_of_a_poll_that_was_not(tmp_path):
    path = tmp_path / "state.db"
    commit(path, ["before"])

    async def run() -> None:
        async with Database(path) as database:

            def forbid() -> None:
                with database.write() as connection:
                    connection.exec_driver_sql(
                        "CREATE TRIGGER no BEFORE INSERT ON fine_tunes"
                        " BEGIN SELECT RAISE(ABORT, 'no room'); END"
                    )

            await database.run(forbid)
            state = await Accounts(database).load(KEY)
            record = record_of(state, reading(fine_tune("a", "failed")))
            with pytest.raises(StoreError, match="no room"):
                await Accounts(database).commit(replace(record, cursors=["after"]))

    asyncio.run(run())
    assert read(path) == ("before",)


@pytest.mark.parametrize("damaged", ["", "[", '["a", 1]', "null"])
def test_cursors_that_cannot_be_read_are_done_without(tmp_path, damaged):
    path = tmp_path / "state.db"
    commit(path, ["a"])
    connection = sqlite3.connect(path)
    with connection:
        connection.execute("UPDATE cursors SET ids = ?", (damaged,))
    connection.close()
    assert read(path) == ()

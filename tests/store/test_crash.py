"""A crash while a poll is stored leaves all of it or nothing of it."""

import asyncio
import signal
import subprocess
import sys

import pytest

from exporter.core.account import AccountState
from exporter.store.accounts import Accounts
from exporter.store.database import Database
from exporter.store.outbox import Outbox
from tests.store.crashing_commit import BASELINE, COMMITTED, POINTS, found
from tests.store.sample_polls import KEY, NOW, committed, reading

pytestmark = pytest.mark.usefixtures("unmeasured")


async def make_store(path) -> AccountState:
    """A store with a baseline and a reading that missed one fine-tune for the first time."""
    async with Database(path) as database:
        state = await committed(database, None, reading(*BASELINE))
        return await committed(database, state, reading(*BASELINE[:2], at=NOW + 60))


def kill(path, point: str) -> None:
    command = [sys.executable, "-m", "tests.store.crashing_commit", str(path), point]
    assert subprocess.run(command, check=False, timeout=30).returncode == -signal.SIGKILL


async def stored(path) -> tuple[AccountState | None, list[str], list[str]]:
    """The account, and the ids of the events that slack and webhook are owed."""
    async with Database(path) as database:
        slack = await Outbox(database, "slack").unsent()
        webhook = await Outbox(database, "webhook").unsent()
        state = await Accounts(database).load(KEY)
    return state, [owed.event.id for owed in slack], [owed.event.id for owed in webhook]


@pytest.mark.parametrize("point", POINTS)
def test_killed_before_the_end_nothing_is_stored_and_nothing_owed(tmp_path, point):
    path = tmp_path / "state.db"
    before = asyncio.run(make_store(path))
    kill(path, point)
    assert asyncio.run(stored(path)) == (before, [], [])


def test_killed_after_the_commit_everything_is_stored_and_owed(tmp_path):
    path = tmp_path / "state.db"
    before = asyncio.run(make_store(path))
    kill(path, COMMITTED)
    record = found(before)
    ids = [event.id for event, _ in record.events]
    assert len(ids) == 2
    assert asyncio.run(stored(path)) == (record.state, ids, ids)


def test_what_was_committed_but_not_reported_is_owed_once_when_it_is_found_again(tmp_path):
    async def again(before: AccountState):
        async with Database(path) as database:
            await Accounts(database).commit(found(before))

    path = tmp_path / "state.db"
    before = asyncio.run(make_store(path))
    kill(path, COMMITTED)
    once = asyncio.run(stored(path))
    asyncio.run(again(before))
    assert asyncio.run(stored(path)) == once

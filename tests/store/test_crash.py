"""A crash while a poll is stored leaves all of it or nothing."""

import signal
import sys
from pathlib import Path

import pytest

from exporter.core.account import AccountState
from exporter.store.accounts import Accounts
from exporter.store.database import Database
from exporter.store.location import StoreLocation
from exporter.store.outbox import Outbox
from tests.engines import POSTGRES, SQLITE
from tests.process.agent_process import ROOT, run
from tests.store.crashing_commit import BASELINE, COMMITTED, POINTS, last_poll
from tests.store.sample_polls import KEY, NOW, commit_snapshot, snapshot_of

pytestmark = pytest.mark.usefixtures("unmeasured")


async def create(location: StoreLocation) -> AccountState:
    """Create a state with a baseline and a poll that missed one fine-tune for the first time."""
    async with Database(location) as database:
        state = await commit_snapshot(database, None, snapshot_of(*BASELINE))
        return await commit_snapshot(database, state, snapshot_of(*BASELINE[:2], at=NOW + 60))


def crash(location: StoreLocation, point: str) -> None:
    place = str(location) if isinstance(location, Path) else location.url()
    command = (sys.executable, "-m", "tests.store.crashing_commit")
    assert run(ROOT, place, point, command=command).returncode == -signal.SIGKILL


async def stored(location: StoreLocation) -> tuple[AccountState | None, list[str], list[str]]:
    """Return the account, and the ids of the events queued for slack and webhook."""
    async with Database(location) as database:
        slack = await Outbox(database, "slack").unsent()
        webhook = await Outbox(database, "webhook").unsent()
        state = await Accounts(database).load(KEY)
    return state, [each.event.id for each in slack], [each.event.id for each in webhook]


@pytest.mark.parametrize(
    ("new_state", "point"),
    # Each takes a second: some are enough where a transaction is the same.
    [(SQLITE, each) for each in POINTS] + [(POSTGRES, each) for each in POINTS[::3]],
    indirect=["new_state"],
)
async def test_a_crash_before_the_commit_stores_and_queues_nothing(location, point):
    before = await create(location)
    crash(location, point)
    assert await stored(location) == (before, [], [])


async def test_a_crash_after_the_commit_stores_and_queues_everything(location):
    before = await create(location)
    crash(location, COMMITTED)
    result = last_poll(before)
    ids = [event.id for event, _ in result.events]
    assert len(ids) == 2
    assert await stored(location) == (result.state.without_removed(), ids, ids)


async def test_events_found_again_after_an_unreported_commit_are_queued_once(location):
    before = await create(location)
    crash(location, COMMITTED)
    once = await stored(location)
    async with Database(location) as database:
        await Accounts(database).commit(last_poll(before))
    assert await stored(location) == once

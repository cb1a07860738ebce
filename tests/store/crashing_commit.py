"""A process that commits a poll and is killed (SIGKILL) at a named point."""

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any, NoReturn

from sqlalchemy import event

from exporter.core.account import AccountState, PollResult
from exporter.store import accounts
from exporter.store.accounts import Accounts
from exporter.store.database import Database
from exporter.store.location import StoreLocation
from tests.postgres_server import location_of
from tests.store.raw_sql import sqlalchemy_engine
from tests.store.sample_polls import KEY, NOW, fine_tune, poll_result, snapshot_of

POINTS = (
    "the account is looked up",
    "fine-tunes are written",
    "label values are written",
    "transitions are written",
    "removals are written",
    "events are recorded",
    "deliveries are recorded",
    "the transaction commits",
)
"""The process is killed before this happens."""

COMMITTED = "the commit is reported"

BASELINE = (fine_tune("steady"), fine_tune("fails"), fine_tune("goes"))


def last_poll(before: AccountState | None) -> PollResult:
    """One fine-tune failed, and one is missing for the second time."""
    last = snapshot_of(fine_tune("steady"), fine_tune("fails", "failed"), at=NOW + 120)
    return poll_result(before, last)


def _kill(*_: object) -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("killed")


def _kill_at(database: Database, point: str) -> None:
    if point == "the transaction commits":
        event.listen(sqlalchemy_engine(database), "commit", _kill)
    elif point == "the account is looked up":
        _kill_at_call("_store_account", 1)
    elif point == "events are recorded":
        _kill_at_call("record_events", 1)
    elif point == "deliveries are recorded":
        event.listen(sqlalchemy_engine(database), "before_cursor_execute", _kill_at_deliveries)
    elif point.endswith("are written"):
        _kill_at_call("upsert", POINTS.index(point))


def _kill_at_deliveries(_connection: object, _cursor: object, statement: str, *_: object) -> None:
    if statement.startswith("INSERT INTO deliveries"):
        _kill()


def _kill_at_call(function: str, last_call: int) -> None:
    real, calls = getattr(accounts, function), 0

    def counted(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == last_call:
            _kill()
        return real(*arguments)

    setattr(accounts, function, counted)


async def commit_and_die(location: StoreLocation, point: str) -> None:
    async with Database(location) as database:
        before = await Accounts(database).load(KEY)
        _kill_at(database, point)
        await Accounts(database).commit(last_poll(before))
        _kill()


if __name__ == "__main__":
    place = sys.argv[1]
    place_is_url = "://" in place
    asyncio.run(commit_and_die(location_of(place) if place_is_url else Path(place), sys.argv[2]))

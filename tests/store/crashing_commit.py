"""A process that commits what a poll found and is killed (SIGKILL) on the way, at a named point."""

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any, NoReturn

from sqlalchemy import event

from exporter.core.account import AccountState, PollResult
from exporter.core.model import Snapshot
from exporter.store import accounts
from exporter.store.accounts import Accounts
from exporter.store.database import Database
from tests.store.sample_polls import KEY, NOW, fine_tune, reading, record_of

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
"""Killed before this happens."""

COMMITTED = "the commit is reported"

BASELINE = (fine_tune("steady"), fine_tune("fails"), fine_tune("goes"))


def found(before: AccountState | None) -> PollResult:
    return record_of(before, last_reading())


def last_reading() -> Snapshot:
    """One failed, one was missed for the second time, and one is of a model not seen before."""
    return reading(fine_tune("steady"), fine_tune("fails", "failed"), at=NOW + 120)


def _die(*_: object) -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("killed")


def _arm(database: Database, point: str) -> None:
    """Have this process killed when it gets to `point`."""
    if point == "the transaction commits":
        event.listen(database._engine, "commit", _die)
    elif point == "the account is looked up":
        _kill_at("_number", 1)
    elif point == "events are recorded":
        _kill_at("record_events", 1)
    elif point == "deliveries are recorded":
        event.listen(database._engine, "before_cursor_execute", _die_at_deliveries)
    elif point.endswith("are written"):
        _kill_at("_upsert", POINTS.index(point))


def _die_at_deliveries(_connection: object, _cursor: object, statement: str, *_: object) -> None:
    if statement.startswith("INSERT INTO deliveries"):
        _die()


def _kill_at(function: str, turn: int) -> None:
    real, turns = getattr(accounts, function), 0

    def counted(*arguments: Any) -> Any:
        nonlocal turns
        turns += 1
        if turns == turn:
            _die()
        return real(*arguments)

    setattr(accounts, function, counted)


async def commit_and_die(path: Path, point: str) -> None:
    async with Database(path) as database:
        before = await Accounts(database).load(KEY)
        _arm(database, point)
        await Accounts(database).commit(found(before))
        _die()


if __name__ == "__main__":
    asyncio.run(commit_and_die(Path(sys.argv[1]), sys.argv[2]))

"""An account as the store sees it: readings, what they lead to, and who is owed what."""

from collections.abc import Sequence
from typing import Any

from exporter.core.account import AccountState, PollResult, Rules, apply_snapshot
from exporter.core.model import AccountKey, FineTune, Snapshot
from exporter.core.view import SeriesOptions
from exporter.store.accounts import Accounts
from exporter.store.database import Database

KEY = AccountKey("default", "https://api.cartesia.ai")
NOW = 1_800_000_000.0


def fine_tune(fine_tune_id: str, status: str = "training", **fields: Any) -> FineTune:
    return FineTune(fine_tune_id, model_id="sonic-3", status=status, **fields)


def reading(*fine_tunes: FineTune, at: float = NOW) -> Snapshot:
    return Snapshot({fine_tune.id: fine_tune for fine_tune in fine_tunes}, at)


def record_of(
    before: AccountState | None,
    snapshot: Snapshot,
    receivers: Sequence[str] = ("slack", "webhook"),
    key: AccountKey = KEY,
) -> PollResult:
    """What a poll that read `snapshot` stores; every receiver is told of every event."""
    rules = Rules("store", key, "silent", 50, 1e9)
    return apply_snapshot(before, snapshot, rules, SeriesOptions(), lambda _: receivers)


async def committed(
    database: Database,
    before: AccountState | None,
    snapshot: Snapshot,
    receivers: Sequence[str] = ("slack", "webhook"),
) -> AccountState:
    """Commit one more reading and return the state after it."""
    record = record_of(before, snapshot, receivers)
    await Accounts(database).commit(record)
    return record.state


async def owe_failures(database: Database, number: int, receiver: str = "slack") -> None:
    """Make a receiver owed `number` failures, of f0, f1, … in this order."""
    state = await committed(database, None, reading())
    failed = (fine_tune(f"f{n}", "failed") for n in range(number))
    await committed(database, state, reading(*failed), [receiver])

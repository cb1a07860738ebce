"""Snapshots of one account, and what polls of them store."""

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


def snapshot_of(*fine_tunes: FineTune, at: float = NOW) -> Snapshot:
    return Snapshot({fine_tune.id: fine_tune for fine_tune in fine_tunes}, at)


def poll_result(
    before: AccountState | None,
    snapshot: Snapshot,
    receivers: Sequence[str] = ("slack", "webhook"),
    key: AccountKey = KEY,
) -> PollResult:
    """Return the result of a poll whose events are queued for all receivers."""
    rules = Rules("store", key, "silent", 50, 1e9)
    return apply_snapshot(before, snapshot, rules, SeriesOptions(), lambda _: receivers)


async def commit_snapshot(
    database: Database,
    before: AccountState | None,
    snapshot: Snapshot,
    receivers: Sequence[str] = ("slack", "webhook"),
) -> AccountState:
    """Commit a poll that read `snapshot` and return the state after it."""
    result = poll_result(before, snapshot, receivers)
    await Accounts(database).commit(result)
    return result.state


async def queue_failures(database: Database, number: int, receiver: str = "slack") -> None:
    """Queue `number` failures for a receiver, of f0, f1, … in this order."""
    state = await commit_snapshot(database, None, snapshot_of())
    failed = (fine_tune(f"f{n}", "failed") for n in range(number))
    await commit_snapshot(database, state, snapshot_of(*failed), [receiver])

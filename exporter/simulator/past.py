"""Simulated past of an account: what an agent would have stored over several days."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from exporter.core.account import AccountState, Router, Rules, apply_snapshot
from exporter.core.events import Event
from exporter.core.model import AccountKey, FineTune, Outage, Snapshot
from exporter.core.retry import Attempt, Outcome
from exporter.core.view import SeriesOptions
from exporter.simulator.world import World
from exporter.store.accounts import Accounts
from exporter.store.database import Database
from exporter.store.events import DELIVERED
from exporter.store.outbox import AttemptResult, NewMessage, Outbox

STEP_SECONDS: Final = 1800.0
"""Time between two simulated polls, in which the world advances by one tick."""

_OUTAGE: Final = range(190, 196)
"""Steps in which the simulated API could not be read."""


@dataclass(frozen=True, slots=True)
class Past:
    """Length of the past in seconds, its end as Unix time, and the receivers of failures.

    ``receivers`` maps their names to the answers that they gave.
    """

    seconds: float
    end: float
    receivers: Mapping[str, str]


async def write_past(path: Path, key: AccountKey, world: World, past: Past) -> None:
    """Let the world advance, and store what an agent would have. Raises StoreError."""
    route: Router = lambda event: (  # noqa: E731
        list(past.receivers) if event.type == "fine_tune.failed" else ()
    )
    steps = int(past.seconds / STEP_SECONDS)
    state: AccountState | None = None
    async with Database(path) as database:
        accounts = Accounts(database)
        rules = Rules(database.store_id, key, "silent", 50, 6 * 3600.0)
        for step in range(steps):
            world.tick()
            at = past.end - (steps - step) * STEP_SECONDS
            if step in _OUTAGE:
                outage = Outage(at, database.awake.now(), has_baseline=True, reason="server_error")
                await accounts.store_outage(key, outage, ())
                continue
            snapshot = Snapshot({each.id: each for each in _fine_tunes(world)}, at)
            result = apply_snapshot(state, snapshot, rules, SeriesOptions(), route)
            if not result.is_empty or step - 1 in _OUTAGE:
                await accounts.commit(result)
                await _deliver(database, [event for event, _ in result.events], past, at)
            state = result.state


def _fine_tunes(world: World) -> list[FineTune]:
    return [
        FineTune(
            each.id,
            each.name,
            each.description,
            each.language,
            each.model_id,
            each.dataset,
            each.status,
        )
        for each in world
    ]


async def _deliver(database: Database, events: Sequence[Event], past: Past, at: float) -> None:
    """Store that every receiver got every failure, some seconds later."""
    if not any(event.type == "fine_tune.failed" for event in events):
        return
    for number, (receiver, answer) in enumerate(past.receivers.items(), 1):
        outbox = Outbox(database, receiver)
        for item in await outbox.unsent():
            await outbox.create_messages([NewMessage(item.event.id, b"{}", (item.number,))], at)
            if message := await outbox.next():
                attempt = Attempt(Outcome.DELIVERED, answer)
                awake = database.awake.now()
                result = AttemptResult(DELIVERED, at + number, awake, attempt, seconds=0.1 * number)
                await outbox.record(message, result)

"""Time of the store's work in SQLite and in PostgreSQL, and how many times longer the latter takes.

Starts a PostgreSQL server that writes to the disk at each commit, as SQLite does; connections go
through the loopback interface. Both alternate, so that other load of the machine hits both.
"""

import asyncio
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

from exporter.core.account import AccountState, PollResult, Rules, apply_snapshot
from exporter.core.model import AccountKey, FineTune, Snapshot
from exporter.core.retry import Attempt, Outcome
from exporter.core.view import SeriesOptions
from exporter.store.accounts import Accounts
from exporter.store.database import Database
from exporter.store.events import DELIVERED
from exporter.store.outbox import NewMessage, Outbox
from exporter.store.receiver_outbox import AttemptResult
from tests.postgres_server import location_of, postgres_server

ROUNDS = 7
LARGE = 100_000
NOW = 1_800_000_000.0

Work = Callable[[Database, int], Awaitable[float]]
"""Does something in a database, for the nth time; returns the seconds that it took."""


def key(name: str) -> AccountKey:
    return AccountKey(name, "https://api.cartesia.ai")


def fine_tunes(number: int, status: str = "training") -> list[FineTune]:
    return [
        FineTune(f"ft_{n}", f"voice {n}", "a voice", "en", f"sonic-{n % 8}", f"d{n % 99}", status)
        for n in range(number)
    ]


def poll(
    database: Database,
    name: str,
    before: AccountState | None,
    listed: list[FineTune],
    receivers: tuple[str, ...] = (),
) -> PollResult:
    rules = Rules(database.store_id, key(name), "silent", 50, 1e9)
    snapshot = Snapshot({each.id: each for each in listed}, NOW)
    return apply_snapshot(before, snapshot, rules, SeriesOptions(), lambda _: receivers)


async def timed(work: Awaitable[object]) -> float:
    began = time.perf_counter()
    await work
    return time.perf_counter() - began


def changes(number: int) -> Work:
    """Commit a poll in which this many of 1,000 fine-tunes have another name."""
    states = dict[Database, AccountState]()

    async def commit(database: Database, turn: int) -> float:
        account = f"changes {number}"
        before = states.get(database)
        if before is None:
            result = poll(database, account, None, fine_tunes(1_000))
            await Accounts(database).commit(result)
            before = result.state
        listed = [each.fine_tune for each in before.tracked.values()]
        renamed = [FineTune(each.id, f"name {turn}") for each in listed[:number]]
        result = poll(database, account, before, [*renamed, *listed[number:]])
        seconds = await timed(Accounts(database).commit(result))
        states[database] = result.state
        return seconds

    return commit


async def baseline(database: Database, turn: int) -> float:
    result = poll(database, f"baseline {turn}", None, fine_tunes(10_000))
    return await timed(Accounts(database).commit(result))


async def load(database: Database, turn: int) -> float:
    if turn == 0:
        await Accounts(database).commit(poll(database, "large", None, fine_tunes(LARGE)))
    return await timed(Accounts(database).load(key("large")))


async def delivery(database: Database, turn: int) -> float:
    """Take a queued event into a message, claim it, and record that it was delivered."""
    before = None
    for status in ("training", "failed"):
        result = poll(database, f"delivery {turn}", before, fine_tunes(1, status), ("slack",))
        await Accounts(database).commit(result)
        before = result.state
    outbox = Outbox(database, "slack")

    async def deliver() -> None:
        [queued] = await outbox.unsent()
        new = NewMessage(queued.event.id, b"{}", (queued.number,))
        await outbox.create_messages([new], NOW)
        message = await outbox.next()
        assert message is not None
        await outbox.claim(message)
        attempt = Attempt(Outcome.DELIVERED, "answered 200")
        await outbox.record(message, AttemptResult(DELIVERED, NOW, 0.0, attempt))

    return await timed(deliver())


WORK: dict[str, Work] = {
    "commit of 1 changed row": changes(1),
    "commit of 100 changed rows": changes(100),
    "commit of 1,000 changed rows": changes(1_000),
    "baseline of 10,000 fine-tunes": baseline,
    "load of 100,000 fine-tunes": load,
    "take and settle a delivery": delivery,
}


async def main() -> None:
    with (
        tempfile.TemporaryDirectory() as folder,
        postgres_server(fsync="on", full_page_writes="on") as server,
    ):
        async with AsyncExitStack() as stack:
            locations = (Path(folder) / "state.db", location_of(server.url(server.new_database())))
            sqlite, postgres = [
                await stack.enter_async_context(Database(each)) for each in locations
            ]
            print("| work | SQLite ms | PostgreSQL ms | ratio |\n|---|---|---|---|")
            for name, work in WORK.items():
                pairs = [
                    (await work(sqlite, turn), await work(postgres, turn)) for turn in range(ROUNDS)
                ]
                first, second = (statistics.median(each) * 1e3 for each in zip(*pairs, strict=True))
                ratio = statistics.median(theirs / ours for ours, theirs in pairs)
                print(f"| {name} | {first:,.1f} | {second:,.1f} | {ratio:.1f} |", flush=True)


if __name__ == "__main__":
    asyncio.run(main())

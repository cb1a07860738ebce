"""Time of each page and list over a large store, and what reading them costs a poll.

Prints the table of the pages. The store has 100,000 fine-tunes, 50,000 events and 50,000
deliveries. Each page is requested with a new version of the store, so that none is answered from
the rendered pages that are kept.
"""

import asyncio
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx
from prometheus_client import CollectorRegistry
from sqlalchemy import insert, update

from exporter.core.account import AccountState, Rules, apply_snapshot
from exporter.core.health import Readiness
from exporter.core.model import AccountKey, FineTune, Snapshot
from exporter.core.view import SeriesOptions
from exporter.exposition.page import Page, Renderer
from exporter.store.accounts import Accounts
from exporter.store.database import Database
from exporter.store.overview import ReceiverSummary
from exporter.store.schema import deliveries, meta
from exporter.web.application import Application, WebContext
from exporter.web.pages import PagesContext
from exporter.web.view import ViewSettings, WatchedAccount

FINE_TUNES = 100_000
EVENTS = 50_000
ROUNDS = 15
KEY = AccountKey("main", "https://api.cartesia.ai")
PATHS = (
    "/",
    "/?range=30d",
    "/fine-tunes",
    "/fine-tunes?q=voice+99&status=failed",
    "/fine-tunes?sort=name",
    "/fine-tunes/main/f1",
    "/notifications",
    "/notifications?q=voice+77",
    "/api/v1/status",
    "/api/v1/fine-tunes?limit=100",
    "/api/v1/events?limit=100",
    "/api/v1/deliveries?limit=100&state=pending",
)


def fine_tune(number: int, status: str) -> FineTune:
    return FineTune(
        f"f{number}",
        f"voice {number}",
        "",
        "en",
        f"sonic-{number % 8}",
        f"dataset-{number % 2000}",
        status,
    )


async def fill(database: Database, now: float) -> AccountState:
    """Store all fine-tunes in training, then let half of them fail, notified of or pending."""
    rules = Rules(database.store_id, KEY, "silent", 50, 1e9)
    state: AccountState | None = None
    for at, failed in ((now - 7200, 0), (now - 3600, EVENTS)):
        listed = [fine_tune(n, "failed" if n < failed else "training") for n in range(FINE_TUNES)]
        snapshot = Snapshot({each.id: each for each in listed}, at)
        result = apply_snapshot(state, snapshot, rules, SeriesOptions(), lambda _: ["slack"])
        await Accounts(database).commit(result)
        state = result.state

    def deliver() -> None:
        with database.write() as connection:
            connection.execute(
                update(deliveries)
                .where(deliveries.c.event % 10 != 0)
                .values(state="delivered", settled_at=now - 3590, answer="answered 200")
            )

    await database.run(deliver)
    assert state is not None
    return state


async def median_of(work: Callable[[], Awaitable[object]], rounds: int = ROUNDS) -> float:
    """Return the median time of ``work`` in milliseconds."""
    durations = []
    for _ in range(rounds):
        began = time.perf_counter()
        await work()
        durations.append(time.perf_counter() - began)
    return statistics.median(durations) * 1e3


async def main() -> None:
    now = time.time()
    with tempfile.TemporaryDirectory() as folder:
        async with Database(Path(folder) / "state.db") as database, database.reader() as reader:
            state = await fill(database, now)
            settings = ViewSettings(
                (WatchedAccount(KEY.name, KEY.base_url),),
                (ReceiverSummary("slack", "slack", ("failed",)),),
            )
            rules = Rules(database.store_id, KEY, "silent", 50, 1e9)
            listed = {n: each.fine_tune for n, each in state.tracked.items()}
            result = apply_snapshot(state, Snapshot(listed, now), rules, SeriesOptions(), tuple)
            pages = PagesContext(
                reader, lambda: settings, lambda: [result.status], str, time.time, time.monotonic
            )
            page = Page(Renderer(CollectorRegistry(), tuple, time.monotonic))
            app = Application(WebContext(page, lambda: Readiness(1, 1), lambda: pages))
            transport = httpx.ASGITransport(app)
            async with httpx.AsyncClient(transport=transport, base_url="http://agent") as client:
                await measure(client, database)


async def measure(client: httpx.AsyncClient, database: Database) -> None:
    number = 0

    def touch() -> None:
        nonlocal number
        number += 1
        with database.write() as connection:
            connection.execute(insert(meta).values(name=f"touched {number}", value=""))

    print("| request | p50 ms |")
    print("|---|---|")
    for path in PATHS:

        async def get(path: str = path) -> None:
            await database.run(touch)
            answer = await client.get(path)
            assert answer.status_code == 200, answer.text

        commit = await median_of(lambda: database.run(touch))
        print(f"| `{path}` | {await median_of(get) - commit:.1f} |")
    etag = (await client.get("/")).headers["etag"]
    unchanged = await median_of(lambda: client.get("/", headers={"If-None-Match": etag}))
    print(f"| `/`, unchanged (304) | {unchanged:.1f} |")
    alone = await median_of(lambda: database.run(touch), 200)
    reading = asyncio.create_task(read_for_ever(client))
    beside = await median_of(lambda: database.run(touch), 200)
    reading.cancel()
    slower = beside / alone
    print(f"\nA commit takes {alone:.2f} ms alone and {slower:.2f} times as long beside reads.")


async def read_for_ever(client: httpx.AsyncClient) -> None:
    while True:
        await asyncio.gather(*(client.get(path) for path in ("/", "/fine-tunes", "/notifications")))


if __name__ == "__main__":
    asyncio.run(main())

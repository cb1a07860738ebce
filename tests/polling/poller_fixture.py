"""One poller on a bench: a source that answers what the test says, a real store, a held clock."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from exporter.cartesia.errors import CartesiaError
from exporter.cartesia.listing import Listing
from exporter.core.account import Rules
from exporter.core.clock import Clock
from exporter.core.events import Event
from exporter.core.model import FineTune, TrackedFineTune
from exporter.core.view import AccountStatus, SeriesOptions
from exporter.polling.metrics import PollMetrics
from exporter.polling.poller import Poller, PollSettings
from exporter.store.accounts import Accounts
from exporter.store.database import Database
from exporter.store.outbox import Outbox
from tests.exposition.rendered import metrics_of
from tests.fakes.clock import FakeClock
from tests.store.sample_polls import KEY, NOW

FAILURES = "cartesia_exporter_poll_failures_total"
SKIPPED = "cartesia_exporter_polls_skipped_total"
POLLS = "cartesia_exporter_polls_total"


STUCK_AFTER = 6 * 3600.0
STALE_AFTER = 300.0
TOLD = {"fine_tune.failed", "fine_tune.stuck", "agent.poll_failing", "agent.poll_recovered"}


def listing(*fine_tunes: FineTune, pages: int = 1, cursors: tuple[str, ...] = ()) -> Listing:
    return Listing({fine_tune.id: fine_tune for fine_tune in fine_tunes}, pages, cursors)


Answer = Listing | CartesiaError | Callable[[], Coroutine[None, None, Listing]]


@dataclass
class FakeSource:
    """Gives the answers in turn; the last one again and again."""

    answers: deque[Answer]
    refused: bool = False
    asked: int = 0
    remembered: list[tuple[str, ...]] = field(default_factory=list)
    known: Mapping[str, TrackedFineTune] = field(default_factory=dict)

    async def list_fine_tunes(
        self, seconds: float, known: Mapping[str, TrackedFineTune]
    ) -> Listing:
        self.asked += 1
        self.known = known
        answer = self.answers.popleft() if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, CartesiaError):
            raise answer
        return answer if isinstance(answer, Listing) else await answer()

    def key_is_refused(self) -> bool:
        return self.refused

    def remember(self, cursors: Sequence[str]) -> None:
        self.remembered.append(tuple(cursors))


@dataclass
class Bench:
    database: Database
    source: FakeSource
    clock: FakeClock
    registry: CollectorRegistry
    poller: Poller
    views: list[AccountStatus] = field(default_factory=list)
    wakes: list[float] = field(default_factory=list)

    @property
    def view(self) -> AccountStatus:
        return self.views[-1]

    def metric(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(name, {"account": KEY.name, **labels})

    def page(self) -> dict[tuple[str, str], float]:
        """What the page shows: name and last label's value to value."""
        return {
            (sample.name, list(sample.labels.values())[-1]): sample.value
            for family in metrics_of([self.view], self.clock.now)
            for sample in family.samples
        }

    async def owed(self) -> list[Event]:
        return [owed.event for owed in await Outbox(self.database, "slack").unsent()]

    async def execute(self, statement: str) -> None:
        """Have the store do something behind the poller's back."""

        def write() -> None:
            with self.database.write() as connection:
                connection.exec_driver_sql(statement)

        await self.database.run(write)

    async def forbid(self) -> None:
        """Have the store refuse events, as on a full disk, until `allow`."""
        await self.execute(
            "CREATE TRIGGER no BEFORE INSERT ON events BEGIN SELECT RAISE(ABORT, 'no room'); END"
        )

    async def allow(self) -> None:
        await self.execute("DROP TRIGGER no")

    async def reload(self, **changes: Any) -> None:
        """Have another poller take over, as after a reload that changes the plan."""
        old = self.poller
        plan = replace(old._plan, **changes)
        accounts = Accounts(self.database)
        self.poller = Poller(self.source, accounts, plan, old._metrics, self.clock.clock)
        self.poller.follow(old)
        await self.poller.restore()

    def then(self, *answers: Answer) -> None:
        self.source.answers = deque(answers)


@asynccontextmanager
async def bench(  # noqa: PLR0913 - each test gives what it is about
    path: Path,
    *answers: Answer,
    interval: float = 60,
    max_models: int = 50,
    failing_after: float = 600,
    clock: Clock | None = None,
    shape: SeriesOptions = SeriesOptions(),  # noqa: B008 - it is frozen
) -> AsyncIterator[Bench]:
    held, registry = FakeClock(NOW), CollectorRegistry()
    async with Database(path) as database:
        source = FakeSource(deque(answers))
        views: list[AccountStatus] = []
        wakes: list[float] = []
        plan = PollSettings(
            interval,
            timeout=10,
            rules=Rules(
                database.store_id,
                KEY,
                "silent",
                max_models,
                STUCK_AFTER,
                (shape or SeriesOptions()).names,
            ),
            failing_after=failing_after,
            publish=views.append,
            route=lambda event: ["slack"] if event.type in TOLD else [],
            wake=lambda: wakes.append(held.now),
            stale_after=STALE_AFTER,
            options=shape,
        )
        accounts, metrics = Accounts(database), PollMetrics(registry)
        poller = Poller(source, accounts, plan, metrics, clock or held.clock)
        await poller.restore()
        yield Bench(database, source, held, registry, poller, views, wakes)


def on_bench(
    path: Path,
    test: Callable[[Bench], Coroutine[None, None, None]],
    *answers: Answer,
    failing_after: float = 600,
) -> None:
    """Run a test that needs one bench."""

    async def run() -> None:
        async with (
            asyncio.timeout(30),
            bench(path, *answers, failing_after=failing_after) as made,
        ):
            await test(made)

    asyncio.run(run())

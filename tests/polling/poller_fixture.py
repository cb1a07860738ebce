"""A poller with a source of scripted answers, a real store and a clock that tests set."""

from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from msgspec.structs import replace
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
ROUTED = {"fine_tune.failed", "fine_tune.stuck", "agent.poll_failing", "agent.poll_recovered"}


def listing(*fine_tunes: FineTune, pages: int = 1, cursors: tuple[str, ...] = ()) -> Listing:
    return Listing({fine_tune.id: fine_tune for fine_tune in fine_tunes}, pages, cursors)


Answer = Listing | CartesiaError | Callable[[], Coroutine[None, None, Listing]]


@dataclass
class FakeSource:
    """Gives the answers in turn, and the last one again and again."""

    answers: deque[Answer]
    refused: bool = False
    worked: bool | None = None
    asked: int = 0
    remembered: list[tuple[str, ...]] = field(default_factory=list)
    tracked: Mapping[str, TrackedFineTune] = field(default_factory=dict)

    async def list_fine_tunes(
        self, seconds: float, tracked: Mapping[str, TrackedFineTune]
    ) -> Listing:
        self.asked += 1
        self.tracked = tracked
        answer = self.answers.popleft() if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, CartesiaError):
            raise answer
        return answer if isinstance(answer, Listing) else await answer()

    def key_is_refused(self) -> bool:
        return self.refused

    def key_has_worked(self, *, default: bool) -> bool:
        return default if self.worked is None else self.worked

    def remember(self, cursors: Sequence[str]) -> None:
        self.remembered.append(tuple(cursors))


@dataclass
class PollerFixture:
    """``wakes`` are the times when the poller woke the receivers."""

    database: Database
    source: FakeSource
    clock: FakeClock
    registry: CollectorRegistry
    poller: Poller
    statuses: list[AccountStatus] = field(default_factory=list)
    wakes: list[float] = field(default_factory=list)

    @property
    def status(self) -> AccountStatus:
        """The status that was published last."""
        return self.statuses[-1]

    def metric(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(name, {"account": KEY.name, **labels})

    def samples(self) -> dict[tuple[str, str], float]:
        """The account's samples on the page, by name and last label value."""
        return {
            (sample.name, list(sample.labels.values())[-1]): sample.value
            for family in metrics_of([self.status], self.clock.now)
            for sample in family.samples
        }

    async def queued(self) -> list[Event]:
        """The events in the outbox of the receiver `slack`."""
        return [pending.event for pending in await Outbox(self.database, "slack").unsent()]

    async def execute(self, statement: str) -> None:
        """Execute SQL in the store."""

        def write() -> None:
            with self.database.write() as connection:
                connection.exec_driver_sql(statement)

        await self.database.run(write)

    async def refuse_events(self) -> None:
        """Make commits of events fail, as on a full disk, until `accept_events`."""
        await self.execute(
            "CREATE TRIGGER no BEFORE INSERT ON events BEGIN SELECT RAISE(ABORT, 'no room'); END"
        )

    async def accept_events(self) -> None:
        await self.execute("DROP TRIGGER no")

    async def reload(self, **changes: Any) -> None:
        """Replace the poller, as a reload that changes these settings does."""
        previous = self.poller
        settings = replace(previous._settings, **changes)
        accounts, metrics = Accounts(self.database), previous._metrics
        self.poller = Poller(self.source, accounts, settings, metrics, self.clock.clock)
        await self.poller.prepare(previous)

    def answer(self, *answers: Answer) -> None:
        """Set the answers of the next polls."""
        self.source.answers = deque(answers)


@asynccontextmanager
async def open_poller(  # noqa: PLR0913 - each test gives the settings that it is about
    path: Path,
    *answers: Answer,
    interval: float = 60,
    max_models: int = 50,
    failing_after: float = 600,
    clock: Clock | None = None,
    options: SeriesOptions = SeriesOptions(),  # noqa: B008 - it is frozen
) -> AsyncIterator[PollerFixture]:
    """Open the store at ``path`` and prepare a poller; the source gives ``answers``."""
    fake_clock, registry = FakeClock(NOW), CollectorRegistry()
    async with Database(path, monotonic=fake_clock.clock.monotonic) as database:
        source = FakeSource(deque(answers))
        statuses: list[AccountStatus] = []
        wakes: list[float] = []
        settings = PollSettings(
            interval,
            timeout=10,
            rules=Rules(database.store_id, KEY, "silent", max_models, STUCK_AFTER, options.names),
            failing_after=failing_after,
            publish=statuses.append,
            withdraw=lambda _: None,
            route=lambda event: ["slack"] if event.type in ROUTED else [],
            wake=lambda: wakes.append(fake_clock.now),
            stale_after=STALE_AFTER,
            options=options,
        )
        accounts, metrics = Accounts(database), PollMetrics(registry)
        poller = Poller(source, accounts, settings, metrics, clock or fake_clock.clock)
        await poller.prepare(None)
        yield PollerFixture(database, source, fake_clock, registry, poller, statuses, wakes)

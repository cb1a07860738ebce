"""One receiver, its deliverer and a real store on a bench: the test holds the clock."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from exporter.core.message import LinkTemplates, Message
from exporter.core.model import OutboxMessage
from exporter.core.retry import Attempt, Outcome
from exporter.delivery.deliverer import Deliverer
from exporter.delivery.metrics import DeliveryMetrics
from exporter.delivery.settings import DeliverySettings
from exporter.store.accounts import Accounts
from exporter.store.database import Database
from exporter.store.outbox import Outbox
from tests.fakes.clock import FakeClock
from tests.store.sample_polls import KEY, NOW, commit_snapshot, fine_tune, snapshot_of

TAKEN = Attempt(Outcome.DELIVERED, "answered 200")
BUSY = Attempt(Outcome.TRANSIENT, "answered 503")
REFUSED = Attempt(Outcome.PAYLOAD, "answered 400")

Answer = Attempt | Callable[[OutboxMessage], Attempt]


@dataclass
class FakeReceiver:
    """Answers what it is told to, then TAKEN; its messages are the ids of their fine-tunes."""

    name: str = "slack"
    spacing: float = 0.0
    most_events: int = 1000
    seconds: float = 15.0
    answers: deque[Answer] = field(default_factory=deque)
    sent: list[OutboxMessage] = field(default_factory=list)

    def render(self, message: Message, *, minimal: bool = False) -> bytes:
        ids = " ".join(event.fine_tune.id for event in message.events if event.fine_tune)
        return f"{'minimal' if minimal else 'full'} {ids}".encode()

    def repeated(self, body: bytes) -> bytes:
        return body + b" again"

    async def send(self, delivery: OutboxMessage, now: float) -> Attempt:
        self.sent.append(delivery)
        answer = self.answers.popleft() if self.answers else TAKEN
        return answer if isinstance(answer, Attempt) else answer(delivery)

    @property
    def bodies(self) -> list[str]:
        return [delivery.body.decode() for delivery in self.sent]


@dataclass
class Bench:
    """What a test of one deliverer works with."""

    database: Database
    receiver: FakeReceiver
    plan: DeliverySettings
    clock: FakeClock
    registry: CollectorRegistry
    deliverer: Deliverer

    @property
    def outbox(self) -> Outbox:
        return Outbox(self.database, self.receiver.name)

    async def fail(self, *ids: str) -> None:
        """Owe the receiver one failure each, observed now."""
        await fail(self.database, ids, self.clock.now, self.receiver.name)

    async def turns(self, number: int) -> None:
        """Take turns in which an attempt is due, letting pauses pass."""
        for _ in range(number):
            tried = len(self.receiver.sent)
            while len(self.receiver.sent) == tried:
                self.clock.now += await self.deliverer.deliver_due()

    async def settle(self) -> None:
        """Take turns, letting time pass, until nothing is owed."""
        while (await self.outbox.backlog()).pending:
            self.clock.now += await self.deliverer.deliver_due()

    def metric(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(name, {"receiver": self.receiver.name, **labels})

    def failed(self, reason: str) -> float | None:
        return self.metric("cartesia_exporter_notifications_failed_total", reason=reason)


async def fail(database: Database, ids: tuple[str, ...], now: float, *receivers: str) -> None:
    """Owe the receivers one failure for each id."""
    before = await Accounts(database).load(KEY)
    if before is None:
        before = await commit_snapshot(database, None, snapshot_of(at=now))
    known = [each.fine_tune for each in before.tracked.values()]
    failed = (fine_tune(each, "failed") for each in ids)
    await commit_snapshot(database, before, snapshot_of(*known, *failed, at=now), receivers)


def plan_of(group_wait: float = 0.0, digest_threshold: int = 5, **more: Any) -> DeliverySettings:
    return DeliverySettings(
        **{
            "store_id": "store",
            "group_wait": group_wait,
            "digest_threshold": digest_threshold,
            "max_age": 72 * 3600.0,
            "link_templates": LinkTemplates("https://play.example"),
            "route": lambda event: ["other"] if event.fine_tune is None else [],
            "wake": lambda: None,
            **more,
        }
    )


@asynccontextmanager
async def bench(
    path: Path,
    receiver: FakeReceiver | None = None,
    plan: DeliverySettings | None = None,
    clock: FakeClock | None = None,
) -> AsyncIterator[Bench]:
    receiver, plan, clock = receiver or FakeReceiver(), plan or plan_of(), clock or FakeClock(NOW)
    registry = CollectorRegistry()
    async with Database(path) as database:
        outbox = Outbox(database, receiver.name)
        metrics = DeliveryMetrics(registry)
        deliverer = Deliverer(receiver, outbox, plan, metrics, clock.clock)
        yield Bench(database, receiver, plan, clock, registry, deliverer)


def on_bench(
    path: Path,
    test: Callable[[Bench], Coroutine[None, None, None]],
    receiver: FakeReceiver | None = None,
    plan: DeliverySettings | None = None,
) -> None:
    """Run a test that needs one bench."""

    async def run() -> None:
        async with asyncio.timeout(30), bench(path, receiver, plan) as made:
            await test(made)

    asyncio.run(run())


async def until(condition: Callable[[], bool], seconds: float = 20) -> None:
    """Wait until something is so; raise TimeoutError when it is not in time."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - what it waits for sets no event
            await asyncio.sleep(0.005)

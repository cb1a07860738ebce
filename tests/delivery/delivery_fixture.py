"""One receiver with its deliverer and a real store; the test controls clock and answers."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from exporter.core.events import Event
from exporter.core.links import LinkTemplates
from exporter.core.message import Message, MessageSettings
from exporter.core.model import OutboxMessage
from exporter.core.retry import Attempt, Outcome
from exporter.delivery.deliverer import Deliverer
from exporter.delivery.loop import LOOK_SECONDS
from exporter.delivery.metrics import DeliveryMetrics
from exporter.delivery.settings import DeliverySettings
from exporter.store.accounts import Accounts
from exporter.store.database import Database
from exporter.store.events import record_events
from exporter.store.outbox import Outbox
from tests.fakes.clock import FakeClock
from tests.store.sample_polls import KEY, NOW, commit_snapshot, fine_tune, snapshot_of

ACCEPTED = Attempt(Outcome.DELIVERED, "answered 200")
BUSY = Attempt(Outcome.TRANSIENT, "answered 503")
REFUSED = Attempt(Outcome.PAYLOAD, "answered 400")

EXPIRED = "cartesia_exporter_deliveries_expired_total"

Answer = Attempt | Callable[[OutboxMessage], Attempt]


@dataclass
class FakeReceiver:
    """Gives the queued answers, then ACCEPTED. A message's bytes are the ids of its fine-tunes."""

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

    async def send(self, message: OutboxMessage, now: float) -> Attempt:
        self.sent.append(message)
        answer = self.answers.popleft() if self.answers else ACCEPTED
        return answer if isinstance(answer, Attempt) else answer(message)

    @property
    def texts(self) -> list[str]:
        return [message.body.decode() for message in self.sent]


class BlockedReceiver(FakeReceiver):
    """Answers once ``released`` is set; ``requested`` is set by the first request."""

    def __init__(self, **fields: Any) -> None:
        super().__init__(**fields)
        self.requested, self.released = asyncio.Event(), asyncio.Event()

    async def send(self, message: OutboxMessage, now: float) -> Attempt:
        self.requested.set()
        await self.released.wait()
        return await super().send(message, now)


def answering(*answers: Answer, **fields: Any) -> FakeReceiver:
    return FakeReceiver(answers=deque(answers), **fields)


@dataclass
class DeliveryFixture:
    database: Database
    receiver: FakeReceiver
    clock: FakeClock
    registry: CollectorRegistry
    deliverer: Deliverer

    @property
    def outbox(self) -> Outbox:
        return Outbox(self.database, self.receiver.name)

    async def queue_failures(self, *ids: str) -> None:
        """Queue one failure per id for the receiver, observed now."""
        await queue_failures(self.database, ids, self.clock.clock.now(), self.receiver.name)

    def rebuilt(self, settings: DeliverySettings) -> Deliverer:
        """Return a deliverer as a reload with these settings builds it."""
        metrics = DeliveryMetrics(CollectorRegistry())
        return Deliverer(self.receiver, self.outbox, settings, metrics, self.clock.clock)

    async def run_for(self, seconds: float, look: float = 5.0) -> None:
        """Run turns as the deliverer's loop does, for so many seconds of the fake clock.

        There is a turn at least every ``look`` seconds.
        """
        end = self.clock.now + seconds
        while self.clock.now < end:
            wait = await self.deliverer.deliver_due()
            wait = look if wait == LOOK_SECONDS else min(wait, look)
            self.clock.now = min(self.clock.now + wait, end)
        await self.deliverer.deliver_due()

    async def make_attempts(self, number: int) -> None:
        """Run turns until so many requests were made; pauses pass at once."""
        for _ in range(number):
            sent = len(self.receiver.sent)
            while len(self.receiver.sent) == sent:
                self.clock.now += await self.deliverer.deliver_due()

    async def deliver_all(self) -> None:
        """Run turns until nothing is pending; pauses pass at once."""
        while (await self.outbox.backlog()).pending:
            self.clock.now += await self.deliverer.deliver_due()

    def metric(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(name, {"receiver": self.receiver.name, **labels})

    def failures(self, reason: str) -> float | None:
        return self.metric("cartesia_exporter_notifications_failed_total", reason=reason)


async def queue_failures(
    database: Database, ids: Sequence[str], now: float, *receivers: str
) -> None:
    """Commit a poll in which these fine-tunes fail, and queue their events for the receivers."""
    before = await Accounts(database).load(KEY)
    if before is None:
        before = await commit_snapshot(database, None, snapshot_of(at=now))
    tracked = [each.fine_tune for each in before.tracked.values()]
    failed = (fine_tune(each, "failed") for each in ids)
    await commit_snapshot(database, before, snapshot_of(*tracked, *failed, at=now), receivers)


async def queue_trouble(delivery: DeliveryFixture, event_id: str) -> None:
    event = Event(event_id, "agent.poll_failing", "default", delivery.clock.now)

    def record() -> None:
        with delivery.database.write() as connection:
            record_events(connection, [(event, [delivery.receiver.name])])

    await delivery.database.run(record)


def delivery_settings(
    group_wait: float = 0.0, digest_threshold: int = 5, **more: Any
) -> DeliverySettings:
    return DeliverySettings(
        **{
            "store_id": "store",
            "group_wait": group_wait,
            "group_interval": 0.0,
            "digest_threshold": digest_threshold,
            "max_age": 72 * 3600.0,
            "messages": MessageSettings(LinkTemplates("https://play.example")),
            "route": lambda event: ["other"] if event.fine_tune is None else [],
            "wake": lambda: None,
            **more,
        }
    )


@asynccontextmanager
async def open_delivery(
    folder: Path,
    receiver: FakeReceiver | None = None,
    settings: DeliverySettings | None = None,
    clock: FakeClock | None = None,
) -> AsyncIterator[DeliveryFixture]:
    receiver, clock = receiver or FakeReceiver(), clock or FakeClock(NOW)
    registry = CollectorRegistry()
    async with Database(folder / "state.db", monotonic=clock.clock.monotonic) as database:
        outbox, metrics = Outbox(database, receiver.name), DeliveryMetrics(registry)
        settings = settings or delivery_settings()
        deliverer = Deliverer(receiver, outbox, settings, metrics, clock.clock)
        yield DeliveryFixture(database, receiver, clock, registry, deliverer)


async def until(condition: Callable[[], bool], seconds: float = 20) -> None:
    """Wait until ``condition`` is true; raise TimeoutError if that takes longer."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - nothing sets an event for it
            await asyncio.sleep(0.005)

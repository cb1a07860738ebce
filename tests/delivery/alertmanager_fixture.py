"""An Alertmanager of several members on a bench, with a real store: the test holds the clock."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from exporter.core.active_alerts import AlertRow
from exporter.core.retry import Attempt, Outcome
from exporter.delivery.alertmanager import AlertDeliverer, MemberDeliverer
from exporter.delivery.metrics import DeliveryMetrics
from exporter.delivery.settings import DeliverySettings
from exporter.receivers.alertmanager import Alertmanager, Member
from exporter.store.alert_outbox import AlertOutbox
from exporter.store.database import Database
from tests.delivery.delivery_fixture import fail, plan_of
from tests.fakes.alertmanager import Alerts, seconds
from tests.fakes.clock import FakeClock
from tests.store.sample_polls import NOW

AM = "alertmanager"
HOLD = 3600.0
BUSY = Attempt(Outcome.TRANSIENT, "answered 503")
GONE = Attempt(Outcome.ENDPOINT, "answered 404")


@dataclass
class FakeMember:
    """Answers what it is told to; after that it does what an Alertmanager does."""

    alerts: Alerts = field(default_factory=Alerts)
    answers: deque[Attempt] = field(default_factory=deque)
    asked: list[bytes] = field(default_factory=list)
    go: asyncio.Event = field(default_factory=asyncio.Event)
    seconds: float = 15.0

    def __post_init__(self) -> None:
        self.go.set()

    async def post(self, body: bytes, now: float) -> Attempt:
        self.asked.append(body)
        await self.go.wait()
        if self.answers:
            return self.answers.popleft()
        status = self.alerts.post(body)
        outcome = Outcome.DELIVERED if status == 200 else Outcome.PAYLOAD
        return Attempt(outcome, f"answered {status}")

    def ends(self) -> dict[str, float]:
        """The end of each alert that it holds, by its fine-tune."""
        held = self.alerts.held.values()
        return {each["labels"]["fine_tune_id"]: seconds(each["endsAt"]) for each in held}

    def ends_of(self, fine_tune_id: str) -> list[float]:
        """The ends of one fine-tune's alerts: a minimal one has an identity of its own."""
        held = self.alerts.held.values()
        found = (each for each in held if each["labels"]["fine_tune_id"] == fine_tune_id)
        return [seconds(each["endsAt"]) for each in found]


@dataclass
class Alerting:
    database: Database
    members: list[FakeMember]
    clock: FakeClock
    registry: CollectorRegistry
    deliverer: AlertDeliverer

    @property
    def outbox(self) -> AlertOutbox:
        return AlertOutbox(self.database, AM)

    async def fail(self, *ids: str) -> None:
        """Owe one failure each, observed now."""
        await fail(self.database, ids, self.clock.now, AM)

    async def turns(self, *members: int) -> None:
        """Let members make requests until none of them has one due."""
        for number in members or range(len(self.members)):
            member: MemberDeliverer = self.deliverer.members[number]
            while await member.post_due() == 0:
                pass

    async def owed(self) -> list[AlertRow]:
        return await self.outbox.owed(0)

    def metric(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(name, {"receiver": AM, **labels})

    def failed(self, reason: str) -> float | None:
        return self.metric("cartesia_exporter_notifications_failed_total", reason=reason)


@asynccontextmanager
async def alerting(
    path: Path,
    members: list[FakeMember],
    plan: DeliverySettings | None = None,
    clock: FakeClock | None = None,
) -> AsyncIterator[Alerting]:
    clock, registry = clock or FakeClock(NOW), CollectorRegistry()
    async with Database(path / "state.db") as database:
        posts: list[Any] = list(members)
        receiver = Alertmanager(AM, _as_members(posts), HOLD)
        metrics, outbox = DeliveryMetrics(registry), AlertOutbox(database, AM)
        deliverer = AlertDeliverer(receiver, outbox, plan or plan_of(), metrics, clock.clock)
        yield Alerting(database, members, clock, registry, deliverer)


def _as_members(members: list[Any]) -> list[Member]:
    return members


def on_bench(
    path: Path,
    test: Callable[[Alerting], Coroutine[None, None, None]],
    members: int = 1,
    plan: DeliverySettings | None = None,
) -> None:
    """Run a test that needs one Alertmanager."""

    async def run() -> None:
        fakes = [FakeMember() for _ in range(members)]
        async with asyncio.timeout(60), alerting(path, fakes, plan) as made:
            await test(made)

    asyncio.run(run())

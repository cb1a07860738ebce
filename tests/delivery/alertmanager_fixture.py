"""One Alertmanager with its deliverer and a real store; the test controls clock and answers."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry
from sqlalchemy import Connection

from exporter.core.active_alerts import AlertRow
from exporter.core.events import Event
from exporter.core.retry import Attempt, Outcome
from exporter.delivery.alertmanager import AlertDeliverer
from exporter.delivery.metrics import DeliveryMetrics
from exporter.delivery.settings import DeliverySettings
from exporter.receivers.alertmanager import Alertmanager
from exporter.store.alert_outbox import AlertOutbox
from exporter.store.database import Database
from exporter.store.events import record_events
from tests.delivery.delivery_fixture import delivery_settings, queue_failures
from tests.fakes.alertmanager import Alerts, seconds
from tests.fakes.clock import FakeClock
from tests.store.sample_polls import NOW, fine_tune

AM = "alertmanager"
HOLD = 3600.0
BUSY = Attempt(Outcome.TRANSIENT, "answered 503")
GONE = Attempt(Outcome.ENDPOINT, "answered 404")
PENDING_AGAIN = "UPDATE deliveries SET state = 'pending', settled_at = NULL, settled_awake = NULL"


@dataclass
class FakeMember:
    """Gives the queued answers, then does what an Alertmanager does.

    ``requests`` are the bodies of all posts, ``alerts`` what it accepted. It answers while
    ``released`` is set.
    """

    alerts: Alerts = field(default_factory=Alerts)
    answers: deque[Attempt] = field(default_factory=deque)
    requests: list[bytes] = field(default_factory=list)
    released: asyncio.Event = field(default_factory=asyncio.Event)
    seconds: float = 15.0

    def __post_init__(self) -> None:
        self.released.set()

    async def attempt(self, body: bytes, headers: Mapping[str, str], now: float) -> Attempt:
        self.requests.append(body)
        await self.released.wait()
        if self.answers:
            return self.answers.popleft()
        status = self.alerts.post(body)
        outcome = Outcome.DELIVERED if status == 200 else Outcome.PAYLOAD
        return Attempt(outcome, f"answered {status}")

    def ends(self) -> dict[str, float]:
        """Return the end of each alert that it holds, by fine-tune id."""
        held = self.alerts.held.values()
        return {each["labels"]["fine_tune_id"]: seconds(each["endsAt"]) for each in held}

    def ends_of(self, fine_tune_id: str) -> list[float]:
        """Return the ends of one fine-tune's alerts: a minimal one is another alert."""
        held = self.alerts.held.values()
        found = (each for each in held if each["labels"]["fine_tune_id"] == fine_tune_id)
        return [seconds(each["endsAt"]) for each in found]


@dataclass
class AlertmanagerFixture:
    database: Database
    members: Sequence[FakeMember]
    clock: FakeClock
    registry: CollectorRegistry
    deliverer: AlertDeliverer

    @property
    def outbox(self) -> AlertOutbox:
        return AlertOutbox(self.database, AM)

    async def queue_failures(self, *ids: str) -> None:
        """Queue one failure per id, observed now."""
        await queue_failures(self.database, ids, self.clock.clock.now(), AM)

    async def leave_failed(self, name: str) -> None:
        """Record that a fine-tune left its status; no receiver is notified."""
        now = self.clock.clock.now()
        left = Event(f"left_{name}", "fine_tune.changed", "default", now, fine_tune(name))
        await self.record_event(left)

    async def record_event(self, event: Event, *receivers: str) -> None:
        """Store an event, queued for the receivers."""
        await self.write(lambda connection: record_events(connection, [(event, receivers)]))

    async def write(self, work: Callable[[Connection], Any]) -> None:
        """Run ``work`` in a transaction of the store."""

        def run() -> None:
            with self.database.write() as connection:
                work(connection)

        await self.database.run(run)

    async def execute(self, statement: str) -> None:
        await self.write(lambda connection: connection.exec_driver_sql(statement))

    async def post_all(self, *members: int) -> None:
        """Run turns of these members, or all, until none has a request due."""
        for number in members or range(len(self.members)):
            while await self.deliverer.members[number].deliver_due() == 0:
                pass

    async def rows(self) -> list[AlertRow]:
        return await self.outbox.alert_rows(-1)

    def metric(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(name, {"receiver": AM, **labels})

    def failures(self, reason: str) -> float | None:
        return self.metric("cartesia_exporter_notifications_failed_total", reason=reason)


@asynccontextmanager
async def open_alertmanager(
    folder: Path,
    members: Sequence[Any],
    settings: DeliverySettings | None = None,
    clock: FakeClock | None = None,
) -> AsyncIterator[AlertmanagerFixture]:
    clock, registry = clock or FakeClock(NOW), CollectorRegistry()
    async with Database(folder / "state.db", monotonic=clock.clock.monotonic) as database:
        receiver = Alertmanager(AM, members, HOLD)
        metrics, outbox = DeliveryMetrics(registry), AlertOutbox(database, AM)
        settings = settings or delivery_settings()
        deliverer = AlertDeliverer(receiver, outbox, settings, metrics, clock.clock)
        yield AlertmanagerFixture(database, members, clock, registry, deliverer)

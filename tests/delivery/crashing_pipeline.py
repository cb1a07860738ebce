"""The pipeline from poll to receivers over a real store, in a process that crashes.

It crashes at named points, by `Crash`, and loses what it had not stored.
"""

import asyncio
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import inf

from prometheus_client import CollectorRegistry
from sqlalchemy import select

from exporter.cartesia.errors import CartesiaError
from exporter.cartesia.listing import Listing
from exporter.core.account import PollResult, Rules
from exporter.core.clock import Clock
from exporter.core.events import SUBSCRIPTIONS, EventType
from exporter.core.match import Match
from exporter.core.model import FineTune, OutboxMessage, TrackedFineTune
from exporter.core.routing import Route, receivers_of
from exporter.core.view import AccountStatus, SeriesOptions
from exporter.delivery.deliverer import Deliverer
from exporter.delivery.metrics import DeliveryMetrics
from exporter.polling.metrics import PollMetrics
from exporter.polling.poller import Poller, PollSettings
from exporter.store.accounts import Accounts
from exporter.store.database import Database
from exporter.store.location import StoreLocation
from exporter.store.outbox import NewMessage, Outbox
from exporter.store.receiver_outbox import AttemptResult
from exporter.store.schema import deliveries, events, messages
from tests.delivery.delivery_fixture import delivery_settings
from tests.delivery.delivery_oracle import Crash, DeliveryOracle, FailureOracle
from tests.store.raw_sql import end_of_refusal, refusal_of
from tests.store.sample_polls import KEY, NOW

CRASH_POINTS = tuple(
    f"{when} {what}"
    for what in ("commit", "create_messages", "claim", "record", "replace_body", "split")
    for when in ("before", "after")
)


@dataclass
class Environment:
    """What outlives the process: API, clocks and the next crash. Times are in seconds."""

    fine_tunes: dict[str, FineTune] = field(default_factory=dict)
    api_fails: bool = False
    wall: float = NOW
    monotonic: float = 0.0
    crash_at: str | None = None
    restarts: int = 0

    @property
    def clock(self) -> Clock:
        return Clock(lambda: self.wall, lambda: self.monotonic, lambda: 0.5)

    def pass_time(self, seconds: float) -> None:
        self.wall += seconds
        self.monotonic += seconds

    async def list_fine_tunes(
        self, seconds: float, tracked: Mapping[str, TrackedFineTune]
    ) -> Listing:
        if self.api_fails:
            raise CartesiaError("server_error", "answered 503")
        return Listing(dict(self.fine_tunes), 1)

    def key_has_worked(self, *, default: bool) -> bool:
        return default

    def key_is_refused(self) -> bool:
        return False

    def remember(self, cursors: Sequence[str]) -> None:
        pass  # it serves the whole list at once

    @contextmanager
    def may_crash(self, step: str) -> Iterator[None]:
        """Crash before or after a step if ``crash_at`` says so."""
        for when in ("before", "after"):
            if when == "after":
                yield
            if self.crash_at == f"{when} {step}":
                self.crash_at = None
                raise Crash


class _CrashingAccounts(Accounts):
    def __init__(self, database: Database, environment: Environment) -> None:
        super().__init__(database)
        self._environment = environment
        self.commit_snapshot = False

    async def commit(self, record: PollResult) -> None:
        with self._environment.may_crash("commit"):
            await super().commit(record)
            self.commit_snapshot = True


class _CrashingOutbox(Outbox):
    def __init__(
        self, database: Database, oracle: DeliveryOracle, environment: Environment
    ) -> None:
        super().__init__(database, oracle.name)
        self._oracle = oracle
        self._environment = environment

    async def create_messages(
        self,
        new: Sequence[NewMessage],
        now: float,
        *,
        held_until: float = -inf,
        muted: bool = False,
    ) -> None:
        with self._environment.may_crash("create_messages"):
            await super().create_messages(new, now, held_until=held_until, muted=muted)

    async def claim(self, message: OutboxMessage) -> None:
        with self._environment.may_crash("claim"):
            await super().claim(message)
            self._oracle.claimed.add(message.id)

    async def record(self, message: OutboxMessage, result: AttemptResult) -> list[float]:
        with self._environment.may_crash("record"):
            delays = await super().record(message, result)
            self._oracle.record_stored_result(message.id)
            if result.state == "delivered":
                self._oracle.settled.add(message.id)
        return delays

    async def replace_body(self, message: OutboxMessage, body: bytes) -> None:
        with self._environment.may_crash("replace_body"):
            await super().replace_body(message, body)

    async def split(
        self, message: OutboxMessage, parts: Sequence[NewMessage], result: AttemptResult
    ) -> None:
        with self._environment.may_crash("split"):
            await super().split(message, parts, result)
            self._oracle.record_stored_result(message.id)


_EVERY_TYPE = frozenset().union(*SUBSCRIPTIONS.values())
ROUTES = (
    Route("chat", SUBSCRIPTIONS["failed"] | SUBSCRIPTIONS["agent"]),
    Route(
        "hook",
        SUBSCRIPTIONS["failed"] | SUBSCRIPTIONS["recovered"],
        Match.of({"model_id": "sonic-2"}),
    ),
    Route("log", _EVERY_TYPE),
)
DIGEST_THRESHOLD = 2


def oracles() -> dict[str, DeliveryOracle]:
    """Return a receiver per route; the chat accepts any number of events in one message."""
    sizes = {"chat": 10**9, "hook": 3, "log": 3}
    return {
        name: DeliveryOracle(name, most, 1.2 * (name == "chat")) for name, most in sizes.items()
    }


class CrashingPipeline:
    """One process after the other over the same store."""

    def __init__(
        self,
        location: StoreLocation,
        environment: Environment,
        receivers: dict[str, DeliveryOracle],
    ) -> None:
        self.failures = FailureOracle()
        self._location = location
        self._environment = environment
        self._receivers = receivers
        self._runner = asyncio.Runner()
        self._first_seen: dict[str, float] = {}
        self.start()

    def start(self) -> None:
        clock = self._environment.clock
        self.database = Database(self._location, monotonic=clock.monotonic)
        self._runner.run(self.database.__aenter__())
        metrics = DeliveryMetrics(CollectorRegistry())
        settings = delivery_settings(
            2.0, DIGEST_THRESHOLD, route=lambda event: receivers_of(event, ROUTES)
        )
        self._deliverers = [
            Deliverer(
                each,
                _CrashingOutbox(self.database, each, self._environment),
                settings,
                metrics,
                clock,
            )
            for each in self._receivers.values()
        ]
        self._statuses: list[AccountStatus] = []
        self._accounts = _CrashingAccounts(self.database, self._environment)
        polls = PollSettings(
            60.0,
            10.0,
            Rules(self.database.store_id, KEY, "silent", 50, 1e9),
            0.0,
            publish=self._statuses.append,
            withdraw=lambda _: None,
            route=lambda event: receivers_of(event, ROUTES),
            wake=lambda: None,
            stale_after=300.0,
            options=SeriesOptions(),
        )
        counts = PollMetrics(CollectorRegistry())
        self._poller = Poller(self._environment, self._accounts, polls, counts, clock)
        self._runner.run(self._poller.prepare(None))

    def end(self) -> None:
        self._runner.run(self.database.__aexit__())
        for each in self._receivers.values():
            each.record_crash()

    def restart(self) -> None:
        self._environment.restarts += 1
        self.end()
        self.start()

    def close(self) -> None:
        self.end()
        self._runner.close()

    def poll(self) -> None:
        """Poll once; a snapshot counts when it was commit_snapshot, or had nothing to commit."""
        self._accounts.commit_snapshot = False
        try:
            self._runner.run(self._poller.poll())
            counts = self._statuses[-1].up
        except Crash:
            counts = self._accounts.commit_snapshot
            self.restart()
        if counts:
            self.failures.observe(self._environment.fine_tunes)
        for event_id, _, _ in self.failure_deliveries():
            self._first_seen.setdefault(event_id, self._environment.monotonic)

    def deliver(self) -> float:
        """Run a turn of each receiver; return the seconds until the next one is due."""
        waits = []
        for each in list(self._deliverers):
            try:
                waits.append(self._runner.run(each.deliver_due()))
            except Crash:
                self.restart()
                return 0.0
        return min(waits)

    def refuse_writes(self, what: str) -> None:
        """Let certain writes fail, such as "INSERT ON events"."""
        self._execute(end_of_refusal(self.database), *refusal_of(self.database, what))

    def accept_writes(self) -> None:
        self._execute(end_of_refusal(self.database))

    def _execute(self, *statements: str) -> None:
        with self.database.write() as connection:
            for statement in statements:
                connection.exec_driver_sql(statement)

    def failure_deliveries(
        self, event_type: EventType = "fine_tune.failed"
    ) -> dict[tuple[str, str, str], str]:
        """Return the state of each delivery of a type by event, fine-tune and receiver."""
        columns = events.c.id, events.c.subject, deliveries.c.receiver, deliveries.c.state
        query = (
            select(*columns)
            .join(deliveries, deliveries.c.event == events.c.number)
            .where(events.c.type == event_type)
        )
        with self.database.read() as connection:
            return {(row[0], row[1], row[2]): row[3] for row in connection.execute(query)}

    def expired_events(self) -> set[str]:
        """Return the ids of the failures that may have expired, whatever the wall clock says."""
        limit = self._environment.monotonic - 72 * 3600
        return {event_id for event_id, seen in self._first_seen.items() if seen < limit}

    def count_messages(self, receiver: str) -> Counter[str]:
        """Return the number of a receiver's messages by state."""
        query = select(messages.c.state).where(messages.c.receiver == receiver)
        with self.database.read() as connection:
            return Counter(connection.execute(query).scalars())

    def pending_messages(self, receiver: str) -> set[str]:
        """Return the ids of a receiver's messages that are stored as pending."""
        query = select(messages.c.id).where(
            messages.c.receiver == receiver, messages.c.state == "pending"
        )
        with self.database.read() as connection:
            return set(connection.execute(query).scalars())

    def count_pending(self) -> int:
        query = select(deliveries.c.event).where(deliveries.c.state == "pending")
        with self.database.read() as connection:
            return len(connection.execute(query).all())


def fine_tune(name: str, status: str) -> FineTune:
    """Return a fine-tune of one of two models, by its name."""
    return FineTune(name, model_id=f"sonic-{2 + int(name[1:]) % 2}", status=status)

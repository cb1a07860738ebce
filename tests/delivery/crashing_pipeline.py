"""The straight line from a poll to the receivers over a real store, in a process that may die.

It dies at named points, by `Crash`, and what it had not stored is gone.
"""

import asyncio
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from prometheus_client import CollectorRegistry
from sqlalchemy import select

from exporter.cartesia.errors import CartesiaError
from exporter.cartesia.listing import Listing
from exporter.core.account import PollResult, Rules
from exporter.core.clock import Clock
from exporter.core.events import SUBSCRIPTIONS
from exporter.core.model import FineTune, OutboxMessage, TrackedFineTune
from exporter.core.routing import Route, receivers_of
from exporter.core.view import AccountStatus
from exporter.delivery.deliverer import Deliverer
from exporter.delivery.metrics import DeliveryMetrics
from exporter.polling.metrics import PollMetrics
from exporter.polling.poller import Poller, PollSettings
from exporter.store.accounts import Accounts
from exporter.store.database import Database
from exporter.store.errors import StoreError
from exporter.store.outbox import NewMessage, Outbox, Result
from exporter.store.schema import deliveries, events, messages
from tests.delivery.delivery_fixture import plan_of
from tests.delivery.delivery_oracle import Crash, Failures, Witness
from tests.store.sample_polls import KEY, NOW

POINTS = tuple(
    f"{when} {what}"
    for what in ("commit", "freeze", "claim", "record", "replace_body")
    for when in ("before", "after")
)


@dataclass
class Circumstances:
    """The world around the process: it outlives it. Times are in seconds."""

    fine_tunes: dict[str, FineTune] = field(default_factory=dict)
    api_fails: bool = False
    wall: float = NOW
    latest: float = NOW
    monotonic: float = 0.0
    dies_at: str | None = None
    deaths: int = 0

    @property
    def clock(self) -> Clock:
        return Clock(lambda: self.wall, lambda: self.monotonic, lambda: 0.5)

    def pass_time(self, seconds: float) -> None:
        self.wall += seconds
        self.monotonic += seconds
        self.latest = max(self.latest, self.wall)

    async def list_fine_tunes(
        self, seconds: float, known: Mapping[str, TrackedFineTune]
    ) -> Listing:
        if self.api_fails:
            raise CartesiaError("server_error", "answered 503")
        return Listing(dict(self.fine_tunes), 1)

    def key_is_refused(self) -> bool:
        return False

    def remember(self, cursors: Sequence[str]) -> None:
        pass  # it has the list at hand

    @contextmanager
    def mortal(self, step: str) -> Iterator[None]:
        """Die before or behind a step if it is time to."""
        for when in ("before", "after"):
            if when == "after":
                yield
            if self.dies_at == f"{when} {step}":
                self.dies_at = None
                raise Crash


class _Accounts(Accounts):
    def __init__(self, database: Database, around: Circumstances) -> None:
        super().__init__(database)
        self._around = around
        self.committed = False

    async def commit(self, record: PollResult) -> None:
        with self._around.mortal("commit"):
            await super().commit(record)
            self.committed = True


class _Outbox(Outbox):
    def __init__(self, database: Database, witness: Witness, around: Circumstances) -> None:
        super().__init__(database, witness.name)
        self._witness = witness
        self._around = around

    async def freeze(self, new: Collection[NewMessage], now: float) -> None:
        with self._around.mortal("freeze"):
            await super().freeze(list(new), now)

    async def claim(self, delivery: OutboxMessage) -> None:
        with self._around.mortal("claim"):
            try:
                await super().claim(delivery)
            except StoreError:
                self._witness.unclaimed.add(delivery.id)
                raise
            self._witness.claimed.add(delivery.id)

    async def record(self, delivery: OutboxMessage, result: Result) -> list[float]:
        with self._around.mortal("record"):
            observed = await super().record(delivery, result)
            self._witness.claimed.discard(delivery.id)
            if result.state == "delivered":
                self._witness.settled.add(delivery.id)
        return observed

    async def replace_body(self, delivery: OutboxMessage, body: bytes) -> None:
        with self._around.mortal("replace_body"):
            await super().replace_body(delivery, body)


_EVERYTHING = frozenset().union(*SUBSCRIPTIONS.values())
INTERESTS = (
    Route("chat", SUBSCRIPTIONS["failed"] | SUBSCRIPTIONS["agent"]),
    Route("hook", SUBSCRIPTIONS["failed"], {"model_id": re.compile("sonic-2")}),
    Route("log", _EVERYTHING),
)
DIGEST_THRESHOLD = 2


def witnesses() -> dict[str, Witness]:
    """Return receivers of the interests: a chat takes any number of events in one message."""
    sizes = {"chat": 10**9, "hook": 3, "log": 3}
    return {name: Witness(name, most, 1.2 * (name == "chat")) for name, most in sizes.items()}


class Agent:
    """One process after the other over the same store."""

    def __init__(self, path: Path, around: Circumstances, told: dict[str, Witness]) -> None:
        self.failures = Failures()
        self._path = path
        self._around = around
        self._told = told
        self._runner = asyncio.Runner()
        self.start()

    def start(self) -> None:
        self.database = Database(self._path)
        self._runner.run(self.database.__aenter__())
        metrics, clock = DeliveryMetrics(CollectorRegistry()), self._around.clock
        plan = plan_of(2.0, DIGEST_THRESHOLD, route=lambda event: receivers_of(event, INTERESTS))
        self._deliverers = [
            Deliverer(each, _Outbox(self.database, each, self._around), plan, metrics, clock)
            for each in self._told.values()
        ]
        self._views: list[AccountStatus] = []
        self._accounts = _Accounts(self.database, self._around)
        polls = PollSettings(
            60.0,
            10.0,
            Rules(self.database.store_id, KEY, "silent", 50, 1e9),
            0.0,
            publish=self._views.append,
            withdraw=lambda _: None,
            route=lambda event: receivers_of(event, INTERESTS),
            wake=lambda: None,
            stale_after=300.0,
        )
        counts = PollMetrics(CollectorRegistry())
        self._poller = Poller(self._around, self._accounts, polls, counts, clock)
        self._runner.run(self._poller.prepare(None))

    def end(self) -> None:
        self._runner.run(self.database.__aexit__())
        for each in self._told.values():
            each.sender_is_gone()

    def restart(self) -> None:
        self._around.deaths += 1
        self.end()
        self.start()

    def close(self) -> None:
        self.end()
        self._runner.close()

    def poll(self) -> None:
        """Poll once; a reading counts when it was committed, or had nothing to commit."""
        self._accounts.committed = False
        try:
            self._runner.run(self._poller.poll())
            counts = self._views[-1].up
        except Crash:
            counts = self._accounts.committed
            self.restart()
        if counts:
            self.failures.read(self._around.fine_tunes)

    def deliver(self) -> float:
        """Give each receiver a turn; return in how many seconds the next one is due."""
        waits = []
        for each in list(self._deliverers):
            try:
                waits.append(self._runner.run(each.deliver_due()))
            except Crash:
                self.restart()
                return 0.0
        return min(waits)

    def execute(self, statement: str) -> None:
        with self.database.write() as connection:
            connection.exec_driver_sql(statement)

    def shown(self) -> dict[tuple[str, str, str], str]:
        """What the store shows: event, fine-tune and receiver of each failure to its state."""
        columns = events.c.id, events.c.subject, deliveries.c.receiver, deliveries.c.state
        query = (
            select(*columns)
            .join(deliveries, deliveries.c.event == events.c.number)
            .where(events.c.type == "fine_tune.failed")
        )
        with self.database.read() as connection:
            return {(row[0], row[1], row[2]): row[3] for row in connection.execute(query)}

    def too_old(self) -> set[str]:
        """The ids of the events that may have been given up for their age."""
        limit = self._around.latest - 72 * 3600
        with self.database.read() as connection:
            query = select(events.c.id).where(events.c.observed_at < limit)
            return set(connection.execute(query).scalars())

    def messages(self, receiver: str) -> Counter[str]:
        """How many messages of a receiver there are of each state."""
        query = select(messages.c.state).where(messages.c.receiver == receiver)
        with self.database.read() as connection:
            return Counter(connection.execute(query).scalars())

    def pending_messages(self, receiver: str) -> set[str]:
        """The ids of a receiver's messages that the store calls still to be taken."""
        query = select(messages.c.id).where(
            messages.c.receiver == receiver, messages.c.state == "pending"
        )
        with self.database.read() as connection:
            return set(connection.execute(query).scalars())

    def pending(self) -> int:
        query = select(deliveries.c.event).where(deliveries.c.state == "pending")
        with self.database.read() as connection:
            return len(connection.execute(query).all())


def fine_tune(name: str, status: str) -> FineTune:
    """One of two models, by its name."""
    return FineTune(name, model_id=f"sonic-{2 + int(name[1:]) % 2}", status=status)

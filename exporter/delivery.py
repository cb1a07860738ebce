"""Send what one receiver is owed, until it has taken it."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from exporter.core.clock import Clock
from exporter.core.message import Pages, group, message
from exporter.core.model import Delivery, Event, stable_id
from exporter.core.retry import Attempt, Outcome, Trouble, receiver_pause
from exporter.receivers.receiver import Receiver
from exporter.store.errors import StoreError
from exporter.store.outbox import DEAD, DELIVERED, PENDING, NewMessage, Outbox, Owed, Result

_LOOK_SECONDS: Final = 5.0
"""How often the outbox is looked at when nobody says that it changed."""

_NOT_RENDERED: Final = Attempt(Outcome.PAYLOAD, "it cannot be rendered; the log says why")
"""What comes of a message without bytes: nothing was sent, and it's no trouble of the receiver."""

_REASONS: Final = ("throttled", "transient", "endpoint", "payload", "expired")

log = structlog.get_logger()


class DeliveryMetrics:
    """Counts of the requests to the receivers, for all receivers of a registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        label = ("receiver",)
        self.tried = Counter(
            "cartesia_exporter_notifications_total",
            "Requests to a receiver that were tried.",
            label,
            registry=registry,
        )
        self.failed = Counter(
            "cartesia_exporter_notifications_failed_total",
            "Requests to a receiver that failed, by reason; expired ones were given up.",
            (*label, "reason"),
            registry=registry,
        )
        self.duration = Histogram(
            "cartesia_exporter_notification_duration_seconds",
            "Time of one request to a receiver.",
            label,
            buckets=(0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0),
            registry=registry,
        )
        self.pending = Gauge(
            "cartesia_exporter_deliveries_pending",
            "Events that a receiver is still owed.",
            label,
            registry=registry,
        )
        self.dead = Gauge(
            "cartesia_exporter_deliveries_dead",
            "Events that a receiver refused for good or that grew too old.",
            label,
            registry=registry,
        )

    def initialise(self, receiver: str) -> None:
        """Show a receiver's counters at zero before anything happens."""
        self.tried.labels(receiver)
        for reason in _REASONS:
            self.failed.labels(receiver, reason)
        self.duration.labels(receiver)
        self.pending.labels(receiver)
        self.dead.labels(receiver)


@dataclass(frozen=True, slots=True)
class DeliveryPlan:
    """When and how a receiver is told. Times are in seconds."""

    group_wait: float
    digest_threshold: int
    max_age: float
    pages: Pages


@dataclass(frozen=True, slots=True)
class _Tried:
    """An attempt that was made, and what is to be stored of it."""

    delivery: Delivery
    attempt: Attempt
    result: Result


class Deliverer:
    """Owns one receiver's queue, pause and pace; another receiver's trouble never delays it."""

    def __init__(
        self,
        receiver: Receiver,
        outbox: Outbox,
        plan: DeliveryPlan,
        metrics: DeliveryMetrics,
        clock: Clock,
    ) -> None:
        self.name = receiver.name
        self._receiver = receiver
        self._outbox = outbox
        self._plan = plan
        self._metrics = metrics
        self._clock = clock
        self._changed = asyncio.Event()
        self._resume_at = 0.0
        self._failures = 0
        self._failing_since = 0.0
        self._unmarked: _Tried | None = None
        self._log = log.bind(receiver=receiver.name)
        metrics.initialise(receiver.name)

    def wake(self) -> None:
        """Say that the outbox changed, or that it is time to stop."""
        self._changed.set()

    async def run(self, stop: asyncio.Event) -> None:
        """Send what is owed until ``stop`` is set; what is in flight then is finished."""
        while not stop.is_set():
            self._changed.clear()
            try:
                wait = await self.deliver_due()
            except StoreError as error:
                self._log.error("outbox unavailable", error=str(error))
                wait = _LOOK_SECONDS
            if wait > 0 and not stop.is_set():
                await self._rest(wait)

    async def _rest(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(min(seconds, _LOOK_SECONDS)):
                await self._changed.wait()
        except TimeoutError:
            pass

    async def deliver_due(self) -> float:
        """Make one attempt if one is due; return in how many seconds to look again.

        Raises StoreError when the outbox can't be read or written; nothing is lost by it.
        """
        if self._unmarked is not None:
            await self._mark(self._unmarked)
        wait = await self._attempt_due()
        await self._show_backlog()
        return wait

    async def _attempt_due(self) -> float:
        paused = self._resume_at - self._clock.monotonic()
        if paused > 0:
            return paused
        waiting = await self._freeze_due()
        delivery = await self._outbox.next()
        if delivery is None:
            return waiting
        attempt = await self._try(delivery)
        await self._mark(_Tried(delivery, attempt, self._result(delivery, attempt)))
        return 0.0

    async def _freeze_due(self) -> float:
        """Make messages of what is owed if its time has come; else say how long it has to wait."""
        owed = await self._outbox.unsent()
        if not owed:
            return _LOOK_SECONDS
        now = self._clock.now()
        waited = now - owed[0].event.observed_at
        # A clock that was set back would otherwise hold the events for as long.
        if 0 <= waited < self._plan.group_wait:
            return self._plan.group_wait - waited
        await self._outbox.freeze(self._messages(owed), now)
        return 0.0

    def _messages(self, owed: list[Owed]) -> list[NewMessage]:
        numbers = {item.event.id: item.number for item in owed}
        groups = group(
            [item.event for item in owed], self._plan.digest_threshold, self._receiver.most_events
        )
        return [
            NewMessage(
                events[0].id if len(events) == 1 else stable_id("msg", *(e.id for e in events)),
                self._rendered(events),
                tuple(numbers[event.id] for event in events),
            )
            for events in groups
        ]

    def _rendered(self, events: Sequence[Event], *, minimal: bool = False) -> bytes:
        """Return a message's bytes, none when it can't be rendered: it must not stop the others."""
        try:
            return self._receiver.render(message(events, self._plan.pages), minimal=minimal)
        except Exception:  # noqa: BLE001 - whatever it raises is a bug of it, and logged as one
            self._log.exception("a message cannot be rendered", first=events[0].id, minimal=minimal)
            return b""

    async def _try(self, delivery: Delivery) -> Attempt:
        attempt = await self._send(delivery) if delivery.body else _NOT_RENDERED
        if attempt.outcome is not Outcome.DELIVERED:
            self._metrics.failed.labels(self.name, attempt.outcome.value).inc()
        return attempt

    async def _send(self, delivery: Delivery) -> Attempt:
        started = self._clock.monotonic()
        attempt = await self._receiver.send(delivery, self._clock.now())
        self._metrics.tried.labels(self.name).inc()
        self._metrics.duration.labels(self.name).observe(self._clock.monotonic() - started)
        self._pace(attempt)
        return attempt

    def _pace(self, attempt: Attempt) -> None:
        """Set when the receiver may be tried again: payload troubles are not the receiver's."""
        now = self._clock.monotonic()
        if attempt.outcome in {Outcome.DELIVERED, Outcome.PAYLOAD}:
            self._failures = 0
            self._resume_at = now + self._receiver.spacing
            return
        if self._failures == 0:
            self._failing_since = now
        self._failures += 1
        trouble = Trouble(self._failures, now - self._failing_since)
        self._resume_at = now + receiver_pause(attempt, trouble, self._clock.chance())

    def _result(self, delivery: Delivery, attempt: Attempt) -> Result:
        now = self._clock.now()
        if attempt.outcome is Outcome.DELIVERED:
            return Result(DELIVERED, now, attempt.reason)
        if attempt.outcome is Outcome.PAYLOAD and delivery.minimal:
            return Result(DEAD, now, attempt.reason)
        if now - delivery.created_at > self._plan.max_age:
            self._metrics.failed.labels(self.name, "expired").inc()
            return Result(DEAD, now, f"expired: {attempt.reason}")
        return Result(PENDING, now, attempt.reason)

    async def _mark(self, tried: _Tried) -> None:
        """Store what an attempt led to.

        It is kept until the store has taken it: while a disk is full, to send again what could not
        be marked would repeat the message every few seconds.
        """
        self._unmarked = tried
        delivery, attempt, result = tried.delivery, tried.attempt, tried.result
        if attempt.outcome is Outcome.PAYLOAD and result.state == PENDING:
            events = await self._outbox.events_of(delivery)
            await self._outbox.replace_body(delivery, self._rendered(events, minimal=True))
        await self._outbox.record(delivery, result)
        self._unmarked = None
        self._tell(delivery, attempt, result)

    def _tell(self, delivery: Delivery, attempt: Attempt, result: Result) -> None:
        said = self._log.bind(
            message=delivery.id, events=delivery.events, attempt=delivery.attempts + 1
        )
        if result.state == DELIVERED:
            said.info("delivered")
        elif result.state == DEAD:
            said.error("delivery given up", outcome=attempt.outcome.value, reason=result.reason)
        else:
            said.warning(
                "delivery failed, will be tried again",
                outcome=attempt.outcome.value,
                reason=result.reason,
                pause=f"{max(self._resume_at - self._clock.monotonic(), 0):.1f}s",
            )

    async def _show_backlog(self) -> None:
        backlog = await self._outbox.backlog()
        self._metrics.pending.labels(self.name).set(backlog.pending)
        self._metrics.dead.labels(self.name).set(backlog.dead)

"""Send what one receiver is owed, until it has taken it."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import structlog

from exporter.core.clock import Clock
from exporter.core.events import Event, stable_id
from exporter.core.message import build_message, group_events
from exporter.core.model import OutboxMessage
from exporter.core.retry import Attempt, Outcome
from exporter.delivery.loop import LOOK_SECONDS, Loop, RetrySchedule
from exporter.delivery.metrics import DeliveryMetrics
from exporter.delivery.settings import DeliverySettings, noted_change
from exporter.receivers.receiver import Receiver
from exporter.store.errors import StoreError
from exporter.store.events import DEAD, DELIVERED, PENDING
from exporter.store.outbox import NewMessage, Outbox, PendingEvent, Result
from exporter.supervisor import DefaultService

_MOST_UNMARKED: Final = 100
"""How many results wait for a store that cannot take them; then nothing more is sent."""

_NOT_RENDERED: Final = Attempt(Outcome.PAYLOAD, "it cannot be rendered; the log says why")
"""What comes of a message without bytes: nothing was sent, and it's no trouble of the receiver."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class _Tried:
    """An attempt that was made, and what is to be stored of it."""

    delivery: OutboxMessage
    attempt: Attempt
    result: Result

    @property
    def may_be_repeated(self) -> bool:
        """Whether the same bytes may be sent again before it is stored."""
        return self.result.state == PENDING and self.attempt.outcome is not Outcome.PAYLOAD


class Deliverer(DefaultService):
    """Owns one receiver's queue, pause and pace; another receiver's trouble never delays it."""

    def __init__(
        self,
        receiver: Receiver,
        outbox: Outbox,
        plan: DeliverySettings,
        metrics: DeliveryMetrics,
        clock: Clock,
    ) -> None:
        self.name = receiver.name
        self._receiver = receiver
        self._outbox = outbox
        self._plan = plan
        self._metrics = metrics
        self._clock = clock
        self._pace = RetrySchedule(clock, receiver.spacing)
        self._loop = Loop(receiver.name, clock.monotonic)
        self._unmarked: dict[str, _Tried] = {}
        self._log = log.bind(receiver=receiver.name)
        metrics.initialise(receiver.name)

    @property
    def wakeup_deadline(self) -> float:
        """The monotonic time by which it will have set its next turn."""
        return self._loop.wakeup_deadline

    def wake(self) -> None:
        """Say that the outbox changed."""
        self._loop.wake()

    def forget(self) -> None:
        """Remove the receiver's series from the page."""
        self._metrics.forget(self.name)

    async def run(self, stop: asyncio.Event) -> None:
        """Send what is owed until ``stop`` is set; what is in flight then is finished."""
        await self._loop.run(self.deliver_due, stop)

    async def deliver_due(self) -> float:
        """Make one attempt if one is due; return in how many seconds to look again.

        Raises StoreError when the outbox can't be read; nothing is lost by it. Where it can be read
        but not written, messages that are frozen already still go out, each once.
        """
        self._pace.apply(await self._outbox.receiver_state())
        await self._settle()
        if not self._metrics.shows(self.name):  # the attempt may take as long as it may
            await self._show()
        wait = await self._attempt_due()
        await self._show()
        return wait

    async def _show(self) -> None:
        self._metrics.show(self.name, await self._outbox.backlog(), self._pace.health)

    async def _settle(self) -> None:
        """Store what is known and could not be stored yet."""
        try:
            for tried in list(self._unmarked.values()):
                await self._mark(tried)
        except StoreError as error:
            self._loop.tell_trouble(error)

    async def _expire(self) -> None:
        """Give up what is too old, behind an attempt that failed: first it has its chance."""
        now = self._clock.now()
        expired = await self._outbox.expire(now - self._plan.max_age, now)
        if expired:
            self._metrics.failed.labels(self.name, "expired").inc(expired)
            self._log.error("deliveries given up, they are too old", events=expired)

    async def _attempt_due(self) -> float:
        paused = self._pace.wait()
        if paused > 0:
            return paused
        waiting = await self._freeze_due()
        if len(self._unmarked) >= _MOST_UNMARKED:
            return LOOK_SECONDS
        delivery = await self._outbox.next(skipping=self._unmarked.keys()) or await self._again()
        if delivery is None:
            return waiting
        attempt = await self._try(delivery)
        await self._take_note(_Tried(delivery, attempt, self._result(delivery, attempt)))
        return 0.0

    async def _again(self) -> OutboxMessage | None:
        """Return what failed and could not be marked as tried: it need not wait for the store."""
        settled = [key for key, tried in self._unmarked.items() if not tried.may_be_repeated]
        if len(settled) == len(self._unmarked):
            return None
        delivery = await self._outbox.next(skipping=settled)
        if delivery is None or delivery.id not in self._unmarked:
            return delivery
        # The store still shows it in flight, by our own claim; what came of it is known here.
        before = self._unmarked[delivery.id]
        return replace(delivery, repeat=before.delivery.repeat or before.attempt.ambiguous)

    async def _freeze_due(self) -> float:
        """Make messages of what is owed if its time has come; else say how long it has to wait."""
        owed = await self._outbox.unsent()
        if not owed or not await self._may_freeze():
            return LOOK_SECONDS
        now = self._clock.now()
        waited = now - owed[0].since
        # A clock that was set back would otherwise hold the events for as long.
        if 0 <= waited < self._plan.group_wait:
            return self._plan.group_wait - waited
        try:
            await self._outbox.freeze(await self._messages(owed), now)
        except StoreError as error:
            self._loop.tell_trouble(error)
            return LOOK_SECONDS
        self._loop.tell_end_of_trouble()
        return 0.0

    async def _may_freeze(self) -> bool:
        """Return whether more messages may be made now.

        While a receiver takes nothing, what it is owed would become a message at each attempt, and
        its backlog a storm of them. So their number grows with the logarithm of the failures: there
        are always others to try than those that a broken receiver chokes on.
        """
        failures = self._pace.health.failures
        return failures == 0 or await self._outbox.frozen() <= failures.bit_length()

    async def _messages(self, owed: list[PendingEvent]) -> list[NewMessage]:
        numbers = {item.event.id: item.number for item in owed}
        groups = group_events(
            [item.event for item in owed], self._plan.digest_threshold, self._receiver.most_events
        )
        made = []
        for events in groups:
            key = events[0].id if len(events) == 1 else stable_id("msg", *(e.id for e in events))
            carried = tuple(numbers[event.id] for event in events)
            made.append(NewMessage(key, self._rendered(events), carried))
            await asyncio.sleep(0)  # a thousand digests would hold up the loop for seconds
        return made

    def _rendered(self, events: Sequence[Event], *, minimal: bool = False) -> bytes:
        """Return a message's bytes, none when it can't be rendered: it must not stop the others."""
        try:
            return self._receiver.render(
                build_message(events, self._plan.link_templates), minimal=minimal
            )
        except Exception:  # noqa: BLE001 - whatever it raises is a bug of it, and logged as one
            self._log.exception("a message cannot be rendered", first=events[0].id, minimal=minimal)
            return b""

    async def _try(self, delivery: OutboxMessage) -> Attempt:
        attempt = await self._send(delivery) if delivery.body else _NOT_RENDERED
        if attempt.outcome is not Outcome.DELIVERED:
            self._metrics.failed.labels(self.name, attempt.outcome.value).inc()
        return attempt

    async def _send(self, delivery: OutboxMessage) -> Attempt:
        try:
            await self._outbox.claim(delivery)
        except StoreError as error:
            self._loop.tell_trouble(error)
        body = self._receiver.repeated(delivery.body) if delivery.repeat else delivery.body
        started = self._clock.monotonic()
        self._loop.expect(self._receiver.seconds)
        attempt = await self._receiver.send(replace(delivery, body=body), self._clock.now())
        self._loop.expect(0.0)
        self._metrics.tried.labels(self.name).inc()
        self._metrics.duration.labels(self.name).observe(self._clock.monotonic() - started)
        return attempt

    def _result(self, delivery: OutboxMessage, attempt: Attempt) -> Result:
        now, before = self._clock.now(), self._pace.health
        if delivery.body:
            self._pace.took(attempt)
        after = self._pace.health
        told = noted_change(self._plan, self.name, before, after, now)
        resume_at, state = self._pace.resume_at(), _state(delivery, attempt)
        return Result(state, now, attempt.reason, attempt.ambiguous, after, resume_at, told)

    async def _take_note(self, tried: _Tried) -> None:
        """Store what an attempt led to, now or as soon as the store takes it.

        While a disk is full, to send again what could not be marked would repeat the message every
        few seconds.
        """
        self._unmarked[tried.delivery.id] = tried
        self._tell(tried)
        try:
            await self._mark(tried)
            if tried.attempt.outcome is not Outcome.DELIVERED:
                await self._expire()
        except StoreError as error:
            self._loop.tell_trouble(error)

    async def _mark(self, tried: _Tried) -> None:
        delivery, attempt, result = tried.delivery, tried.attempt, tried.result
        if attempt.outcome is Outcome.PAYLOAD and result.state == PENDING:
            await self._make_minimal(delivery)
        for observed_at in await self._outbox.record(delivery, result):
            self._metrics.delay.labels(self.name).observe(max(result.at - observed_at, 0.0))
        del self._unmarked[delivery.id]
        self._loop.tell_end_of_trouble()
        if result.told:
            self._plan.wake()

    async def _make_minimal(self, delivery: OutboxMessage) -> None:
        events = await self._outbox.events_of(delivery)
        if events:  # else it was reassigned while it was sent
            await self._outbox.replace_body(delivery, self._rendered(events, minimal=True))

    def _tell(self, tried: _Tried) -> None:
        delivery, attempt, result = tried.delivery, tried.attempt, tried.result
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
                pause=f"{self._pace.wait():.1f}s",
            )


def _state(delivery: OutboxMessage, attempt: Attempt) -> str:
    if attempt.outcome is Outcome.DELIVERED:
        return DELIVERED
    return DEAD if attempt.outcome is Outcome.PAYLOAD and delivery.minimal else PENDING

"""Delivers to one receiver: groups queued events into messages and sends each until it settles."""

import asyncio
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from msgspec.structs import replace

from exporter.core.clock import Clock
from exporter.core.compose import build_message
from exporter.core.event_context import EventContext
from exporter.core.events import stable_id
from exporter.core.grouping import Grouping, QueuedEvent, due_groups
from exporter.core.message import log_facts
from exporter.core.model import OutboxMessage
from exporter.core.retry import Attempt, Outcome
from exporter.delivery.loop import LOGGED_EVENTS, LOOK_SECONDS, NOT_RENDERED, DeliveryLoop
from exporter.delivery.metrics import DeliveryMetrics
from exporter.delivery.settings import DeliverySettings, circuit_events
from exporter.receivers.receiver import Receiver
from exporter.store.errors import StoreError
from exporter.store.events import DEAD, DELIVERED, PENDING
from exporter.store.outbox import NewMessage, Outbox
from exporter.store.receiver_outbox import AttemptResult
from exporter.supervisor import Service

_MOST_UNSTORED: Final = 100
"""Results kept while the store cannot be written; at this number nothing more is sent."""

_MOST_SINGLED_OUT: Final = 4
"""Largest digest that is split into single events; larger ones are halved."""


class Deliverer(DeliveryLoop, Service):
    """Service that delivers to one receiver.

    It has its own queue, schedule and circuit, so that receivers do not delay each other.
    """

    def __init__(
        self,
        receiver: Receiver,
        outbox: Outbox,
        settings: DeliverySettings,
        metrics: DeliveryMetrics,
        clock: Clock,
    ) -> None:
        super().__init__(outbox, metrics, clock, receiver.spacing)
        self._receiver = receiver
        self._outbox = outbox
        self._settings = settings
        self._grouping = Grouping(
            settings.group_wait,
            settings.group_interval,
            settings.digest_threshold,
            receiver.most_events,
        )
        self._unstored: dict[str, tuple[OutboxMessage, AttemptResult]] = {}
        metrics.initialise(receiver.name)

    def forget(self) -> None:
        """Remove the receiver's series."""
        self._metrics.forget(self.name)

    async def deliver_due(self) -> float:
        """Attempt one message; while the outbox cannot be written, each is sent only once."""
        state = await self._outbox.receiver_state()
        self.schedule.apply(state)
        mute_ends_in = math.inf
        with self.log_store_error():
            mute_ends_in = await self._apply_mutes()
        with self.log_store_error():
            for message, result in list(self._unstored.values()):
                await self._store_result(message, result)
        if not self._metrics.has(self.name):  # before a request that may hang
            await self._update_metrics()
        held_until = state.held_until(self._settings.group_interval)
        wait = await self._attempt_due(held_until)
        await self._update_metrics()
        return min(wait, mute_ends_in)

    async def _apply_mutes(self) -> float:
        """Mute queued events, and create messages of those whose mute has ended.

        Returns the seconds until the next mute ends.
        """
        now = self._clock.now()
        changes = await self._outbox.apply_mutes(self._settings.account_labels(), now)
        if changes.muted:
            self._log.info("deliveries muted", events=len(changes.muted))
        if changes.settled:
            self._log.info(
                "muted deliveries discarded: not failed any more", events=len(changes.settled)
            )
        for mute, carried in changes.released:
            new = await self._new_messages(self._grouping.digests(carried), mute.note())
            await self._outbox.create_messages(new, now, muted=True)
            self._log.info("muted deliveries released", mute=mute.id, events=len(carried))
        return changes.first_end

    async def _attempt_due(self, held_until: float) -> float:
        if (paused := self.schedule.wait()) > 0:
            return paused
        wait = await self._create_due_messages(held_until)
        if len(self._unstored) >= _MOST_UNSTORED:
            return self.look_seconds
        message = await self._outbox.next(skipping=self._unstored.keys())
        message = message or await self._next_unstored()
        if message is None:
            return wait
        started = self._clock.monotonic()
        attempt = await self._send(message) if message.body else NOT_RENDERED
        result = self._record_attempt(message, attempt, await self._log_facts(message))
        result = replace(result, seconds=self._clock.monotonic() - started)
        # Kept until it is stored: while a disk is full, the message must not be sent again and
        # again because its result could not be stored.
        self._unstored[message.id] = message, result
        with self.log_store_error():
            await self._store_result(message, result)
            if result.state == DELIVERED:
                return 0.0
            # Only after a failed attempt, so that none expires untried.
            max_age = self._settings.max_age
            if expired := await self._outbox.expire(max_age, self._clock.now(), held_until):
                self._metrics.record_expired(self.name, expired)
                self._log.error("deliveries expired", events=expired, max_age=f"{max_age:.0f}s")
        return 0.0

    async def _create_due_messages(self, held_until: float) -> float:
        """Create messages of queued events when their time has come; return the seconds to wait."""
        queued = await self._outbox.unsent()
        if not queued:
            return self.look_seconds
        # During an outage each attempt would otherwise create a message, and the backlog would
        # arrive as many messages instead of one digest. Their number grows with the logarithm of
        # the failures, so that there are always others to try than one that the receiver fails on.
        most = self.schedule.circuit.failures.bit_length()
        if most and await self._outbox.count_pending_messages() > most:
            return self.look_seconds
        groups, wait = due_groups(queued, self._grouping, held_until - self._outbox.awake_now())
        if not groups:
            return wait
        with self.log_store_error():
            new = await self._new_messages(groups)
            await self._outbox.create_messages(new, self._clock.now(), held_until=held_until)
            self.log_store_recovery()
        return LOOK_SECONDS if self._store_error else 0.0

    async def _new_messages(
        self, groups: Iterable[Sequence[QueuedEvent]], note: str = ""
    ) -> list[NewMessage]:
        new = []
        for group in groups:
            new.append(await self._new_message(group, note=note))
            await asyncio.sleep(0)  # a thousand digests would block the event loop for seconds
        return new

    async def _new_message(
        self, carried: Sequence[QueuedEvent], *, minimal: bool = False, note: str = ""
    ) -> NewMessage:
        ids = [each.event.id for each in carried]
        return NewMessage(
            ids[0] if len(ids) == 1 else stable_id("msg", *ids),
            await self._render(carried, minimal=minimal, note=note),
            tuple(each.number for each in carried),
            minimal,
            starts_interval=any(each.event.fine_tune is not None for each in carried),
        )

    async def _render(
        self, carried: Sequence[QueuedEvent], *, minimal: bool = False, note: str = ""
    ) -> bytes:
        """Return the bytes of a message, none if it cannot be rendered: others must still go."""
        events, contexts = [each.event for each in carried], await self._contexts(carried)
        try:
            message = build_message(events, self._settings.messages, contexts, note)
            return self._receiver.render(message, minimal=minimal)
        except Exception:  # noqa: BLE001 - whatever it raises is a bug, and logged as one
            self._log.exception("message cannot be rendered", first=events[0].id, minimal=minimal)
            return b""

    async def _contexts(self, carried: Sequence[QueuedEvent]) -> Mapping[str, EventContext]:
        """Return the contexts of events; none if they cannot be read: the message must still go."""
        try:
            return await self._outbox.contexts(carried)
        except Exception:  # noqa: BLE001 - as in _render
            self._log.exception("message has no context", first=carried[0].event.id)
            return {}

    async def _next_unstored(self) -> OutboxMessage | None:
        """Return a message whose failed attempt is not stored yet: a retry need not wait for that.

        A refused message is none: its minimal form has to be stored first.
        """
        final = [
            message_id
            for message_id, (_, result) in self._unstored.items()
            if result.state != PENDING or result.attempt.outcome is Outcome.PAYLOAD
        ]
        if len(final) == len(self._unstored):
            return None
        message = await self._outbox.next(skipping=final)
        if message is None or message.id not in self._unstored:
            return message
        # The store shows it as in flight, because of our own claim; its result is known here.
        before, result = self._unstored[message.id]
        return replace(message, repeat=before.repeat or result.attempt.ambiguous)

    async def _send(self, message: OutboxMessage) -> Attempt:
        with self.log_store_error():
            await self._outbox.claim(message)
        self._outbox.check_owner()  # the claim is not checked while the store fails
        body = self._receiver.repeated(message.body) if message.repeat else message.body
        with self.request(self._receiver.seconds):
            return await self._receiver.send(replace(message, body=body), self._clock.now())

    async def _log_facts(self, message: OutboxMessage) -> dict[str, str]:
        try:
            named = await self._outbox.events_of(message, LOGGED_EVENTS)
        except StoreError:  # it is logged where the result is stored
            return {}
        return log_facts([each.event for each in named])

    def _record_attempt(
        self, message: OutboxMessage, attempt: Attempt, facts: Mapping[str, str]
    ) -> AttemptResult:
        """Update schedule and metrics, and log the attempt; return what is to be stored of it."""
        now, awake, before = self._clock.now(), self._outbox.awake_now(), self.schedule.circuit
        if message.body:
            self.schedule.record_attempt(attempt)
        outcome, after = attempt.outcome, self.schedule.circuit
        events = circuit_events(self._settings, self.name, before, after, now)
        attempt_log = self._log.bind(
            message=message.id, events=message.events, attempt=message.attempts + 1, **facts
        )
        if outcome is Outcome.DELIVERED:
            state = DELIVERED
            attempt_log.info("delivered")
        else:
            self._metrics.record_failure(self.name, outcome.value)
            attempt_log = attempt_log.bind(outcome=outcome.value, reason=attempt.reason)
            if outcome is Outcome.PAYLOAD and message.minimal and message.events == 1:
                state = DEAD
                attempt_log.error("delivery dead")
            else:
                state = PENDING
                attempt_log.warning("delivery failed", retry_in=f"{self.schedule.wait():.1f}s")
        resume_at = self.schedule.resume_at()
        return AttemptResult(state, now, awake, attempt, after, resume_at, events)

    async def _store_result(self, message: OutboxMessage, result: AttemptResult) -> None:
        if result.attempt.outcome is Outcome.PAYLOAD and result.state == PENDING:
            await self._store_refusal(message, result)
        else:
            self._metrics.record_delays(self.name, await self._outbox.record(message, result))
        del self._unstored[message.id]
        self.log_store_recovery()
        if result.events:
            self._settings.wake()

    async def _store_refusal(self, message: OutboxMessage, result: AttemptResult) -> None:
        """Store the refusal of a message that is sent again: in its minimal form, or in parts.

        Parts of several events have the minimal form, so that only a single event is sent in both
        forms. This takes at most three requests per event of the refused message.
        """
        carried = await self._outbox.events_of(message)
        if message.minimal:
            size = (len(carried) + 1) // 2 if len(carried) > _MOST_SINGLED_OUT else 1
            parts = [carried[begin : begin + size] for begin in range(0, len(carried), size)]
            new = [await self._new_message(part, minimal=len(part) > 1) for part in parts]
            await self._outbox.split(message, new, result)
            parts_of = {"message": message.id, "events": len(carried), "parts": len(new)}
            self._log.warning("refused digest split", **parts_of)
            return
        if carried:  # otherwise it was reassigned while it was sent
            body = await self._render(carried, minimal=True)
            await self._outbox.replace_body(message, body)
        await self._outbox.record(message, result)

    async def _update_metrics(self) -> None:
        backlog = await self._outbox.backlog(self._settings.group_interval)
        self._metrics.update(self.name, backlog, self.schedule.circuit, self._clock.now())

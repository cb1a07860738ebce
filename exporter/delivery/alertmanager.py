"""Delivers to Alertmanager: posts every active alert to each member, again each minute.

The members of one Alertmanager do not tell each other about alerts. Each has its own task, retry
schedule and connections here, so that one that hangs does not delay the others. Alerts are posted
at once, whatever ``group_wait`` is, because Alertmanager groups by itself.

Bounds: a request carries 64 alerts and takes about 10 ms of CPU, however many are active. The list
of active alerts is built once per round and when an event is recorded: 25 ms for 5,000 alerts, and
0.2 ms for each new one, in threads. 5,000 new alerts take 79 requests, 1.8 s of CPU in all.
"""

import asyncio
from collections import deque
from collections.abc import Collection, Hashable, Mapping, Sequence
from hashlib import sha256
from itertools import islice
from typing import Final

import structlog
from msgspec.structs import replace

from exporter.core.active_alerts import RESOLVED_SECONDS, ActiveAlert, AlertRow, active_alerts
from exporter.core.clock import Clock
from exporter.core.events import Event
from exporter.core.message import log_facts
from exporter.core.retry import Attempt, CircuitState, Outcome
from exporter.delivery.loop import LOGGED_EVENTS, LOOK_SECONDS, NOT_RENDERED, DeliveryLoop
from exporter.delivery.metrics import DeliveryMetrics
from exporter.delivery.settings import DeliverySettings, circuit_events
from exporter.receivers.alertmanager import Alert, Alertmanager, content_of, render
from exporter.receivers.receiver import Endpoint, encoded
from exporter.store.alert_outbox import AlertOutbox
from exporter.store.events import DEAD, DELIVERED, PENDING
from exporter.store.receiver_outbox import AttemptResult, ReceiverState
from exporter.supervisor import Service

ROUND_SECONDS: Final = 60.0
"""Interval between two posts of the same alert: a member keeps alerts in memory only."""

_EVENTS_PER_READ: Final = 100  # in one query: other users of the store must not be delayed

_Version = tuple[int, bool]  # the number of an event, and whether its alert has ended
# The id of an event, and the digest of its alert's labels; None if it cannot become an alert.
_AlertKey = tuple[str, bytes | None]

log = structlog.get_logger()


class AlertDeliverer(Service):
    """Service that delivers to one Alertmanager: the state that its members share.

    An event is delivered when the first member accepts its alert, and dead when every member
    refuses it. The circuit is closed while that of one member is.
    """

    def __init__(
        self,
        receiver: Alertmanager,
        outbox: AlertOutbox,
        settings: DeliverySettings,
        metrics: DeliveryMetrics,
        clock: Clock,
    ) -> None:
        self.name = receiver.name
        self.metrics = metrics
        self.clock = clock
        self.outbox = outbox
        self.members = [MemberDeliverer(n, each, self) for n, each in enumerate(receiver.members)]
        self.receiver = receiver
        self._settings = settings
        self._retry_requests: int | None = None
        self._alert_keys: dict[int, _AlertKey] = {}
        self._active: Sequence[ActiveAlert] = ()
        self._active_version: Hashable = None
        self._active_until = self.next_read_at = clock.monotonic()
        self._delivered: dict[int, float] = {}
        self._unstored: list[tuple[Collection[int], AttemptResult]] = []
        self._reading, self._storing = asyncio.Lock(), asyncio.Lock()
        self._log = log.bind(receiver=receiver.name)
        metrics.initialise(receiver.name)

    @property
    def wakeup_deadline(self) -> float:
        """The monotonic time by which every member will have set its next wake-up."""
        return min(member.wakeup_deadline for member in self.members)

    @property
    def circuit(self) -> CircuitState:
        """The circuit of the member that works best."""
        circuits = (member.schedule.circuit for member in self.members)
        return min(circuits, key=lambda each: (each.open, each.failures, -each.since_awake))

    def wake(self) -> None:
        """Wake all members: the outbox changed."""
        for member in self.members:
            member.wake()

    def forget(self) -> None:
        """Remove the receiver's series."""
        self.metrics.forget(self.name)

    async def run(self, stop: asyncio.Event) -> None:
        """Post alerts until ``stop`` is set; requests in flight are finished."""
        async with asyncio.TaskGroup() as group:
            for member in self.members:
                group.create_task(member.run(stop))

    async def load_state(self) -> ReceiverState:
        """Return the stored state of the receiver; raise StoreError."""
        state = await self.outbox.receiver_state()
        if self._retry_requests is None:
            # To all members before one is tried: else the end of an old trouble is not notified.
            for member in self.members:
                member.apply(state)
            await self.update_metrics()  # before a request that may hang
        self._retry_requests = state.retry_requests
        return state

    async def active(self) -> Sequence[ActiveAlert]:
        """Return the alerts to post; raise StoreError.

        The same list until an event is recorded, another process writes or a round has passed.
        """
        async with self._reading:
            started = self.clock.monotonic()
            version = self._retry_requests, await self.outbox.version()
            changed = version != self._active_version or started >= self._active_until
            if not changed or started < self.next_read_at:
                return self._active
            awake, hold = self.outbox.awake_now(), self.receiver.hold
            rows = await self.outbox.alert_rows(awake - hold - RESOLVED_SECONDS)
            # All other deliveries are stored, and in these rows.
            delivered = [each for each in self._unstored if each[1].state == DELIVERED]
            self._delivered = {n: result.awake for numbers, result in delivered for n in numbers}
            await self._load_alert_keys(rows)
            rows = [self._with_delivery(row) for row in rows if row.number in self._alert_keys]
            # In a thread: there may be a hundred thousand.
            self._active = await asyncio.to_thread(
                active_alerts, rows, lambda number: self._alert_keys[number][1], awake, hold
            )
            self._active_version, self._active_until = version, started + ROUND_SECONDS
            # While events keep coming, half of the time is left to everything else.
            ended = self.clock.monotonic()
            self.next_read_at = ended + min(ended - started, LOOK_SECONDS)
            return self._active

    async def body(self, batch: Sequence[ActiveAlert], minimal: Collection[_Version]) -> bytes:
        """Return the request for a batch; those in ``minimal`` have their minimal form."""
        events = await self.outbox.events([alert.row.number for alert in batch])
        hold, settings = self.receiver.hold, self._settings.messages
        times = self.outbox.awake_now(), self.clock.now()
        return render(
            Alert(
                content_of(
                    events[alert.row.number],
                    settings,
                    self.receiver.labels,
                    minimal=alert.version in minimal,
                ),
                alert.row.starts_at(*times),
                self._with_delivery(alert.row).ends_at(*times, hold),
            )
            for alert in batch
            if alert.row.number in events
        )

    def record_attempt(
        self, attempt: Attempt, before: CircuitState, accepted: Sequence[ActiveAlert] = ()
    ) -> None:
        """Queue what a post led to for ``store``; ``before`` is the circuit before it."""
        pending = (number for alert in accepted for number in alert.pending)
        numbers = [number for number in pending if number not in self._delivered]
        self._delivered |= dict.fromkeys(numbers, self.outbox.awake_now())
        self._add_result(numbers, DELIVERED if numbers else PENDING, attempt, before)

    def record_refusal(self, member: int, alert: ActiveAlert, attempt: Attempt) -> None:
        """Log that a member refused both forms of an alert; it is dead if all members did."""
        number = alert.row.number
        is_pending = number in alert.pending and number not in self._delivered
        is_dead = is_pending and all(alert.version in each.refused for each in self.members)
        if is_dead:
            self._add_result((number,), DEAD, attempt, self.circuit)
        event_id, _ = self._alert_keys.get(number, ("", None))
        event = "alert dead, refused by every member" if is_dead else "alert refused"
        self._log.error(event, event_id=event_id, member=member + 1, reason=attempt.reason)

    async def store(self) -> None:
        """Store the results that are not stored yet; they are kept if StoreError is raised."""
        async with self._storing:
            while self._unstored:
                numbers, result = self._unstored[0]
                delays = await self.outbox.record(numbers, result)
                del self._unstored[0]
                self.metrics.record_delays(self.name, delays)
                if delays:
                    named = await self.outbox.events([*islice(numbers, LOGGED_EVENTS)])
                    self._log.info("delivered", events=len(delays), **log_facts([*named.values()]))
                if result.events:
                    self._settings.wake()

    async def expire(self) -> None:
        """Mark deliveries older than ``max_age`` as dead; raise StoreError.

        Not while a member that may accept them has alerts to post.
        """
        if any(member.has_work for member in self.members):
            return
        max_age = self._settings.max_age
        if expired := await self.outbox.expire(max_age, self.clock.now()):
            self._active_version = None
            self.metrics.record_expired(self.name, expired)
            self._log.error("deliveries expired", events=expired, max_age=f"{max_age:.0f}s")

    async def update_metrics(self) -> None:
        """Publish backlog and circuit; raise StoreError."""
        backlog = await self.outbox.backlog()
        self.metrics.update(self.name, backlog, self.circuit, self.clock.now())

    def _with_delivery(self, row: AlertRow) -> AlertRow:
        if row.settled is None and row.number in self._delivered:
            return replace(row, settled=self._delivered[row.number])
        return row

    async def _load_alert_keys(self, rows: Sequence[AlertRow]) -> None:
        """Load the keys of these rows; an event that cannot become an alert is dead."""
        before = self._alert_keys
        self._alert_keys = {row.number: before[row.number] for row in rows if row.number in before}
        missing = [row.number for row in rows if row.number not in before]
        for begin in range(0, len(missing), _EVENTS_PER_READ):
            events = await self.outbox.events(missing[begin : begin + _EVENTS_PER_READ])
            found = await asyncio.to_thread(self._alert_keys_of, events)
            self._alert_keys |= found
            if dead := [number for number, each in found.items() if each[1] is None]:
                self._add_result(dead, DEAD, NOT_RENDERED, self.circuit)

    def _alert_keys_of(self, events: Mapping[int, Event]) -> dict[int, _AlertKey]:
        found = dict[int, _AlertKey]()
        form = self._settings.messages, self.receiver.labels
        for number, event in events.items():
            try:
                content_of(event, *form, minimal=True)  # fails here rather than in a request
                labels = sorted(content_of(event, *form).labels.items())
                digest = sha256(encoded(labels)).digest()
            except Exception:  # noqa: BLE001 - a bug of one alert must not stop the others
                self._log.exception("event cannot be rendered as an alert", event_id=event.id)
                digest = None
            found[number] = event.id, digest
        return found

    def _add_result(
        self, numbers: Collection[int], state: str, attempt: Attempt, before: CircuitState
    ) -> None:
        now, awake, circuit = self.clock.now(), self.outbox.awake_now(), self.circuit
        events = circuit_events(self._settings, self.name, before, circuit, now)
        if not numbers and circuit == before:
            return
        # While the store cannot be written, a later circuit replaces an earlier one. The first
        # result stays, because its write may be in progress.
        if len(self._unstored) > 1 and not (self._unstored[-1][0] or self._unstored[-1][1].events):
            del self._unstored[-1]
        resume_at = min(member.schedule.resume_at() for member in self.members)
        result = AttemptResult(state, now, awake, attempt, circuit, resume_at, events)
        self._unstored.append((numbers, result))


class MemberDeliverer(DeliveryLoop):
    """Posts to one member of an Alertmanager.

    Alertmanager answers 400 for a whole request, though it accepts the valid alerts in it. A
    refused request is therefore halved until each invalid alert is alone, and that alert is posted
    once more in its minimal form. This takes fewer than three requests per alert of the first one.
    """

    def __init__(self, number: int, member: Endpoint, shared: AlertDeliverer) -> None:
        super().__init__(shared.outbox, shared.metrics, shared.clock, 0.0)
        self.has_work = True
        self.refused: set[_Version] = set()
        self._number = number
        self._member = member
        self._shared = shared
        self._active: Sequence[ActiveAlert] = ()
        self._due: deque[ActiveAlert] = deque()
        self._round_ends = shared.clock.monotonic() + ROUND_SECONDS
        self._posted: set[_Version] = set()
        self._minimal: set[_Version] = set()
        self._halves: list[Sequence[ActiveAlert]] = []
        # By its place in the configuration: the URL is a secret.
        self._log = self._log.bind(member=number + 1)

    def apply(self, state: ReceiverState) -> None:
        """Apply the stored state: a requested retry ends the pause and forgets refusals."""
        if self.schedule.apply(state):
            self.refused.clear()
            self._minimal.clear()
            self._active = ()

    async def deliver_due(self) -> float:
        """Make one post if one is due; its result is stored later while the store fails."""
        self.apply(await self._shared.load_state())
        await self._store()
        wait = await self._post_due()
        await self._shared.update_metrics()
        return wait

    async def _post_due(self) -> float:
        if (paused := self.schedule.wait()) > 0:
            self.has_work = False
            return paused
        active, now = await self._shared.active(), self._clock.monotonic()
        # In a thread: a new list, or a new round, goes through all alerts.
        batch = await asyncio.to_thread(self._next_batch, active, now)
        self.has_work = bool(batch)
        if not batch:
            times = self._round_ends, self._shared.next_read_at
            return min(at - now for at in times if at > now)
        body = await self._shared.body(batch, self._minimal)
        self._shared.outbox.check_owner()
        with self.request(self._member.seconds):
            attempt = await self._member.attempt(body, {}, self._clock.now())
        self._record(batch, attempt)
        await self._store(expire=attempt.outcome is not Outcome.DELIVERED)
        return 0.0

    def _next_batch(self, active: Sequence[ActiveAlert], now: float) -> Sequence[ActiveAlert]:
        """Return the alerts of the next request; empty if none is due.

        New and changed alerts are due at once, all of them in each round; a round that takes longer
        than its time is finished first.
        """
        if active is not self._active:
            self._replace_active(active)
        if now >= self._round_ends and not (self._halves or (self._due and self._posted)):
            self._round_ends = now + ROUND_SECONDS
            self._posted.clear()
            self._replace_active(active)
        if self._halves:
            return self._halves[-1]
        return list(islice(self._due, self._shared.receiver.most_events))

    def _replace_active(self, active: Sequence[ActiveAlert]) -> None:
        alerts = {alert.version: alert for alert in active}
        self._active = active
        for versions in (self._posted, self.refused, self._minimal):
            versions.intersection_update(alerts)
        halves = ([x.version for x in half if x.version in alerts] for half in self._halves)
        self._halves = [[alerts[version] for version in half] for half in halves if half]
        done = self._posted.union(self.refused, (x.version for half in self._halves for x in half))
        self._due = deque(alert for version, alert in alerts.items() if version not in done)

    def _record(self, batch: Sequence[ActiveAlert], attempt: Attempt) -> None:
        before, shared = self._shared.circuit, self._shared
        self.schedule.record_attempt(attempt)
        if attempt.outcome in {Outcome.DELIVERED, Outcome.PAYLOAD}:
            if self._halves:
                self._halves.pop()
            else:
                for _ in batch:
                    self._due.popleft()
        if attempt.outcome is Outcome.DELIVERED:
            self._posted |= {alert.version for alert in batch}
            shared.record_attempt(attempt, before, batch)
            return
        shared.record_attempt(attempt, before)
        self._metrics.record_failure(self.name, attempt.outcome.value)
        if attempt.outcome is Outcome.PAYLOAD and self._halve(batch):
            shared.record_refusal(self._number, batch[0], attempt)
            return
        wait = self.schedule.wait()
        self.has_work = wait == 0
        self._log.warning(
            "delivery failed",
            alerts=len(batch),
            outcome=attempt.outcome.value,
            reason=attempt.reason,
            retry_in=f"{wait:.1f}s",
        )

    def _halve(self, batch: Sequence[ActiveAlert]) -> bool:
        """Queue the halves of a refused batch; return whether both forms of one are refused."""
        middle = len(batch) // 2
        if middle:
            self._halves += [batch[middle:], batch[:middle]]
        elif batch[0].version not in self._minimal:
            self._minimal.add(batch[0].version)
            self._halves.append(batch)
        else:
            self.refused.add(batch[0].version)
        return batch[0].version in self.refused

    async def _store(self, *, expire: bool = False) -> None:
        with self.log_store_error():
            await self._shared.store()
            self.log_store_recovery()
            if expire:
                await self._shared.expire()

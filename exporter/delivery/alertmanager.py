"""Tell an Alertmanager what is wrong for as long as it is: each member by itself."""

import asyncio
from collections import deque
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from hashlib import sha256
from itertools import islice
from typing import Final

import structlog
from msgspec import Struct
from msgspec.structs import replace

from exporter.core.account import RoutedEvents
from exporter.core.active_alerts import (
    RESOLVED_SECONDS,
    ActiveAlert,
    AlertRow,
    active_alerts,
    brought_up,
)
from exporter.core.clock import Clock
from exporter.core.events import TROUBLES, Event
from exporter.core.retry import CIRCUIT_CLOSED, Attempt, CircuitState, Outcome
from exporter.delivery.loop import LOOK_SECONDS, Loop, RetrySchedule
from exporter.delivery.metrics import DeliveryMetrics
from exporter.delivery.settings import DeliverySettings, noted_change
from exporter.receivers.alertmanager import (
    MOST_ALERTS,
    Alert,
    Alertmanager,
    Member,
    content_of,
    render,
)
from exporter.receivers.receiver import encoded
from exporter.store.alert_outbox import AlertOutbox, Findings
from exporter.store.errors import StoreError
from exporter.store.outbox import ReceiverState
from exporter.supervisor import DefaultService

_READ_AT_ONCE: Final = 100
"""How many events are read at a time: others must have their turn in the store."""

log = structlog.get_logger()


class Identity(Struct, frozen=True, gc=False):
    """What is kept of an event: not its alert, which is many times as large.

    ``trouble`` says whether it tells of one. ``digest`` is of its alert's labels, None when it
    cannot be made into an alert.
    """

    event_id: str
    trouble: bool
    digest: bytes | None


class Identities:
    """The identities of what one Alertmanager is owed, by the numbers of the events.

    ``labels`` returns an event's; one for which it raises is no alert, and ``give_up`` is told its
    number, once. What takes long is done in a thread, one ``keep`` after the other.
    """

    def __init__(
        self,
        receiver: str,
        outbox: AlertOutbox,
        labels: Callable[[Event], Mapping[str, str]],
        give_up: Callable[[int], None],
    ) -> None:
        self._outbox = outbox
        self._labels = labels
        self._give_up = give_up
        self._known: dict[int, Identity] = {}
        self._log = log.bind(receiver=receiver)

    def __contains__(self, number: int) -> bool:
        return number in self._known

    def __getitem__(self, number: int) -> Identity:
        return self._known[number]

    async def keep(self, owed: Sequence[AlertRow]) -> None:
        """Know all of ``owed`` and nothing else, as far as it is still there; raise StoreError."""
        missing = await asyncio.to_thread(self._missing, owed)
        for begin in range(0, len(missing), _READ_AT_ONCE):
            found = await self._outbox.events(missing[begin : begin + _READ_AT_ONCE])
            new = await asyncio.to_thread(self._of, found)
            self._known.update(new)
            for number, identity in new.items():
                if identity.digest is None:
                    self._give_up(number)

    def _missing(self, owed: Iterable[AlertRow]) -> list[int]:
        numbers = {alert.number for alert in owed}
        self._known = {n: each for n, each in self._known.items() if n in numbers}
        return sorted(numbers - self._known.keys())

    def _of(self, events: Mapping[int, Event]) -> dict[int, Identity]:
        return {
            number: Identity(event.id, event.type in TROUBLES, self._digest(event))
            for number, event in events.items()
        }

    def _digest(self, event: Event) -> bytes | None:
        try:
            return sha256(encoded(sorted(self._labels(event).items()))).digest()
        except Exception:  # noqa: BLE001 - as in Deliverer: it must not stop the other alerts
            self._log.exception("an alert cannot be made of an event", event_id=event.id)
            return None


ROUND_SECONDS: Final = 60.0
"""How often a member is told all of it again: it keeps alerts in its memory only."""

_Version = tuple[int, bool]


class Posting:
    """What one member has taken in this round and what it has refused; times are monotonic.

    A refusal is for the whole request, though the valid alerts in it were taken. So the request is
    halved until the bad ones are alone; each of those is tried once more in its minimal form. That
    makes fewer than three requests for each alert of the one that was refused.
    """

    def __init__(self, most: int, at: float) -> None:
        self._most = most
        self._round_at = at + ROUND_SECONDS
        self._firing: Sequence[ActiveAlert] = ()
        self._due: deque[ActiveAlert] = deque()
        self._taken: set[_Version] = set()
        self._suspects: list[Sequence[ActiveAlert]] = []
        self._minimal: set[int] = set()
        self._refused: set[_Version] = set()

    def next(self, active_alerts: Sequence[ActiveAlert], at: float) -> list[ActiveAlert]:
        """Return what to post at ``at`` out of all that is to be posted; nothing if none is due.

        What is new or has changed is due at once, and all of it in each round; a round that takes
        longer than its time is finished first. While ``firing`` is the same list, no more of it is
        looked at than what is due next.
        """
        if active_alerts is not self._firing:
            self._see(active_alerts)
        if self._suspects:
            return list(self._suspects[-1])
        due = self._next_due()
        if at >= self._round_at and not (due and self._taken):
            self._taken.clear()
            self._round_at = at + ROUND_SECONDS
            self._queue()
            due = self._next_due()
        return due

    def wait(self, at: float) -> float:
        """Return in how many seconds the next round begins."""
        return max(self._round_at - at, 0.0)

    def is_minimal(self, number: int) -> bool:
        """Return whether an alert is to be posted in its minimal form."""
        return number in self._minimal

    def took(self, batch: Sequence[ActiveAlert]) -> None:
        """Note that the member took what ``next`` returned."""
        del self._suspects[-1:]
        self._taken |= {_version(alert) for alert in batch}

    def refused(self, batch: Sequence[ActiveAlert]) -> ActiveAlert | None:
        """Note that the member refused what ``next`` returned; return one that it never takes."""
        del self._suspects[-1:]
        if len(batch) > 1:
            half = len(batch) // 2
            self._suspects += [batch[half:], batch[:half]]
            return None
        if batch[0].number not in self._minimal:
            self._minimal.add(batch[0].number)
            self._suspects.append(batch)
            return None
        self._refused.add(_version(batch[0]))
        return batch[0]

    def forget_refusals(self) -> None:
        """Try all that was refused once more."""
        self._refused.clear()
        self._minimal.clear()
        self._firing = ()  # so that all of it is looked at again

    def _next_due(self) -> list[ActiveAlert]:
        while self._due and self._is_done(self._due[0]):
            self._due.popleft()
        return [each for each in islice(self._due, self._most) if not self._is_done(each)]

    def _is_done(self, alert: ActiveAlert) -> bool:
        return _version(alert) in self._taken or _version(alert) in self._refused

    def _see(self, active_alerts: Sequence[ActiveAlert]) -> None:
        """Take over another list, and forget what is no longer in it."""
        current = {alert.number: alert for alert in active_alerts}
        self._firing = active_alerts
        self._taken = {version for version in self._taken if version[0] in current}
        self._refused = {version for version in self._refused if version[0] in current}
        self._minimal &= current.keys()
        still = ([current[x.number] for x in few if x.number in current] for few in self._suspects)
        self._suspects = [few for few in still if few]
        self._queue()

    def _queue(self) -> None:
        self._due = deque(alert for alert in self._firing if not self._is_done(alert))


def _version(alert: ActiveAlert) -> _Version:
    return alert.number, alert.left


_STORED_AT_ONCE: Final = 500
"""How many alerts are marked in one transaction: others must have their turn in the store."""

_READ_SECONDS: Final = ROUND_SECONDS
"""How often everything is read again when nothing changed: time alone ends alerts, too."""

_SHOW_SECONDS: Final = 1.0
"""How often what is owed is counted at the most while one request follows the other."""


class Board:
    """One Alertmanager's alerts, and its health: it is well as long as one of its members is."""

    def __init__(
        self,
        receiver: Alertmanager,
        outbox: AlertOutbox,
        plan: DeliverySettings,
        metrics: DeliveryMetrics,
        clock: Clock,
    ) -> None:
        self.paces = [RetrySchedule(clock, 0.0) for _ in receiver.members]
        self.behind = set(range(len(receiver.members)))
        self._receiver = receiver
        self._outbox = outbox
        self._plan = plan
        self._metrics = metrics
        self._clock = clock
        self._begun = False
        self._stored = CIRCUIT_CLOSED
        self._identities = Identities(receiver.name, outbox, self._labels, self._give_up)
        self._nudges = 0
        self._seen: Hashable = None
        self._old_at = self._rested_at = self._shown_at = clock.monotonic()
        self._firing: Sequence[ActiveAlert] = ()
        self._taken: dict[int, float] = {}
        self._refusals: dict[int, set[int]] = {}
        self._delivered: dict[int, float] = {}
        self._dead: dict[int, float] = {}
        self._told: list[tuple[Event, Sequence[str]]] = []
        self._reading, self._storing = asyncio.Lock(), asyncio.Lock()
        self._log = log.bind(receiver=receiver.name)

    @property
    def health(self) -> CircuitState:
        """The health of the member that is doing best."""
        found = (pace.health for pace in self.paces)
        return min(found, key=lambda each: (each.open, each.failures, -each.since))

    @property
    def name(self) -> str:
        """The receiver's name."""
        return self._receiver.name

    async def receiver_state(self) -> ReceiverState:
        """Return what is stored of the receiver, and take it over at first.

        All members begin with what was stored before any of them was tried: else the end of a
        trouble that was told before a restart would not be told.
        """
        receiver_state = await self._outbox.receiver_state()
        if not self._begun:
            self._begun, self._stored = True, receiver_state.health
            for pace in self.paces:
                pace.apply(receiver_state)
        self._nudges = receiver_state.retry_requests
        return receiver_state

    async def look(self) -> Sequence[ActiveAlert]:
        """Return what is to be posted, as it was a short while ago; see ``brought_up``.

        It is another list only when something may have changed, and then made in a thread: there
        may be a hundred thousand. Raises StoreError when the store can't be read.
        """
        async with self._reading:
            seen, at = (self._nudges, await self._outbox.version()), self._clock.monotonic()
            if self.rest() == 0.0 and (seen != self._seen or at >= self._old_at):
                self._firing = await self._read(self._clock.now())
                self._seen, self._old_at = seen, at + _READ_SECONDS
                # As long as this took: where much happens, all else must go on beside it.
                until = self._clock.monotonic()
                self._rested_at = until + min(until - at, LOOK_SECONDS)
            return self._firing

    def rest(self) -> float:
        """Return in how many seconds ``look`` may see something new; 0 for at once."""
        return max(self._rested_at - self._clock.monotonic(), 0.0)

    async def _read(self, now: float) -> list[ActiveAlert]:
        owed = await self._outbox.owed(now - self._receiver.hold - RESOLVED_SECONDS)
        # What else was taken until here is stored, and has been read.
        self._taken = dict(self._delivered)
        await self._identities.keep(owed)
        self._refusals = {n: each for n, each in self._refusals.items() if n in self._identities}
        return await asyncio.to_thread(self._made, owed, dict(self._taken), now)

    def _made(
        self, owed: Sequence[AlertRow], taken: Mapping[int, float], now: float
    ) -> list[ActiveAlert]:
        alerts = (self._as_known(alert, taken) for alert in owed if self._is_alert(alert.number))
        return active_alerts(alerts, self._identity, now, self._receiver.hold)

    def _as_known(self, alert: AlertRow, taken: Mapping[int, float]) -> AlertRow:
        if alert.settled_at is None and alert.number in taken:
            alert = replace(alert, settled_at=taken[alert.number])
        # It is over when nothing is wrong: reassigned to us, it may be good news.
        trouble = self._identities[alert.number].trouble
        return alert if trouble else replace(alert, left_at=alert.began_at)

    def _is_alert(self, number: int) -> bool:
        return number in self._identities and self._identity(number) is not None

    def _identity(self, number: int) -> Hashable:
        return self._identities[number].digest

    def _labels(self, event: Event) -> Mapping[str, str]:
        content_of(event, self._plan.link_templates, minimal=True)  # fails here, if it does
        return content_of(event, self._plan.link_templates).labels

    def brought_up(self, batch: Sequence[ActiveAlert]) -> list[ActiveAlert]:
        """Return some of what ``look`` returned as it is now."""
        now, hold = self._clock.now(), self._receiver.hold
        return [brought_up(alert, self._taken, now, hold) for alert in batch]

    async def alerts(self, batch: Sequence[ActiveAlert], minimal: Collection[int]) -> list[Alert]:
        """Return what is posted of a batch, without what was deleted meanwhile.

        ``minimal`` are the numbers of those that go in their minimal form. Raises StoreError.
        """
        events = await self._outbox.events([each.number for each in batch])
        return [
            Alert(
                content_of(
                    events[each.number], self._plan.link_templates, minimal=each.number in minimal
                ),
                each.starts_at,
                each.ends_at,
            )
            for each in batch
            if each.number in events
        ]

    def took(self, alerts: Sequence[ActiveAlert]) -> None:
        """Note that a member took ``alerts``: delivered is what the first of them takes."""
        now = self._clock.now()
        for number in (number for alert in alerts for number in alert.pending):
            self._delivered.setdefault(number, now)
            self._taken.setdefault(number, now)

    def refused(self, member: int, alert: ActiveAlert) -> None:
        """Note that a member takes an alert in no form; when none does, it is given up."""
        refusals = self._refusals.setdefault(alert.number, set())
        refusals.add(member)
        known = alert.number in self._identities
        event_id = self._identities[alert.number].event_id if known else ""
        said = self._log.bind(event_id=event_id, member=member + 1)
        if len(refusals) == len(self.paces) and alert.number in alert.pending:
            self._give_up(alert.number)
            said.error("alert given up, every member refuses it")
        else:
            said.error("alert refused")

    def _give_up(self, number: int) -> None:
        self._dead.setdefault(number, self._clock.now())

    def forget_refusals(self, member: int) -> None:
        """Forget what a member refused: it is tried once more."""
        for refusals in self._refusals.values():
            refusals.discard(member)

    def tell_change(self, before: CircuitState) -> None:
        """Have the others told when the health, ``before`` an attempt, is another one in kind."""
        now = self._clock.now()
        self._told += noted_change(self._plan, self._receiver.name, before, self.health, now)

    async def store(self) -> None:
        """Store what is not stored yet; raise StoreError when that fails, and keep it."""
        async with self._storing:
            while (found := self._findings()) is not None:
                self._tell_delivered(await self._outbox.record(found))
                self._forget(found)
                if found.told:
                    self._plan.wake()

    def _tell_delivered(self, delays: Sequence[float]) -> None:
        for delay in delays:
            self._metrics.delay.labels(self._receiver.name).observe(delay)
        if delays:
            self._log.info("delivered", events=len(delays))

    def _findings(self) -> Findings | None:
        delivered = dict(islice(self._delivered.items(), _STORED_AT_ONCE))
        dead = dict(islice(self._dead.items(), _STORED_AT_ONCE))
        told: RoutedEvents = tuple(self._told)
        if not (delivered or dead or told or self.health != self._stored):
            return None
        resume_at = min(pace.resume_at() for pace in self.paces)
        return Findings(delivered, dead, self.health, resume_at, told)

    def _forget(self, stored: Findings) -> None:
        self._stored = stored.health
        for number in stored.delivered:
            del self._delivered[number]
        for number in stored.dead:
            del self._dead[number]
        del self._told[: len(stored.told)]

    async def expire(self) -> None:
        """Give up what is too old, behind an attempt that failed.

        Not while a member has alerts before it that it may take: each has its chance first.
        """
        if self.behind:
            return
        now = self._clock.now()
        expired = await self._outbox.expire(now - self._plan.max_age, now)
        if expired:
            self._seen = None
            self._metrics.failed.labels(self._receiver.name, "expired").inc(expired)
            self._log.error("deliveries given up, they are too old", events=expired)

    async def show(self, *, more: bool = False) -> None:
        """Show what is owed and how the receiver is doing.

        With ``more`` to be posted at once, not each time: all that is pending has to be counted.
        """
        at = self._clock.monotonic()
        if not more or at >= self._shown_at + _SHOW_SECONDS:
            self._shown_at = at
            self._metrics.show(self._receiver.name, await self._outbox.backlog(), self.health)


class AlertDeliverer(DefaultService):
    """Owns what one Alertmanager is owed; a member's trouble delays no other member.

    Alerts are posted at once, whatever ``group_wait`` is: Alertmanager groups by itself. After
    that they are posted again each minute, until they have ended.
    """

    def __init__(
        self,
        receiver: Alertmanager,
        outbox: AlertOutbox,
        plan: DeliverySettings,
        metrics: DeliveryMetrics,
        clock: Clock,
    ) -> None:
        self.name = receiver.name
        self._metrics = metrics
        board = Board(receiver, outbox, plan, metrics, clock)
        self.members = [
            MemberDeliverer(number, member, board, metrics, clock)
            for number, member in enumerate(receiver.members)
        ]
        metrics.initialise(receiver.name)

    @property
    def wakeup_deadline(self) -> float:
        """The monotonic time by which each member will have set its next turn."""
        return min(member.wakeup_deadline for member in self.members)

    def wake(self) -> None:
        """Say that the outbox changed."""
        for member in self.members:
            member.wake()

    def forget(self) -> None:
        """Remove the receiver's series from the page."""
        self._metrics.forget(self.name)

    async def run(self, stop: asyncio.Event) -> None:
        """Post what is owed until ``stop`` is set; what is in flight then is finished."""
        async with asyncio.TaskGroup() as group:
            for member in self.members:
                group.create_task(member.run(stop))


class MemberDeliverer:
    """Posts to one member of an Alertmanager, over connections and with a pace of its own."""

    def __init__(
        self, number: int, member: Member, board: Board, metrics: DeliveryMetrics, clock: Clock
    ) -> None:
        self._number = number
        self._member = member
        self._board = board
        self._pace = board.paces[number]
        self._metrics = metrics
        self._clock = clock
        self._posting = Posting(MOST_ALERTS, clock.monotonic())
        self._loop = Loop(board.name, clock.monotonic)
        self._nudges: int | None = None
        # By its place in the configuration: its URL is a secret.
        self._log = log.bind(receiver=board.name, member=number + 1)

    @property
    def wakeup_deadline(self) -> float:
        """The monotonic time by which it will have set its next turn."""
        return self._loop.wakeup_deadline

    def wake(self) -> None:
        """Say that the outbox changed."""
        self._loop.wake()

    async def run(self, stop: asyncio.Event) -> None:
        """Take turns until ``stop`` is set."""
        await self._loop.run(self.post_due, stop)

    async def post_due(self) -> float:
        """Make one request if one is due; return in how many seconds to look again.

        Raises StoreError when the store can't be read. Where it can be read but not written, posts
        go on, and what was taken is marked once it can.
        """
        self._heed(await self._board.receiver_state())
        await self._store()
        if not self._metrics.shows(self._board.name):  # the request may take as long as it may
            await self._board.show()
        wait = await self._post_due()
        await self._board.show(more=wait == 0.0)
        return wait

    def _heed(self, receiver_state: ReceiverState) -> None:
        self._pace.apply(receiver_state)
        if self._nudges not in {None, receiver_state.retry_requests}:
            self._posting.forget_refusals()
            self._board.forget_refusals(self._number)
        self._nudges = receiver_state.retry_requests

    async def _post_due(self) -> float:
        paused = self._pace.wait()
        if paused > 0:
            self._board.behind.discard(self._number)
            return paused
        active_alerts = await self._board.look()
        # In a thread: of a new list, or in a new round, it goes through all that is posted.
        found = await asyncio.to_thread(self._posting.next, active_alerts, self._clock.monotonic())
        if not found:
            self._board.behind.discard(self._number)
            return self._wait()
        self._board.behind.add(self._number)
        batch = self._board.brought_up(found)
        await self._take_note(batch, await self._post(batch))
        return 0.0

    def _wait(self) -> float:
        wait, rest = self._posting.wait(self._clock.monotonic()), self._board.rest()
        return min(wait, rest) if rest > 0 else wait

    async def _post(self, batch: Sequence[ActiveAlert]) -> Attempt:
        minimal = [each.number for each in batch if self._posting.is_minimal(each.number)]
        body = render(await self._board.alerts(batch, minimal))
        started = self._clock.monotonic()
        self._loop.expect(self._member.seconds)
        attempt = await self._member.post(body, self._clock.now())
        self._loop.expect(0.0)
        self._metrics.tried.labels(self._board.name).inc()
        self._metrics.duration.labels(self._board.name).observe(self._clock.monotonic() - started)
        return attempt

    async def _take_note(self, batch: Sequence[ActiveAlert], attempt: Attempt) -> None:
        before = self._board.health
        self._pace.took(attempt)
        self._board.tell_change(before)
        if attempt.outcome is Outcome.DELIVERED:
            self._posting.took(batch)
            self._board.took(batch)
        else:
            self._take_note_of_failure(batch, attempt)
        await self._store()
        if attempt.outcome is not Outcome.DELIVERED:
            await self._expire()

    def _take_note_of_failure(self, batch: Sequence[ActiveAlert], attempt: Attempt) -> None:
        self._metrics.failed.labels(self._board.name, attempt.outcome.value).inc()
        if attempt.outcome is Outcome.PAYLOAD:
            refused = self._posting.refused(batch)
            if refused is not None:
                self._board.refused(self._number, refused)
                return
        elif self._pace.wait() > 0:
            self._board.behind.discard(self._number)
        self._log.warning(
            "delivery failed, will be tried again",
            alerts=len(batch),
            outcome=attempt.outcome.value,
            reason=attempt.reason,
            pause=f"{self._pace.wait():.1f}s",
        )

    async def _store(self) -> None:
        try:
            await self._board.store()
        except StoreError as error:
            self._loop.tell_trouble(error)
        else:
            self._loop.tell_end_of_trouble()

    async def _expire(self) -> None:
        try:
            await self._board.expire()
        except StoreError as error:
            self._loop.tell_trouble(error)

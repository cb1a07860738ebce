"""What the members of one Alertmanager share: what is to be posted, and what came of their posts.

What came of them is kept here until the store has taken it, so that a full disk loses none of it.
"""

import asyncio
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Final

import structlog

from exporter.core.circuit import WELL, Health
from exporter.core.clock import Clock
from exporter.core.firing import RESOLVED_SECONDS, Firing, OwedAlert, firing
from exporter.core.model import Event
from exporter.core.routing import TROUBLES
from exporter.delivery.changes import noted_change
from exporter.delivery.metrics import DeliveryMetrics
from exporter.delivery.pace import Pace
from exporter.delivery.plan import DeliveryPlan
from exporter.receivers.alertmanager import Alertmanager, Content, content_of
from exporter.store.events import Told
from exporter.store.firing import AlertOutbox, Findings
from exporter.store.receivers import Standing

_STORED_AT_ONCE: Final = 500
"""How many alerts are marked in one transaction: others must have their turn in the store."""

_READ_AT_ONCE: Final = 100
"""How many events are made into alerts at a time: others must have their turn in the loop."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class _Contents:
    """An event's alert in both forms; both are empty when it could not be made into one.

    ``trouble`` says whether it tells of one, and ``identity`` are its labels, in a form that can be
    compared.
    """

    id: str
    trouble: bool
    full: Content | None = None
    minimal: Content | None = None
    identity: Hashable = None


class Board:
    """One Alertmanager's alerts, and its health: it is well as long as one of its members is."""

    def __init__(
        self,
        receiver: Alertmanager,
        outbox: AlertOutbox,
        plan: DeliveryPlan,
        metrics: DeliveryMetrics,
        clock: Clock,
    ) -> None:
        self.paces = [Pace(clock, 0.0) for _ in receiver.members]
        self.behind = set(range(len(receiver.members)))
        self._receiver = receiver
        self._outbox = outbox
        self._plan = plan
        self._metrics = metrics
        self._clock = clock
        self._begun = False
        self._stored = WELL
        self._contents: dict[int, _Contents] = {}
        self._refusals: dict[int, set[int]] = {}
        self._delivered: dict[int, float] = {}
        self._dead: dict[int, float] = {}
        self._told: list[tuple[Event, Sequence[str]]] = []
        self._reading, self._storing = asyncio.Lock(), asyncio.Lock()
        self._log = log.bind(receiver=receiver.name)

    @property
    def health(self) -> Health:
        """The health of the member that is doing best."""
        found = (pace.health for pace in self.paces)
        return min(found, key=lambda each: (each.open, each.failures, -each.since))

    @property
    def name(self) -> str:
        """The receiver's name."""
        return self._receiver.name

    async def standing(self) -> Standing:
        """Return what is stored of the receiver, and take it over at first.

        All members begin with what was stored before any of them was tried: else the end of a
        trouble that was told before a restart would not be told.
        """
        standing = await self._outbox.standing()
        if not self._begun:
            self._begun, self._stored = True, standing.health
            for pace in self.paces:
                pace.heed(standing)
        return standing

    async def look(self) -> list[Firing]:
        """Return what is to be posted now; raise StoreError when the store can't be read."""
        now, hold = self._clock.now(), self._receiver.hold
        owed = await self._outbox.owed(now - hold - RESOLVED_SECONDS)
        known = [self._as_known(alert) for alert in owed]
        async with self._reading:
            await self._read({alert.number for alert in known})
        there = [self._as_ended(alert) for alert in known if self._is_there(alert.number)]
        return firing(there, self._identity, now, hold)

    def _as_known(self, alert: OwedAlert) -> OwedAlert:
        if alert.settled_at is None and alert.number in self._delivered:
            return replace(alert, settled_at=self._delivered[alert.number])
        return alert

    def _as_ended(self, alert: OwedAlert) -> OwedAlert:
        """Return an alert as over when nothing is wrong: reassigned to us, it may be good news."""
        trouble = self._contents[alert.number].trouble
        return alert if trouble else replace(alert, left_at=alert.began_at)

    async def _read(self, numbers: set[int]) -> None:
        """Keep the contents of these events ready, and nothing of others."""
        self._contents = {n: each for n, each in self._contents.items() if n in numbers}
        self._refusals = {n: each for n, each in self._refusals.items() if n in numbers}
        missing = sorted(numbers - self._contents.keys())
        for begin in range(0, len(missing), _READ_AT_ONCE):
            found = await self._outbox.events(missing[begin : begin + _READ_AT_ONCE])
            for number, event in found.items():
                self._contents[number] = self._contents_of(event)
                if self._contents[number].full is None:
                    self._dead[number] = self._clock.now()

    def _contents_of(self, event: Event) -> _Contents:
        try:
            full = content_of(event, self._plan.pages)
            minimal = content_of(event, self._plan.pages, minimal=True)
            identity = tuple(sorted(full.labels.items()))
            return _Contents(event.id, event.type in TROUBLES, full, minimal, identity)
        except Exception:  # noqa: BLE001 - as in Deliverer: it must not stop the other alerts
            self._log.exception("an alert cannot be made of an event", event_id=event.id)
            return _Contents(event.id, event.type in TROUBLES)

    def _is_there(self, number: int) -> bool:
        return number in self._contents and self._contents[number].full is not None

    def _identity(self, number: int) -> Hashable:
        return self._contents[number].identity

    def content(self, number: int, *, minimal: bool) -> Content:
        """Return what is posted of an event that ``look`` returned."""
        contents = self._contents[number]
        found = contents.minimal if minimal else contents.full
        assert found is not None
        return found

    def took(self, alerts: Sequence[Firing]) -> None:
        """Note that a member took ``alerts``: delivered is what the first of them takes."""
        now = self._clock.now()
        new = {number: now for alert in alerts for number in alert.pending}
        self._delivered = new | self._delivered

    def refused(self, member: int, alert: Firing) -> None:
        """Note that a member takes an alert in no form; when none does, it is given up."""
        refusals = self._refusals.setdefault(alert.number, set())
        refusals.add(member)
        event_id = self._contents[alert.number].id if alert.number in self._contents else ""
        said = self._log.bind(event_id=event_id, member=member + 1)
        if len(refusals) == len(self.paces) and alert.number in alert.pending:
            self._dead.setdefault(alert.number, self._clock.now())
            said.error("alert given up, every member refuses it")
        else:
            said.error("alert refused")

    def forget_refusals(self, member: int) -> None:
        """Forget what a member refused: it is tried once more."""
        for refusals in self._refusals.values():
            refusals.discard(member)

    def tell_change(self, before: Health) -> None:
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
        told: Told = tuple(self._told)
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
            self._metrics.failed.labels(self._receiver.name, "expired").inc(expired)
            self._log.error("deliveries given up, they are too old", events=expired)

    async def show(self) -> None:
        """Show what is owed and how the receiver is doing."""
        self._metrics.show(self._receiver.name, await self._outbox.backlog(), self.health)

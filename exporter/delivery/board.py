"""What the members of one Alertmanager share: what is to be posted, and what came of their posts.

What came of them is kept here until the store has taken it, so that a full disk loses none of it.
"""

import asyncio
from collections.abc import Collection, Hashable, Mapping, Sequence
from itertools import islice
from typing import Final

import structlog
from msgspec.structs import replace

from exporter.core.circuit import WELL, Health
from exporter.core.clock import Clock
from exporter.core.firing import RESOLVED_SECONDS, Firing, OwedAlert, brought_up, firing
from exporter.core.model import Event
from exporter.delivery.changes import noted_change
from exporter.delivery.identities import Identities
from exporter.delivery.loop import LOOK_SECONDS
from exporter.delivery.metrics import DeliveryMetrics
from exporter.delivery.pace import Pace
from exporter.delivery.plan import DeliveryPlan
from exporter.delivery.posting import ROUND_SECONDS
from exporter.receivers.alertmanager import Alert, Alertmanager, content_of
from exporter.store.events import Told
from exporter.store.firing import AlertOutbox, Findings
from exporter.store.receivers import Standing

_STORED_AT_ONCE: Final = 500
"""How many alerts are marked in one transaction: others must have their turn in the store."""

_READ_SECONDS: Final = ROUND_SECONDS
"""How often everything is read again when nothing changed: time alone ends alerts, too."""

_SHOW_SECONDS: Final = 1.0
"""How often what is owed is counted at the most while one request follows the other."""

log = structlog.get_logger()


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
        self._identities = Identities(receiver.name, outbox, self._labels, self._give_up)
        self._nudges = 0
        self._seen: Hashable = None
        self._old_at = self._rested_at = self._shown_at = clock.monotonic()
        self._firing: Sequence[Firing] = ()
        self._taken: dict[int, float] = {}
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
        self._nudges = standing.nudges
        return standing

    async def look(self) -> Sequence[Firing]:
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

    async def _read(self, now: float) -> list[Firing]:
        owed = await self._outbox.owed(now - self._receiver.hold - RESOLVED_SECONDS)
        # What else was taken until here is stored, and has been read.
        self._taken = dict(self._delivered)
        await self._identities.keep(owed)
        self._refusals = {n: each for n, each in self._refusals.items() if n in self._identities}
        return await asyncio.to_thread(self._made, owed, dict(self._taken), now)

    def _made(
        self, owed: Sequence[OwedAlert], taken: Mapping[int, float], now: float
    ) -> list[Firing]:
        alerts = (self._as_known(alert, taken) for alert in owed if self._is_alert(alert.number))
        return firing(alerts, self._identity, now, self._receiver.hold)

    def _as_known(self, alert: OwedAlert, taken: Mapping[int, float]) -> OwedAlert:
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
        content_of(event, self._plan.pages, minimal=True)  # fails here, if it does
        return content_of(event, self._plan.pages).labels

    def brought_up(self, batch: Sequence[Firing]) -> list[Firing]:
        """Return some of what ``look`` returned as it is now."""
        now, hold = self._clock.now(), self._receiver.hold
        return [brought_up(alert, self._taken, now, hold) for alert in batch]

    async def alerts(self, batch: Sequence[Firing], minimal: Collection[int]) -> list[Alert]:
        """Return what is posted of a batch, without what was deleted meanwhile.

        ``minimal`` are the numbers of those that go in their minimal form. Raises StoreError.
        """
        events = await self._outbox.events([each.number for each in batch])
        return [
            Alert(
                content_of(events[each.number], self._plan.pages, minimal=each.number in minimal),
                each.starts_at,
                each.ends_at,
            )
            for each in batch
            if each.number in events
        ]

    def took(self, alerts: Sequence[Firing]) -> None:
        """Note that a member took ``alerts``: delivered is what the first of them takes."""
        now = self._clock.now()
        for number in (number for alert in alerts for number in alert.pending):
            self._delivered.setdefault(number, now)
            self._taken.setdefault(number, now)

    def refused(self, member: int, alert: Firing) -> None:
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

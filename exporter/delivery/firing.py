"""Tell an Alertmanager what is wrong for as long as it is: each member by itself."""

import asyncio
from collections.abc import Sequence

import structlog

from exporter.core.clock import Clock
from exporter.core.firing import Firing
from exporter.core.retry import Attempt, Outcome
from exporter.delivery.board import Board
from exporter.delivery.loop import Loop
from exporter.delivery.metrics import DeliveryMetrics
from exporter.delivery.plan import DeliveryPlan
from exporter.delivery.posting import Posting
from exporter.receivers.alertmanager import MOST_ALERTS, Alertmanager, Member, render
from exporter.store.errors import StoreError
from exporter.store.firing import AlertOutbox
from exporter.store.receivers import Standing

log = structlog.get_logger()


class AlertDeliverer:
    """Owns what one Alertmanager is owed; a member's trouble delays no other member.

    Alerts are posted at once, whatever ``group_wait`` is: Alertmanager groups by itself. After
    that they are posted again each minute, until they have ended.
    """

    def __init__(
        self,
        receiver: Alertmanager,
        outbox: AlertOutbox,
        plan: DeliveryPlan,
        metrics: DeliveryMetrics,
        clock: Clock,
    ) -> None:
        self.name = receiver.name
        board = Board(receiver, outbox, plan, metrics, clock)
        self.members = [
            MemberDeliverer(number, member, board, metrics, clock)
            for number, member in enumerate(receiver.members)
        ]
        metrics.initialise(receiver.name)

    @property
    def due_at(self) -> float:
        """The monotonic time by which each member will have set its next turn."""
        return min(member.due_at for member in self.members)

    def wake(self) -> None:
        """Say that the outbox changed."""
        for member in self.members:
            member.wake()

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
    def due_at(self) -> float:
        """The monotonic time by which it will have set its next turn."""
        return self._loop.due_at

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
        self._heed(await self._board.standing())
        await self._store()
        if not self._metrics.shows(self._board.name):  # the request may take as long as it may
            await self._board.show()
        wait = await self._post_due()
        await self._board.show(more=wait == 0.0)
        return wait

    def _heed(self, standing: Standing) -> None:
        self._pace.heed(standing)
        if self._nudges not in {None, standing.nudges}:
            self._posting.forget_refusals()
            self._board.forget_refusals(self._number)
        self._nudges = standing.nudges

    async def _post_due(self) -> float:
        paused = self._pace.wait()
        if paused > 0:
            self._board.behind.discard(self._number)
            return paused
        firing = await self._board.look()
        # In a thread: of a new list, or in a new round, it goes through all that is posted.
        found = await asyncio.to_thread(self._posting.next, firing, self._clock.monotonic())
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

    async def _post(self, batch: Sequence[Firing]) -> Attempt:
        minimal = [each.number for each in batch if self._posting.is_minimal(each.number)]
        body = render(await self._board.alerts(batch, minimal))
        started = self._clock.monotonic()
        self._loop.expect(self._member.seconds)
        attempt = await self._member.post(body, self._clock.now())
        self._loop.expect(0.0)
        self._metrics.tried.labels(self._board.name).inc()
        self._metrics.duration.labels(self._board.name).observe(self._clock.monotonic() - started)
        return attempt

    async def _take_note(self, batch: Sequence[Firing], attempt: Attempt) -> None:
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

    def _take_note_of_failure(self, batch: Sequence[Firing], attempt: Attempt) -> None:
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

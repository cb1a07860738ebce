"""The straight line: read every page, work out what changed, store it with what is owed."""

import asyncio
import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final, Protocol

import structlog
from structlog.typing import FilteringBoundLogger

from exporter.cartesia.errors import CartesiaError
from exporter.cartesia.listing import Listing
from exporter.core.account import AccountState, PollResult, Router, Rules, apply_snapshot
from exporter.core.clock import Clock
from exporter.core.events import Event
from exporter.core.model import Snapshot, TrackedFineTune
from exporter.core.text import one_line, timestamp
from exporter.core.view import AccountStatus, SeriesOptions
from exporter.polling.metrics import PollMetrics
from exporter.polling.outage import OutageWatch
from exporter.store.accounts import Accounts
from exporter.store.errors import StoreError
from exporter.supervisor import pause

_MOST_LOGGED: Final = 100
"""How many changes of one poll get a log line each; a baseline gone wrong must not fill a disk."""


def tell_poll(log: FilteringBoundLogger, snapshot: Snapshot) -> None:
    """Say what was read, and whether the clock is another than it was."""
    log.debug(
        "polled",
        fine_tunes=len(snapshot.fine_tunes),
        pages=snapshot.pages,
        seconds=round(snapshot.duration, 3),
    )
    if snapshot.clock_jump:
        log.warning(
            "the clock was set, or this machine slept: what waits does not count that time",
            clock=timestamp(snapshot.read_at),
            expected=timestamp(snapshot.read_at - snapshot.clock_jump),
        )


def tell_changes(log: FilteringBoundLogger, events: Sequence[Event]) -> None:
    """Say what became of fine-tunes; of many, how many more there are."""
    changes = [event for event in events if event.fine_tune is not None]
    for event in changes[:_MOST_LOGGED]:
        _tell_change(log, event)
    if len(changes) > _MOST_LOGGED:
        log.info("more fine-tunes changed", number=len(changes) - _MOST_LOGGED)


def _tell_change(log: FilteringBoundLogger, event: Event) -> None:
    assert event.fine_tune is not None
    changed = "fine-tune " + event.type.removeprefix("fine_tune.")
    log.info(
        changed,
        fine_tune=one_line(event.fine_tune.id),
        name=one_line(event.fine_tune.name, 100),
        model=one_line(event.fine_tune.model_id, 100),
        previous=one_line(event.previous_status or "none", 100),
        status=one_line(event.fine_tune.status, 100),
    )


_SLOWED: Final = 10
"""An account whose key was refused is polled once in so many turns."""

_HICCUP: Final = 10.0
"""By how many seconds the wall clock may be corrected before that is a jump."""

_COMPARING: Final = ThreadPoolExecutor(1, "compare")
"""Where readings are compared with what is known, which would hold up the loop for a large account.
One thread for all accounts: each of several would take the interpreter from the loop in turn."""

log = structlog.get_logger()


class Source(Protocol):
    """Where the fine-tunes of an account are read."""

    async def list_fine_tunes(
        self, seconds: float, known: Mapping[str, TrackedFineTune]
    ) -> Listing:
        """Return all of them, read within ``seconds``; raise CartesiaError.

        Those that equal what is ``known``, by id, are the same objects.
        """
        ...

    def key_is_refused(self) -> bool:
        """Return whether the key is still the one that the API refused last."""
        ...

    def remember(self, cursors: Sequence[str]) -> None:
        """Take the cursors for those of the last listing, and nothing else for read."""
        ...


@dataclass(frozen=True, slots=True)
class PollSettings:
    """How an account is polled; times are in seconds, ``interval`` from start to start.

    ``failing_after`` is how long an account can't be read before that is told, 0 for never.
    ``publish`` is given what the page shows, ``route`` names the receivers of an event, and
    ``wake`` is called after a commit that owes them something. What was read is shown for
    ``stale_after`` seconds, with these series ``options``.
    """

    interval: float
    timeout: float
    rules: Rules
    failing_after: float
    publish: Callable[[AccountStatus], None]
    route: Router
    wake: Callable[[], None]
    stale_after: float
    options: SeriesOptions = field(default_factory=SeriesOptions)


class Poller:
    """Polls one account; another account's trouble never delays it.

    ``due_at`` is the monotonic time by which it will have set its next turn: a poll its deadline,
    a rest its end.
    """

    def __init__(
        self,
        source: Source,
        accounts: Accounts,
        plan: PollSettings,
        metrics: PollMetrics,
        clock: Clock,
    ) -> None:
        self.account = plan.rules.key.name
        self.wakeup_deadline = math.inf
        self._source = source
        self._accounts = accounts
        self._plan = plan
        self._metrics = metrics
        self._clock = clock
        self._outages = OutageWatch(accounts, plan.rules, plan.failing_after, plan.route, clock)
        self._state: AccountState | None = None
        self._cursors: tuple[str, ...] = ()
        self._unsure = True
        stale_at = clock.monotonic() + plan.stale_after
        self._status = AccountStatus(self.account, options=plan.options, stale_at=stale_at)
        self._folded: frozenset[tuple[str, str]] = frozenset()
        self._begin_after = 0.0
        self._resume_at = 0.0
        self._slowed_turns = 0
        self._wall_ahead = clock.now() - clock.monotonic()
        self._log = log.bind(account=self.account)
        metrics.initialise(self.account)

    async def restore(self) -> None:
        """Load what was remembered, and show its counters before the first poll.

        Raises StoreError.
        """
        await self._load()
        if self._state is not None:
            self._status = replace(
                self._status, labels=self._state.labels, counters=self._state.counters
            )
        self._plan.publish(self._status)

    async def _load(self) -> None:
        self._state = await self._accounts.load(self._plan.rules.key)
        self._cursors = await self._accounts.cursors(self._plan.rules.key)
        self._source.remember(self._cursors)
        await self._outages.restore(watched=self._state is not None)
        self._unsure = False

    def follow(self, other: "Poller") -> None:
        """Go on where the account's poller ended that a reload replaces.

        What that showed stays shown, if this one would show it alike; a wait that the API asked for
        and an outage that is not told yet go on. Before `restore`.
        """
        plan, was, view = self._plan, other._plan, other._status  # noqa: SLF001 - of its own class
        if plan.rules.key != was.rules.key:
            return
        self._resume_at, self._wall_ahead = other._resume_at, other._wall_ahead  # noqa: SLF001
        self._outages.follow(other._outages)  # noqa: SLF001
        if (plan.options, plan.rules.max_models) == (was.options, was.rules.max_models):
            stale_at = view.stale_at + plan.stale_after - was.stale_after
            self._status = replace(view, stale_at=stale_at)
            self._folded = other._folded  # noqa: SLF001

    def try_again(self) -> None:
        """Poll at the next turn, also an account whose key was refused: it may work now."""
        self._slowed_turns = 0

    def begin_after(self, seconds: float) -> None:
        """Have ``run`` wait for so long before the first poll."""
        self._begin_after = seconds

    async def run(self, stop: asyncio.Event) -> None:
        """Poll, from start to start of the interval, until ``stop`` is set."""
        turn = self._clock.monotonic() + self._begin_after
        self.wakeup_deadline = turn
        await pause(stop, self._begin_after)
        while not stop.is_set():
            self.wakeup_deadline = self._clock.monotonic() + self._plan.timeout
            await self.turn()
            turn = max(turn + self._plan.interval, self._clock.monotonic())
            self.wakeup_deadline = turn
            await pause(stop, turn - self._clock.monotonic())

    async def turn(self) -> None:
        """Poll, unless the API asked to wait or refused the key; tell it when that goes on long."""
        if self._may_poll():
            await self.poll()
        else:
            self._metrics.skipped.labels(self.account).inc()
        if await self._outages.tell_if_due():
            self._plan.wake()

    def _may_poll(self) -> bool:
        if self._clock.monotonic() < self._resume_at:
            return False
        if self._slowed_turns > 0 and self._source.key_is_refused():
            self._slowed_turns -= 1
            return False
        return True

    async def poll(self) -> None:
        """Read, compare and commit once. A poll that fails changes nothing but what it says of it.

        An error that is not the API's or the store's is a bug, and is raised.
        """
        started = self._clock.monotonic()
        self._metrics.polls.labels(self.account).inc()
        try:
            known = {} if self._state is None else self._state.tracked
            listing = await self._source.list_fine_tunes(self._plan.timeout, known)
            read, now, jump = self._clock.monotonic(), self._clock.now(), self._clock_jump()
            snapshot = Snapshot(listing.fine_tunes, now, read - started, listing.pages, jump)
            await self._take(snapshot, listing.cursors, stale_at=read + self._plan.stale_after)
        except CartesiaError as error:
            self._wait_as_told(error)
            self._fail(error.reason, str(error), self._clock.monotonic() - started)
        except StoreError as error:
            self._unsure = True
            self._fail("storage", str(error), self._clock.monotonic() - started)

    async def _take(self, snapshot: Snapshot, cursors: tuple[str, ...], *, stale_at: float) -> None:
        """Commit, then swap the page, then wake the receivers: in this order nothing is lost."""
        if self._unsure:  # whether the commit that failed did; the same event must be itself
            await self._load()
        result = await self._apply(snapshot, cursors)
        if not result.is_empty:
            await self._accounts.commit(result)
        self._outages.end()
        self._wall_ahead += snapshot.clock_jump
        self._log_poll(result, snapshot)
        self._state, self._cursors = result.state, cursors
        self._metrics.folded.inc(len(result.folded - self._folded))
        self._folded = result.folded
        last = {**self._status.examples, **result.status.examples}
        self._status = replace(result.status, stale_at=stale_at, examples=last)
        self._slowed_turns = 0
        self._plan.publish(self._status)
        if result.events or result.recovery:
            self._plan.wake()

    async def _apply(self, snapshot: Snapshot, cursors: tuple[str, ...]) -> PollResult:
        plan = self._plan
        work = partial(apply_snapshot, self._state, snapshot, plan.rules, plan.options, plan.route)
        result = await asyncio.get_running_loop().run_in_executor(_COMPARING, work)
        return replace(
            result,
            recovery=self._outages.recovery(snapshot.read_at),
            cursors=None if cursors == self._cursors else cursors,
        )

    def _clock_jump(self) -> float:
        """Return how much the wall clock was set since the last poll that was taken, in seconds."""
        jump = self._clock.now() - self._clock.monotonic() - self._wall_ahead
        return jump if abs(jump) > _HICCUP else 0.0

    def _fail(self, reason: str, detail: str, duration: float) -> None:
        self._metrics.failures.labels(self.account, reason).inc()
        self._outages.failed(reason, detail, watched=self._state is not None)
        self._status = replace(
            self._status,
            up=False,
            polled_at=self._clock.now(),
            duration=duration,
            failure=reason,
        )
        self._plan.publish(self._status)
        counts = (
            "there are no counts yet" if self._status.counts is None else "the last counts stay"
        )
        self._log.warning(
            f"poll failed, {counts}",
            reason=reason,
            error=one_line(detail),
            next_poll=f"in {self._until_next(duration):.0f}s",
        )

    def _until_next(self, duration: float) -> float:
        """Return the seconds until the next poll, behind one that took ``duration`` seconds."""
        turn = self._plan.interval * (1 + self._slowed_turns) - duration
        return max(turn, self._resume_at - self._clock.monotonic(), 0.0)

    def _wait_as_told(self, error: CartesiaError) -> None:
        if error.retry_after is not None:
            self._resume_at = self._clock.monotonic() + error.retry_after
        # Also when it was something else this time: the key is still the refused one.
        if error.reason in {"unauthorized", "forbidden"} or self._source.key_is_refused():
            self._slowed_turns = _SLOWED - 1

    def _log_poll(self, result: PollResult, snapshot: Snapshot) -> None:
        tell_poll(self._log, snapshot)
        if self._state is None:
            self._log.info("baseline taken", fine_tunes=len(snapshot.fine_tunes))
        if not self._status.up and self._status.polled_at:
            self._log.info("poll recovered")
        tell_changes(self._log, [event for event, _ in result.events])

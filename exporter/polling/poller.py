"""The poller of one account: read all pages, compare, commit, publish."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from math import inf
from typing import Final, Protocol

import structlog
from msgspec import Struct
from msgspec.structs import replace

from exporter.cartesia.errors import CartesiaError
from exporter.cartesia.listing import Listing
from exporter.core.account import AccountState, PollResult, Router, Rules, apply_snapshot
from exporter.core.clock import Clock
from exporter.core.model import Snapshot, TrackedFineTune
from exporter.core.text import format_duration, one_line, timestamp
from exporter.core.view import AccountStatus, SeriesOptions
from exporter.polling.metrics import PollMetrics
from exporter.polling.outage import OutageWatch
from exporter.polling.outage_log import OutageLog
from exporter.store.accounts import Accounts
from exporter.store.errors import StoreError, StoreFencedError
from exporter.supervisor import Service, pause

_REFUSED_KEY_INTERVALS: Final = 10
"""An account whose key is refused is polled once in this many intervals."""

_TOLERATED_REFUSALS: Final = 2
"""Refused polls in a row of a key that has worked: services refuse valid keys while they fail."""

_MIN_CLOCK_JUMP_SECONDS: Final = 10.0
"""Smaller differences between the wall clock and the monotonic clock are ordinary corrections."""

_MAX_LOGGED_CHANGES: Final = 100
"""Log lines for changed fine-tunes per poll, so that a mass change does not fill the disk."""

log = structlog.get_logger()


class Source(Protocol):
    """The API of one account."""

    async def list_fine_tunes(
        self, seconds: float, tracked: Mapping[str, TrackedFineTune], /
    ) -> Listing:
        """Return all fine-tunes, read within ``seconds``; raise CartesiaError.

        A fine-tune that equals the tracked one of the same id is the same object.
        """
        ...

    def key_is_refused(self) -> bool:
        """Return whether the current key is the one that the API refused last."""
        ...

    def key_has_worked(self, *, default: bool) -> bool:
        """Return whether the current key is the one that the API accepted last.

        It is the ``default`` while the API has accepted none.
        """
        ...

    def remember(self, cursors: Sequence[str], /) -> None:
        """Set the cursors of the last listing."""
        ...


class PollSettings(Struct, frozen=True):
    """How an account is polled. Times are in seconds.

    A poll starts ``interval`` after the start of the last one and may take ``timeout``. An outage
    of ``failing_after`` is reported; 0 for never. A snapshot is shown for ``stale_after``.
    ``withdraw`` removes what ``publish`` and the source show of the account of this name. ``wake``
    is called after a commit that queued notifications.
    """

    interval: float
    timeout: float
    rules: Rules
    failing_after: float
    publish: Callable[[AccountStatus], None]
    withdraw: Callable[[str], None]
    route: Router
    wake: Callable[[], None]
    stale_after: float
    options: SeriesOptions


def _series_rules(settings: PollSettings) -> tuple[object, ...]:
    """Return the settings on which the counts depend."""
    return settings.options, settings.rules.max_models, settings.rules.failed_statuses


class Poller(Service):
    """Polls one account, independent of all others."""

    wakeup_deadline: float = inf

    def __init__(
        self,
        source: Source,
        accounts: Accounts,
        settings: PollSettings,
        metrics: PollMetrics,
        clock: Clock,
    ) -> None:
        self.account = settings.rules.key.name
        self._source = source
        self._accounts = accounts
        self._settings = settings
        self._metrics = metrics
        self._clock = clock
        self._outages = OutageWatch(
            accounts, settings.rules, settings.failing_after, settings.route, clock
        )
        self._outage_log = OutageLog(self.account)
        self._state: AccountState | None = None
        self._cursors: tuple[str, ...] = ()
        # The key that read an empty list last; None if the last list was not empty.
        self._empty_with_key: str | None = None
        self._must_load = True
        stale_at = clock.monotonic() + settings.stale_after
        self._status = AccountStatus(
            self.account, options=settings.options, stale_at=stale_at, moves=accounts.moves
        )
        self._folded: frozenset[tuple[str, str]] = frozenset()
        self._resume_at = 0.0
        self._intervals_to_skip = 0
        self._refused_polls = 0
        self._wall_offset = clock.now() - clock.monotonic()
        self._log = log.bind(account=self.account)
        metrics.initialise(self.account)

    async def prepare(self, previous: "Poller | None") -> None:
        """Load the account's state and publish its counters before the first poll.

        ``previous`` is the account's poller before a reload. Raises StoreError.
        """
        if previous is not None:
            self._continue(previous)
        await self._load()
        if self._state is not None:
            state = self._state
            counters = self._accounts.largest(self._settings.rules.key, state.counters)
            self._status = replace(self._status, labels=state.labels, counters=counters)
        self._settings.publish(self._status)

    def _continue(self, previous: "Poller") -> None:
        """Take over Retry-After, outage and clock of a poller of the same account.

        Its counts stay published if this poller would publish the same series.
        """
        new, old, status = self._settings, previous._settings, previous._status  # noqa: SLF001 - same class
        if new.rules.key != old.rules.key:
            return
        self._resume_at, self._wall_offset = previous._resume_at, previous._wall_offset  # noqa: SLF001
        self._outages.outage = previous._outages.outage  # noqa: SLF001
        self._outage_log = previous._outage_log  # noqa: SLF001
        self._empty_with_key = previous._empty_with_key  # noqa: SLF001
        if _series_rules(new) == _series_rules(old):
            stale_at = status.stale_at + new.stale_after - old.stale_after
            self._status = replace(status, stale_at=stale_at, moves=self._accounts.moves)
            self._folded = previous._folded  # noqa: SLF001

    async def _load(self) -> None:
        self._state = await self._accounts.load(self._settings.rules.key)
        self._cursors = await self._accounts.cursors(self._settings.rules.key)
        self._source.remember(self._cursors)
        await self._outages.restore(has_baseline=self._state is not None)
        self._must_load = False

    def reloaded(self) -> None:
        """Poll at the next interval even if the key was refused: it may be valid now."""
        self._intervals_to_skip = 0

    def forget(self) -> None:
        """Remove the account's series from the page."""
        self._metrics.forget(self.account)
        self._settings.withdraw(self.account)

    async def run(self, stop: asyncio.Event) -> None:
        """Poll at each interval until ``stop`` is set."""
        poll_at = self._clock.monotonic()
        while not stop.is_set():
            self.wakeup_deadline = self._clock.monotonic() + self._settings.timeout
            await self.poll_if_due()
            poll_at = max(poll_at + self._settings.interval, self._clock.monotonic())
            self.wakeup_deadline = poll_at
            await self._wait(stop, poll_at)

    async def _wait(self, stop: asyncio.Event, poll_at: float) -> None:
        """Wait for the next poll; on the way log that the counts become too old to be shown."""
        outage, stale_at = self._outages.outage, self._status.stale_at
        if outage is not None and stale_at < poll_at:
            await pause(stop, stale_at - self._clock.monotonic())
            if not stop.is_set():
                self._outage_log.withheld(outage, self._status)
        await pause(stop, poll_at - self._clock.monotonic())

    async def poll_if_due(self) -> None:
        """Poll, unless the API asked to wait or refused the key; queue the outage event if due."""
        if self._is_due():
            await self.poll()
        else:
            self._metrics.skipped.labels(self.account).inc()
        if await self._outages.store_and_notify():
            self._settings.wake()

    def _is_due(self) -> bool:
        if self._clock.monotonic() < self._resume_at:
            return False
        if self._intervals_to_skip > 0 and self._source.key_is_refused():
            self._intervals_to_skip -= 1
            return False
        return True

    async def poll(self) -> None:
        """Read, compare, commit and publish once. A failed poll keeps the last snapshot.

        Errors of the API and of the store are handled here; any other is a bug and is raised.
        """
        started = self._clock.monotonic()
        self._metrics.polls.labels(self.account).inc()
        try:
            tracked = {} if self._state is None else self._state.tracked
            listing = await self._source.list_fine_tunes(self._settings.timeout, tracked)
            read_at, now = self._clock.monotonic(), self._clock.now()
            jump = now - read_at - self._wall_offset
            if abs(jump) <= _MIN_CLOCK_JUMP_SECONDS:
                jump = 0.0
            key = listing.key_fingerprint
            snapshot = Snapshot(
                listing.fine_tunes,
                now,
                read_at - started,
                listing.pages,
                jump,
                key,
                confirmed=bool(listing.fine_tunes) or self._empty_with_key == key,
            )
            stale_at = read_at + self._settings.stale_after
            await self._commit(snapshot, listing.cursors, stale_at)
        except CartesiaError as error:
            if error.retry_after is not None:
                self._resume_at = self._clock.monotonic() + error.retry_after
            self._slow_down_if_refused(error)
            self._fail(error.reason, str(error), self._clock.monotonic() - started)
        except StoreFencedError:
            self._must_load = True  # another replica polls the account; this service is stopped
        except StoreError as error:
            self._must_load = True
            self._fail("storage", str(error), self._clock.monotonic() - started)

    async def _commit(self, snapshot: Snapshot, cursors: tuple[str, ...], stale_at: float) -> None:
        """Commit, then publish, then wake the receivers: in this order nothing is lost."""
        if self._must_load:
            # A failed commit may have succeeded: the same change must not get a second event id.
            await self._load()
        rules, options, route = self._settings.rules, self._settings.options, self._settings.route
        state = await self._with_returned(snapshot)

        def compare() -> tuple[PollResult, AccountState]:
            result = apply_snapshot(state, snapshot, rules, options, route)
            return result, result.state.without_removed()

        # In a thread: for a large account it would block the event loop.
        compared, kept = await asyncio.to_thread(compare)
        result = replace(
            compared,
            recovery=self._outages.recovery(snapshot.read_at, compared.changes),
            cursors=None if cursors == self._cursors else cursors,
        )
        if not result.is_empty or self._outages.outage is not None:
            await self._accounts.commit(result)
        self._empty_with_key = None if snapshot.fine_tunes else snapshot.key_fingerprint
        if self._outages.outage is not None:
            self._outage_log.recovered(self._outages.outage, self._outages.lasted())
        self._outages.end()
        self._wall_offset += snapshot.clock_jump
        self._log_poll(result, snapshot)
        if result.kind != "undecided":
            self._state, self._cursors = kept, cursors
        self._metrics.folded.inc(len(result.folded - self._folded))
        self._folded = result.folded
        examples = {**self._status.examples, **result.status.examples}
        next_poll_at = snapshot.read_at - snapshot.duration + self._settings.interval
        self._status = replace(
            result.status,
            stale_at=stale_at,
            examples=examples,
            next_poll_at=next_poll_at,
            counters=self._accounts.largest(rules.key, result.status.counters),
            moves=self._accounts.moves,
        )
        self._intervals_to_skip = self._refused_polls = 0
        self._settings.publish(self._status)
        if result.events or result.recovery:
            self._settings.wake()

    def _slow_down_if_refused(self, error: CartesiaError) -> None:
        """Skip the next intervals if the key is refused for good, by all appearances."""
        has_worked = self._source.key_has_worked(default=self._state is not None)
        tolerated = _TOLERATED_REFUSALS if has_worked else 0
        was_slow = self._refused_polls > tolerated
        if not self._source.key_is_refused():
            self._refused_polls = 0
        elif error.reason in {"unauthorized", "forbidden"}:
            self._refused_polls += 1
        elif not was_slow:  # else another error does not mean that the key is valid now
            self._refused_polls = 0
        is_slow = self._refused_polls > tolerated
        self._intervals_to_skip = _REFUSED_KEY_INTERVALS - 1 if is_slow else 0
        if is_slow and not was_slow:
            self._log.warning(
                "API key is refused, polling slowed until it is accepted or changed",
                refused_polls=self._refused_polls,
                interval=format_duration(_REFUSED_KEY_INTERVALS * self._settings.interval),
            )

    async def _with_returned(self, snapshot: Snapshot) -> AccountState | None:
        """Return the state, with the removed fine-tunes that a snapshot lists again."""
        state = self._state
        if state is None or not (new := await asyncio.to_thread(state.untracked, snapshot)):
            return state
        returned = await self._accounts.removed(self._settings.rules.key, new)
        return replace(state, tracked={**state.tracked, **returned}) if returned else state

    def _fail(self, reason: str, error: str, duration: float) -> None:
        delay = self._settings.interval * (1 + self._intervals_to_skip) - duration
        delay = max(delay, self._resume_at - self._clock.monotonic(), 0.0)
        self._metrics.failures.labels(self.account, reason).inc()
        outage = self._outages.failed(reason, error, has_baseline=self._state is not None)
        now = self._clock.now()
        self._status = replace(
            self._status,
            up=False,
            polled_at=now,
            duration=duration,
            failure=reason,
            next_poll_at=now + delay,
            failing_since=self._outages.outage.since if self._outages.outage else now,
        )
        self._settings.publish(self._status)
        self._outage_log.failed(
            outage, self._outages.lasted(), self._status, self._clock.monotonic(), delay
        )

    def _log_poll(self, result: PollResult, snapshot: Snapshot) -> None:
        fine_tunes, seconds = len(snapshot.fine_tunes), round(snapshot.duration, 3)
        self._log.debug("polled", fine_tunes=fine_tunes, pages=snapshot.pages, seconds=seconds)
        if snapshot.clock_jump:
            self._log.warning(
                "clock set or machine suspended; times in status exclude the difference",
                clock=timestamp(snapshot.read_at),
                expected=timestamp(snapshot.read_at - snapshot.clock_jump),
            )
        self._log_list(result, fine_tunes)
        changes = [
            (event, event.fine_tune)
            for event, _ in result.events
            if event.fine_tune and not event.traits.follows
        ]
        for event, fine_tune in changes[:_MAX_LOGGED_CHANGES]:
            self._log.info(
                event.type.replace("fine_tune.", "fine-tune "),
                fine_tune=one_line(fine_tune.id),
                name=one_line(fine_tune.name, 100),
                model=one_line(fine_tune.model_id, 100),
                previous=one_line(event.previous_status or "none", 100),
                status=one_line(fine_tune.status, 100),
            )
        if len(changes) > _MAX_LOGGED_CHANGES:
            self._log.info("more fine-tunes changed", number=len(changes) - _MAX_LOGGED_CHANGES)

    def _log_list(self, result: PollResult, fine_tunes: int) -> None:
        before = result.before
        if result.kind == "undecided":
            self._log.info("list is empty; waiting for a second poll to confirm it")
        elif before is None:
            self._log.info("baseline taken", fine_tunes=fine_tunes)
        elif result.kind == "baseline":
            self._log.warning(
                "API key of another organisation: new baseline",
                fine_tunes=fine_tunes,
                retired=sum(not each.removed for each in before.tracked.values()),
            )
        elif before.key_fingerprint != result.state.key_fingerprint:
            self._log.info("API key changed, the fine-tunes are the same")
        for event, _ in result.events:
            if event.type == "agent.unknown_status":
                self._log.warning(
                    "unknown status",
                    status=event.facts["status"],
                    fine_tunes=event.facts["total"],
                    text=event.facts["text"],
                )

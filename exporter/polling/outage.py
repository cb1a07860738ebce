"""Detection of a long outage of one account, and its events."""

from collections.abc import Mapping

import structlog
from msgspec.structs import replace

from exporter.core.account import RoutedEvents, Router, Rules
from exporter.core.clock import Clock
from exporter.core.events import Event, poll_failing_event, poll_recovered_event
from exporter.core.facts import recovery_facts
from exporter.core.model import Outage
from exporter.core.text import one_line, timestamp
from exporter.store.accounts import Accounts, StoredOutage
from exporter.store.errors import StoreError

log = structlog.get_logger()


class OutageWatch:
    """The current outage of one account, if there is one.

    The receivers that ``route`` returns are notified once when it has lasted ``failing_after``
    seconds (0: never), and once when it ends. Only the time is counted at which the agent runs,
    over restarts.
    """

    def __init__(
        self, accounts: Accounts, rules: Rules, failing_after: float, route: Router, clock: Clock
    ) -> None:
        self._accounts = accounts
        self._identity = (rules.store_id, rules.key)
        self._key = rules.key
        self._failing_after = failing_after
        self._route = route
        self._clock = clock
        self.outage: Outage | None = None

    async def restore(self, *, has_baseline: bool) -> None:
        """Load the outage that began before a restart, if there is one. Raises StoreError."""
        stored = await self._accounts.outage(self._key)
        if stored is not None:
            outage = self.outage or Outage(stored.since, stored.since_awake, has_baseline)
            self.outage = _as_stored(outage, stored)

    def failed(self, reason: str, error: str, *, has_baseline: bool) -> Outage:
        """Record a failed poll and return its outage; ``reason`` is one of the metric's."""
        outage = self.outage
        if outage is None:
            outage = Outage(self._clock.now(), self._accounts.awake_now(), has_baseline)
        self.outage = replace(outage, reason=reason, error=error)
        return self.outage

    def lasted(self) -> float:
        """Return how long the outage has lasted, in awake seconds; 0 without one."""
        return 0.0 if self.outage is None else self._accounts.awake_now() - self.outage.since_awake

    async def store_and_notify(self) -> bool:
        """Store an outage that is not reported yet; queue its event if it lasts too long.

        Returns whether its event was stored now. A store error is logged; the next call tries
        again.
        """
        outage = self.outage
        if outage is None or outage.reported or not self._failing_after:
            return False
        due = outage.is_due(self._accounts.awake_now(), self._failing_after)
        return await (self._notify(outage) if due else self._store(outage))

    async def _notify(self, outage: Outage) -> bool:
        if not outage.submitted:
            log.warning(
                "account cannot be read",
                account=self._key.name,
                seconds=round(self._accounts.awake_now() - outage.since_awake),
                since=timestamp(outage.since),
                reason=outage.reason,
                error=one_line(outage.error),
            )
        event = poll_failing_event(*self._identity, outage, self._clock.now())
        # Before the commit: if it succeeds unnoticed, the end of the outage must be reported too.
        self.outage = replace(outage, submitted=True)
        return await self._store(self.outage, self._routed(event))

    async def _store(self, outage: Outage, events: RoutedEvents = ()) -> bool:
        """Store the outage; return whether it is reported."""
        try:
            stored = await self._accounts.store_outage(self._key, outage, events)
        except StoreError as error:
            if events:
                log.warning(
                    "cannot store the outage; receivers are not notified yet",
                    account=self._key.name,
                    error=one_line(str(error)),
                )
            return False
        self.outage = _as_stored(outage, stored)
        return stored.reported

    def recovery(self, now: float, changes: Mapping[str, int] | None) -> RoutedEvents:
        """Return the event that ends the outage at ``now`` (Unix seconds), if it was reported.

        ``changes`` are those of PollResult. The outage continues until `end`.
        """
        outage = self.outage
        if outage is None or not outage.submitted:
            return ()
        facts = recovery_facts(outage, self.lasted(), changes)
        return self._routed(poll_recovered_event(*self._identity, outage, facts, now))

    def end(self) -> None:
        """End the outage: the result of a successful poll is committed."""
        self.outage = None

    def _routed(self, event: Event) -> RoutedEvents:
        return [(event, self._route(event))]


def _as_stored(outage: Outage, stored: StoredOutage) -> Outage:
    """Return the outage with what is stored of it."""
    return replace(
        outage,
        since=stored.since,
        since_awake=stored.since_awake,
        submitted=outage.submitted or stored.reported,
        reported=stored.reported,
    )

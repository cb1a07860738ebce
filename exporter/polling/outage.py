"""Detection of a long outage of one account, and its events."""

from dataclasses import replace

import structlog

from exporter.core.account import RoutedEvents, Router, Rules
from exporter.core.clock import Clock
from exporter.core.events import Event, poll_failing_event, poll_recovered_event
from exporter.core.model import Outage
from exporter.core.text import one_line, timestamp
from exporter.store.accounts import Accounts
from exporter.store.errors import StoreError

log = structlog.get_logger()


class OutageWatch:
    """The current outage of one account, if there is one.

    The receivers that ``route`` returns are notified once when it has lasted ``failing_after``
    seconds (0: never), and once when it ends. An outage that was not reported before a restart
    starts again from zero.
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
        """Load the outage that was reported before a restart, if there is one.

        Raises StoreError.
        """
        since = await self._accounts.outage_since(self._key)
        if since is not None:
            lasted = max(self._clock.now() - since, 0.0)
            began = self._clock.monotonic() - lasted
            self.outage = Outage(since, began, has_baseline, submitted=True, stored=True)

    def failed(self, reason: str, error: str, *, has_baseline: bool) -> Outage:
        """Record a failed poll and return its outage; ``reason`` is one of the metric's."""
        outage = self.outage
        if outage is None:
            outage = Outage(self._clock.now(), self._clock.monotonic(), has_baseline)
        self.outage = replace(outage, reason=reason, error=error)
        return self.outage

    def lasted(self) -> float:
        """Return how long the outage has lasted, in seconds; 0 without one."""
        return 0.0 if self.outage is None else self._clock.monotonic() - self.outage.began

    async def notify_if_due(self) -> bool:
        """Queue the event of an outage that lasts too long; return whether it was stored now.

        A store error is logged; the next call tries again.
        """
        outage = self.outage
        if outage is None or not outage.is_due(self._clock.monotonic(), self._failing_after):
            return False
        if not outage.submitted:
            log.warning(
                "account cannot be read for long",
                account=self._key.name,
                seconds=round(self._clock.monotonic() - outage.began),
                since=timestamp(outage.since),
                reason=outage.reason,
                error=one_line(outage.error),
            )
        event = poll_failing_event(*self._identity, outage, self._clock.now())
        # Before the commit: if it succeeds unnoticed, the end of the outage must be reported too.
        self.outage = replace(outage, submitted=True)
        try:
            await self._accounts.begin_outage(self._key, outage.since, self._routed(event))
        except StoreError as error:
            log.warning(
                "cannot store the outage; receivers are not notified yet",
                account=self._key.name,
                error=one_line(str(error)),
            )
            return False
        self.outage = replace(outage, submitted=True, stored=True)
        return True

    def recovery(self, now: float) -> RoutedEvents:
        """Return the event that ends the outage at ``now`` (Unix seconds), if it was reported.

        The outage continues until `end`.
        """
        outage = self.outage
        if outage is None or not outage.submitted:
            return ()
        seconds = self._clock.monotonic() - outage.began
        return self._routed(poll_recovered_event(*self._identity, outage, now, seconds))

    def end(self) -> None:
        """End the outage: the result of a successful poll is committed."""
        self.outage = None

    def _routed(self, event: Event) -> RoutedEvents:
        return [(event, self._route(event))]

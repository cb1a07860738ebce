"""Notices that an account cannot be read for long, and has it told once, and its end."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import structlog

from exporter.core.account import RoutedEvents, Rules
from exporter.core.clock import Clock
from exporter.core.events import Event, poll_failing_event, poll_recovered_event
from exporter.core.model import Outage
from exporter.core.text import one_line, timestamp
from exporter.store.accounts import Accounts
from exporter.store.errors import StoreError

log = structlog.get_logger()


class OutageWatch:
    """The outage of one account, if there is one.

    It is told when it lasted ``failing_after`` seconds, never when that is 0; ``route`` names the
    receivers of an event. How long it lasts is counted by this process: one that ends and starts
    again before it was told begins anew.
    """

    def __init__(
        self,
        accounts: Accounts,
        rules: Rules,
        failing_after: float,
        route: Callable[[Event], Sequence[str]],
        clock: Clock,
    ) -> None:
        self._accounts = accounts
        self._identity = (rules.store_id, rules.key)
        self._key = rules.key
        self._failing_after = failing_after
        self._route = route
        self._clock = clock
        self._outage: Outage | None = None

    async def restore(self, *, watched: bool) -> None:
        """Load the outage that was told before a restart, if there is one.

        ``watched`` says whether the account has a baseline. Raises StoreError.
        """
        since = await self._accounts.outage_since(self._key)
        if since is not None:
            lasted = max(self._clock.now() - since, 0.0)
            began = self._clock.monotonic() - lasted
            self._outage = Outage(since, began, watched, submitted=True, stored=True)

    def follow(self, other: "OutageWatch") -> None:
        """Go on with the outage of another watch of the same account."""
        self._outage = other._outage  # noqa: SLF001 - of its own class

    def failed(self, reason: str, error: str, *, watched: bool) -> None:
        """Note a poll that failed, for a reason (as in the metrics) and with an error."""
        outage = self._outage or Outage(self._clock.now(), self._clock.monotonic(), watched)
        self._outage = replace(outage, reason=reason, error=error)

    async def tell_if_due(self) -> bool:
        """Have the outage told when it lasts too long; return whether it was stored now.

        A store that fails is tried again at the next call.
        """
        outage = self._outage
        if outage is None or not outage.is_due(self._clock.monotonic(), self._failing_after):
            return False
        if not outage.submitted:
            self._log(outage)
        event = poll_failing_event(*self._identity, outage, self._clock.now())
        # Before the commit: one whose success is not seen must not leave a told outage without end.
        self._outage = replace(outage, submitted=True)
        try:
            await self._accounts.begin_outage(self._key, outage.since, self._owed(event))
        except StoreError as error:
            log.warning(
                "this cannot be stored, so the receivers are not told yet",
                account=self._key.name,
                error=one_line(str(error)),
            )
            return False
        self._outage = replace(outage, submitted=True, stored=True)
        return True

    def recovery(self, now: float) -> RoutedEvents:
        """Return who is owed the news, if they were told of an outage, that it ends at ``now``.

        ``now`` is Unix time in seconds. The outage goes on until `end`.
        """
        outage = self._outage
        if outage is None or not outage.submitted:
            return ()
        seconds = self._clock.monotonic() - outage.began
        return self._owed(poll_recovered_event(*self._identity, outage, now, seconds))

    def end(self) -> None:
        """Forget the outage: a poll succeeded, and that is stored."""
        self._outage = None

    def _owed(self, event: Event) -> RoutedEvents:
        return [(event, self._route(event))]

    def _log(self, outage: Outage) -> None:
        seconds = self._clock.monotonic() - outage.began
        log.warning(
            "account cannot be read for long",
            account=self._key.name,
            seconds=round(seconds),
            since=timestamp(outage.since),
            reason=outage.reason,
            error=one_line(outage.error),
        )

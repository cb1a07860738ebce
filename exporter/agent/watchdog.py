"""Watchdog of the services: logs late ones and keeps the service manager's watchdog alive."""

import asyncio
from collections.abc import Callable, Mapping
from math import inf
from typing import Final

import structlog

from exporter.agent.systemd import Notifier
from exporter.core.health import Liveness, liveness
from exporter.supervisor import DefaultService, pause

CHECK_SECONDS: Final = 5.0
"""Interval of the checks."""

_SUSPENDED_SECONDS: Final = 30.0
"""A longer gap between two checks means that the process was stopped, frozen or blocked."""

log = structlog.get_logger()


class Watchdog(DefaultService):
    """Checks the wake-up deadlines of all services.

    ``deadlines`` returns them by service, in monotonic seconds. The watchdog has none itself: the
    service manager checks it.
    """

    wakeup_deadline: Final = inf

    def __init__(
        self,
        deadlines: Callable[[], Mapping[str, float]],
        monotonic: Callable[[], float],
        notifier: Notifier,
    ) -> None:
        self._deadlines = deadlines
        self._monotonic = monotonic
        self._notifier = notifier
        # sd_watchdog_enabled(3) recommends half of the timeout.
        self._interval = min(CHECK_SECONDS, (notifier.watchdog_timeout or inf) / 2)
        self._checked_at = self._running_since = monotonic()
        self._late: Mapping[str, float] = {}

    def liveness(self) -> Liveness:
        """Return which services are late now."""
        now = self._monotonic()
        # Before the first check after a suspension no service has had a chance to run.
        suspended = now - self._checked_at > _SUSPENDED_SECONDS
        return liveness(self._deadlines(), now, now if suspended else self._running_since)

    async def run(self, stop: asyncio.Event) -> None:
        """Check at an interval until ``stop`` is set."""
        self._checked_at = self._running_since = self._monotonic()
        while not stop.is_set():
            self.check()
            await pause(stop, self._interval)

    def check(self) -> None:
        """Log services that became late or recovered; notify the service manager if none is late.

        After a suspension, lateness counts from now on.
        """
        now = self._monotonic()
        gap = now - self._checked_at
        if gap > _SUSPENDED_SECONDS:
            self._running_since = now
            log.warning("process was suspended", seconds=round(gap))
        self._checked_at = now
        found = self.liveness()
        self._log_changes(found)
        if found.healthy:
            self._notifier.alive()

    def _log_changes(self, found: Liveness) -> None:
        before, self._late = self._late, found.late
        for name, seconds in found.late.items():
            if name not in before:
                log.error("service is late", service=name, seconds=round(seconds))
        running = self._deadlines()
        for name in before:
            if name not in found.late and name in running:
                log.info("service is on time again", service=name)
        if before.keys() != found.late.keys():
            self._notifier.status(found.counts)

"""Looks after the parts: who is late is told to the log, to the service manager and to who asks."""

import asyncio
import math
from collections.abc import Callable, Mapping
from typing import Final, Protocol

import structlog

from exporter.core.health import Liveness, liveness
from exporter.supervisor import pause

LOOK_SECONDS: Final = 5.0
"""How often it is looked whether a part is late."""

_PAUSE_SECONDS: Final = 30.0
"""Without a look for so long, the process stood still: stopped, frozen, or its loop was held up."""

log = structlog.get_logger()


class Manager(Protocol):
    """Who started this process, and starts it again when it hears nothing for too long."""

    @property
    def patience(self) -> float | None:
        """After how many seconds of silence it does; None for never."""
        ...

    def alive(self) -> None:
        """Say that all parts are on time."""

    def status(self, text: str) -> None:
        """Say in one line how it is."""


class Watchdog:
    """Knows which parts are late. ``due`` returns by when each will have set its next wake-up.

    Its own ``due_at`` is infinite: who looks whether it looks is the service manager.
    """

    wakeup_deadline: Final = math.inf

    def __init__(
        self,
        due: Callable[[], Mapping[str, float]],
        monotonic: Callable[[], float],
        manager: Manager,
    ) -> None:
        self._due = due
        self._monotonic = monotonic
        self._manager = manager
        # Twice as often as it must, as sd_watchdog_enabled(3) recommends.
        self._every = min(LOOK_SECONDS, (manager.patience or LOOK_SECONDS * 2) / 2)
        self._looked_at = self._running_since = monotonic()
        self._told: dict[str, float] = {}

    def newest(self) -> Liveness:
        """Return how it is now."""
        now = self._monotonic()
        # Asked before the first look behind a pause: nobody has had a turn since.
        paused = now - self._looked_at > _PAUSE_SECONDS
        return liveness(self._due(), now, now if paused else self._running_since)

    async def run(self, stop: asyncio.Event) -> None:
        """Look now and then, until ``stop`` is set."""
        self._looked_at = self._running_since = self._monotonic()
        while not stop.is_set():
            self.look()
            await pause(stop, self._every)

    def look(self) -> None:
        """Tell what changed; while none is late, keep the manager from losing patience."""
        now = self._monotonic()
        still = now - self._looked_at
        if still > _PAUSE_SECONDS:
            self._running_since = now
            log.warning("the process stood still, the parts get their time", seconds=round(still))
        self._looked_at = now
        found = self.newest()
        self._tell(found)
        if found.healthy:
            self._manager.alive()

    def _tell(self, found: Liveness) -> None:
        told, self._told = self._told, dict(found.late)
        for part, seconds in found.late.items():
            if part not in told:
                log.error("a part is late", part=part, seconds=round(seconds))
        here = self._due()
        for part in told:
            if part not in found.late and part in here:
                log.info("a part is on time again", part=part)
        if told.keys() != found.late.keys():
            self._manager.status(found.counts)

"""What has to be done now and then: try the store, delete what is old, count what is orphaned."""

import asyncio
import math
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Final

import structlog
from prometheus_client import CollectorRegistry, Gauge

from exporter.core.clock import Clock
from exporter.store.database import Database
from exporter.store.errors import StoreError
from exporter.store.retention import Retention
from exporter.supervisor import pause

_ROUND_SECONDS: Final = 60.0
_DELETE_SECONDS: Final = 3600.0

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class HousekeepingSettings:
    """Who is configured, and for how many seconds settled events are kept."""

    receivers: Collection[str]
    retention: float


class Housekeeper:
    """Looks after the store once a minute; its troubles are told and end nothing.

    ``plan`` returns what is configured now; ``due_at`` is the monotonic time by which
    it will have set its next round.
    """

    def __init__(
        self,
        database: Database,
        plan: Callable[[], HousekeepingSettings],
        registry: CollectorRegistry,
        clock: Clock,
    ) -> None:
        self.wakeup_deadline = math.inf
        self._database = database
        self._retention = Retention(database)
        self._plan = plan
        self._clock = clock
        self._delete_at = 0.0
        self._trouble = ""
        self._told: dict[str, int] = {}
        self._orphaned = Gauge(
            "cartesia_exporter_deliveries_orphaned",
            "Events owed to receivers that are not in the configuration.",
            registry=registry,
        )

    async def run(self, stop: asyncio.Event) -> None:
        """Do a round a minute until ``stop`` is set."""
        while not stop.is_set():
            self.wakeup_deadline = self._clock.monotonic()
            await self.round()
            self.wakeup_deadline = self._clock.monotonic() + _ROUND_SECONDS
            await pause(stop, _ROUND_SECONDS)

    async def round(self) -> None:
        """Try the store, count what is orphaned, and once an hour delete what is old."""
        try:
            await self._database.try_to_write()
            self._tell_orphans(await self._retention.orphaned(self._plan().receivers))
            if self._clock.monotonic() >= self._delete_at:
                self._delete_at = self._clock.monotonic() + _DELETE_SECONDS
                await self._delete()
        except StoreError as error:
            if str(error) != self._trouble:
                log.error("the state cannot be kept", error=str(error))  # noqa: TRY400 - no bug
            self._trouble = str(error)
            return
        if self._trouble:
            log.info("the state can be kept again")
            self._trouble = ""

    async def _delete(self) -> None:
        deleted = await self._retention.delete_old(self._clock.now() - self._plan().retention)
        if deleted:
            log.info("old events deleted, all of them settled", events=deleted)

    def _tell_orphans(self, orphaned: dict[str, int]) -> None:
        self._orphaned.set(sum(orphaned.values()))
        for receiver, events in orphaned.items():
            if receiver not in self._told:
                log.warning(
                    "events are owed to a receiver that is not configured; see "
                    "`cartesia-exporter deliveries reassign --help`",
                    receiver=receiver,
                    events=events,
                )
        self._told = orphaned

"""Periodic maintenance of the store: write check, count of orphaned deliveries, retention."""

import asyncio
from collections.abc import Callable, Collection
from dataclasses import dataclass
from math import inf
from typing import Final

import structlog
from prometheus_client import CollectorRegistry, Gauge

from exporter.core.clock import Clock
from exporter.store.database import Database
from exporter.store.errors import StoreError
from exporter.store.retention import Retention
from exporter.supervisor import DefaultService, pause

_ROUND_SECONDS: Final = 60.0
_DELETE_SECONDS: Final = 3600.0

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class HousekeepingSettings:
    """Names of the configured receivers, and how long settled events are kept, in seconds."""

    receivers: Collection[str]
    retention: float


class Housekeeper(DefaultService):
    """Maintains the store once a minute; a store error is logged and tried again.

    ``settings`` returns those of the current configuration.
    """

    def __init__(
        self,
        database: Database,
        settings: Callable[[], HousekeepingSettings],
        registry: CollectorRegistry,
        clock: Clock,
    ) -> None:
        self.wakeup_deadline = inf
        self._database = database
        self._retention = Retention(database)
        self._settings = settings
        self._clock = clock
        self._delete_at = 0.0
        self._error = ""
        self._reported: dict[str, int] = {}
        self._orphaned = Gauge(
            "cartesia_exporter_deliveries_orphaned",
            "Events owed to receivers that are not in the configuration.",
            registry=registry,
        )

    async def run(self, stop: asyncio.Event) -> None:
        """Run one round a minute until ``stop`` is set."""
        while not stop.is_set():
            self.wakeup_deadline = self._clock.monotonic()
            await self.round()
            self.wakeup_deadline = self._clock.monotonic() + _ROUND_SECONDS
            await pause(stop, _ROUND_SECONDS)

    async def round(self) -> None:
        """Check that the store can write, count orphaned deliveries, delete old events hourly."""
        try:
            await self._database.try_to_write()
            self._report_orphaned(await self._retention.orphaned(self._settings().receivers))
            if self._clock.monotonic() >= self._delete_at:
                self._delete_at = self._clock.monotonic() + _DELETE_SECONDS
                await self._delete()
        except StoreError as error:
            if str(error) != self._error:
                log.error("cannot write the state", error=str(error))  # noqa: TRY400 - no bug
            self._error = str(error)
            return
        if self._error:
            log.info("state is writable again")
            self._error = ""

    async def _delete(self) -> None:
        deleted = await self._retention.delete_old(self._clock.now() - self._settings().retention)
        if deleted:
            log.info("old settled events deleted", events=deleted)

    def _report_orphaned(self, orphaned: dict[str, int]) -> None:
        self._orphaned.set(sum(orphaned.values()))
        for receiver, events in orphaned.items():
            if receiver not in self._reported:
                log.warning(
                    "deliveries pending for a receiver that is not configured; see "
                    "`cartesia-exporter deliveries reassign --help`",
                    receiver=receiver,
                    events=events,
                )
        self._reported = orphaned

"""Periodic maintenance of the store: write check, count of orphaned deliveries, retention."""

import asyncio
from collections.abc import Callable, Iterable
from math import inf
from typing import Final

import structlog
from prometheus_client import CollectorRegistry, Gauge

from exporter.config.models import Config
from exporter.config.receivers import AlertmanagerReceiver
from exporter.core.active_alerts import RESOLVED_SECONDS
from exporter.core.clock import Clock
from exporter.core.model import AccountKey
from exporter.core.view import AccountStatus
from exporter.store.errors import StoreError, StoreFencedError
from exporter.store.retention import Retention
from exporter.supervisor import Service, pause

_ROUND_SECONDS: Final = 60.0
_DELETE_SECONDS: Final = 3600.0

log = structlog.get_logger()


class Housekeeper(Service):
    """Maintains the store once a minute; a store error is logged and tried again.

    ``config`` returns the current configuration, ``statuses`` the published account statuses.
    Among replicas, the one with the claim of ``retention`` counts orphaned deliveries and deletes
    old events.
    """

    wakeup_deadline: float = inf

    def __init__(
        self,
        retention: Retention,
        config: Callable[[], Config],
        registry: CollectorRegistry,
        clock: Clock,
        statuses: Callable[[], Iterable[AccountStatus]] = tuple,
    ) -> None:
        self._database = retention.database
        self._retention = retention
        self._stored_reads: dict[AccountKey, float] = {}
        self._config = config
        self._clock = clock
        self._statuses = statuses
        self._delete_at = 0.0
        self._error = ""
        self._reported: dict[str, int] = {}
        self._orphaned = Gauge(
            "cartesia_exporter_deliveries_orphaned",
            "Pending and dead deliveries of receivers that are not in the configuration.",
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
        """Check that the store can write, store when accounts were read, make a checkpoint.

        Counts orphaned deliveries, and deletes old events hourly.
        """
        try:
            if not self._database.engine.is_shared:  # else a replica does so with its lease
                await self._database.run(self._database.try_to_write)
                await self.store_reads()
            await self._database.run(self._database.checkpoint)
            if self._database.engine.is_shared and self._retention.claim() is None:
                self._report_orphaned({})
                return
            receivers = [section.name for section in self._config().receivers]
            self._report_orphaned(await self._retention.orphaned(receivers))
            if self._clock.monotonic() >= self._delete_at:
                self._delete_at = self._clock.monotonic() + _DELETE_SECONDS
                config = self._config()
                before = self._clock.now() - config.storage.retention
                await self._retention.delete_history(before)
                if deleted := await self._retention.delete_old(before, needed_of(config)):
                    log.info("old settled events deleted", events=deleted)
        except StoreFencedError:
            return  # another replica does it
        except StoreError as error:
            if str(error) != self._error:
                log.error("cannot write the state", error=str(error))  # noqa: TRY400 - no bug
            self._error = str(error)
            return
        if self._error:
            log.info("state is writable again")
            self._error = ""

    async def store_reads(self) -> None:
        """Store when accounts were read, of those read since the last call. Raises StoreError."""
        read_at, stored = self._read_at(), self._stored_reads
        if new := {key: at for key, at in read_at.items() if stored.get(key) != at}:
            await self._retention.store_reads(new)
            self._stored_reads = read_at

    def _read_at(self) -> dict[AccountKey, float]:
        """Return when each account was last read completely, in Unix seconds."""
        base_urls = {each.name: each.base_url for each in self._config().accounts}
        return {
            AccountKey(each.account, base_urls[each.account]): each.succeeded_at
            for each in self._statuses()
            if each.succeeded_at and each.account in base_urls
        }

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


def needed_of(config: Config) -> float:
    """Return for how many awake seconds deliveries may need an event, whatever the retention.

    An Alertmanager needs it while the alert is held and resolved. An event that ends an alert is
    needed for as long as the delivery of the alert may be pending.
    """
    ages = [
        section.max_age + (section.hold if isinstance(section, AlertmanagerReceiver) else 0.0)
        for section in config.receivers
    ]
    return max(ages, default=0.0) + RESOLVED_SECONDS

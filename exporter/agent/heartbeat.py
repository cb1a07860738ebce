"""Dead man's switch: a GET of a URL after each round of polls, while the agent works.

The monitoring service behind the URL raises an alarm when the requests stop, which they also do
when this process or its machine is down.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from math import inf
from typing import Final

import structlog

from exporter.core.clock import Clock
from exporter.core.retry import Outcome, classify
from exporter.core.secret import Secret, SecretError
from exporter.core.view import AccountStatus
from exporter.http_client import Bounds, HttpClient, HttpClientError, Request
from exporter.store.errors import StoreError
from exporter.supervisor import DefaultService

_BOUNDS: Final = Bounds(seconds=15.0, body=64 * 1024)

_MAX_PENDING_SECONDS: Final = 600.0
"""Age of the oldest pending delivery above which the heartbeat is withheld."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class HeartbeatSettings:
    """When a heartbeat is sent.

    Attributes:
        accounts: names of the accounts that are polled in a round.
        all_fresh: whether every account has a snapshot that is not stale.
        oldest_pending: returns since when the oldest pending delivery of the configured receivers
            waits, in Unix seconds, None if there is none; raises StoreError.
    """

    accounts: Sequence[str]
    all_fresh: Callable[[], bool]
    oldest_pending: Callable[[], Awaitable[float | None]]


class Heartbeat(DefaultService):
    """Requests a secret URL once after each round of polls in which nothing is wrong.

    A service of its own, so that a slow request delays neither polls nor deliveries.
    """

    def __init__(
        self, url: Secret, http_client: HttpClient, settings: HeartbeatSettings, clock: Clock
    ) -> None:
        self.wakeup_deadline = inf
        self._url = url
        self._http_client = http_client
        self._settings = settings
        self._clock = clock
        self._unpolled = set(settings.accounts)
        self._round_ended = asyncio.Event()
        self._logged = ""

    def note(self, status: AccountStatus) -> None:
        """Take note of a published status; a round ends when each account was polled once."""
        if not status.polled_at:
            return  # restored from the store before the first poll
        self._unpolled.discard(status.account)
        if not self._unpolled:
            self._unpolled = set(self._settings.accounts)
            self._round_ended.set()

    async def run(self, stop: asyncio.Event) -> None:
        """Check after each round, until ``stop`` is set; a request in progress is cancelled then.

        Rounds that end during a request lead to one request.
        """
        async with asyncio.TaskGroup() as group:
            beating = group.create_task(self._beat())
            await stop.wait()
            beating.cancel()

    async def _beat(self) -> None:
        while True:
            await self._round_ended.wait()
            self._round_ended.clear()
            self.wakeup_deadline = self._clock.monotonic() + _BOUNDS.seconds
            withheld = await self._reason_to_withhold()
            failed = "" if withheld else await self._send()
            self._log_change(withheld, failed)
            self.wakeup_deadline = inf

    async def _reason_to_withhold(self) -> str:
        """Return why no heartbeat may be sent, in words that are the same while it lasts, or ""."""
        if not self._settings.all_fresh():
            return "not every account has fresh data"
        try:
            oldest = await self._settings.oldest_pending()
        except StoreError as error:
            return f"the outbox cannot be read: {error}"
        if oldest is not None and self._clock.now() - oldest > _MAX_PENDING_SECONDS:
            minutes = _MAX_PENDING_SECONDS / 60
            return f"a delivery has been pending for more than {minutes:.0f} min"
        return ""

    async def _send(self) -> str:
        """Return why the request failed, or "" when it was answered with 2xx."""
        try:
            response = await self._http_client.send(Request("GET", self._url(), {}), _BOUNDS)
        except (SecretError, HttpClientError) as error:
            return str(error)
        finally:
            # Servers often close a connection that was idle for a minute.
            await self._http_client.aclose()
        delivered = classify(response.status) is Outcome.DELIVERED
        return "" if delivered else f"answered {response.status}"

    def _log_change(self, withheld: str, failed: str) -> None:
        """Log a result that differs from the last one: a line each minute would hide others."""
        logged, self._logged = self._logged, withheld or failed
        if self._logged == logged:
            return
        if withheld:
            log.info("heartbeat withheld", reason=withheld)
        elif failed:
            log.warning("heartbeat failed", reason=failed)
        else:
            log.info("heartbeat sent again")

"""The dead man's switch: a GET after each round of polls, as long as all is well.

Whoever is asked raises the alarm when the GETs stop, and so also when this process or its machine
is gone. It has a part of its own: whatever becomes of a GET, polls and deliveries don't wait.
"""

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

import structlog

from exporter.core.clock import Clock
from exporter.core.retry import Outcome, classify
from exporter.core.secret import Secret, SecretError
from exporter.core.view import AccountStatus
from exporter.http_client import Bounds, HttpClient, HttpClientError, Request
from exporter.store.errors import StoreError

_BOUNDS: Final = Bounds(seconds=15.0, body=64 * 1024)

_LATE_SECONDS: Final = 600.0
"""An event that a receiver is owed for longer than this is not told as it should be."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class HeartbeatSettings:
    """What is well, and when to look.

    ``accounts`` are the names of those that make a round, ``fresh`` says whether each of them has a
    snapshot that is not stale, and ``oldest_pending`` returns since when (Unix seconds) a receiver
    of the configuration is owed an event, None when nothing is owed; it may raise StoreError.
    """

    accounts: Sequence[str]
    fresh: Callable[[], bool]
    oldest_pending: Callable[[], Awaitable[float | None]]


class Heartbeat:
    """Fetches a URL, which is a secret, once after each round in which all is well.

    ``due_at`` is the monotonic time by which a round will have been looked after; between rounds
    it waits for the polls.
    """

    def __init__(
        self, url: Secret, http_client: HttpClient, plan: HeartbeatSettings, clock: Clock
    ) -> None:
        self.wakeup_deadline = math.inf
        self._url = url
        self._exchange = http_client
        self._plan = plan
        self._clock = clock
        self._awaited = set(plan.accounts)
        self._round = asyncio.Event()
        self._told = ""

    def note(self, view: AccountStatus) -> None:
        """Take note of a new view; a round ends when each account's poll has, well or not."""
        if not view.polled_at:
            return  # what was stored is shown before the first poll
        self._awaited.discard(view.account)
        if not self._awaited:
            self._awaited = set(self._plan.accounts)
            self._round.set()

    async def run(self, stop: asyncio.Event) -> None:
        """Look after each round until ``stop`` is set, then end at once.

        Rounds that end while one is being looked after are one.
        """
        async with asyncio.TaskGroup() as group:
            beating = group.create_task(self._beat())
            await stop.wait()
            beating.cancel()

    async def _beat(self) -> None:
        while True:
            await self._round.wait()
            self._round.clear()
            self.wakeup_deadline = self._clock.monotonic() + _BOUNDS.seconds
            withheld = await self._withheld()
            failed = "" if withheld else await self._fetch()
            self._tell(withheld, failed)
            self.wakeup_deadline = math.inf

    async def _withheld(self) -> str:
        """Return why all is not well, in words that stay the same as long as it lasts."""
        if not self._plan.fresh():
            return "not every account has fresh data"
        try:
            oldest = await self._plan.oldest_pending()
        except StoreError as error:
            return f"the outbox cannot be read: {error}"
        if oldest is not None and self._clock.now() - oldest > _LATE_SECONDS:
            return f"a receiver has been owed an event for more than {_LATE_SECONDS / 60:.0f} min"
        return ""

    async def _fetch(self) -> str:
        """Return why the GET failed, nothing when it was answered with 2xx."""
        try:
            response = await self._exchange.send(Request("GET", self._url(), {}), _BOUNDS)
        except (SecretError, HttpClientError) as error:
            return str(error)
        finally:
            # One that was kept for a minute is often closed by the time that it is used again.
            await self._exchange.aclose()
        delivered = classify(response.status) is Outcome.DELIVERED
        return "" if delivered else f"answered {response.status}"

    def _tell(self, withheld: str, failed: str) -> None:
        """Log what changed: the same line each minute would hide the others."""
        told, self._told = self._told, withheld or failed
        if self._told == told:
            return
        if withheld:
            log.info("heartbeat withheld", reason=withheld)
        elif failed:
            log.warning("heartbeat failed", reason=failed)
        else:
            log.info("heartbeat sent again")

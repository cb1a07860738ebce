"""Dead man's switch: a GET of a URL after each round of polls, while the agent works.

The monitoring service behind the URL raises an alarm when the requests stop, which they also do
when this process or its machine is down.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field
from math import inf
from typing import Final

import structlog

from exporter.core.retry import Outcome, classify
from exporter.core.secret import Secret, SecretError
from exporter.core.view import AccountStatus
from exporter.http_client import Bounds, HttpClient, HttpClientError, Request
from exporter.store.errors import StoreError
from exporter.supervisor import Service, pause

_BOUNDS: Final = Bounds(seconds=15.0, body=64 * 1024)

_MAX_PENDING_SECONDS: Final = 600.0
"""Age of the oldest pending delivery above which the heartbeat is withheld."""

log = structlog.get_logger()


@dataclass(eq=False)
class Heartbeat(Service):
    """Requests a secret URL once after each round of polls in which nothing is wrong.

    A service of its own, so that a slow request delays neither polls nor deliveries.

    Attributes:
        accounts: returns the names of the accounts that this agent polls in a round.
        all_fresh: whether every account has a snapshot that is not stale.
        interval: length of a round without accounts, in seconds.
        oldest_pending_age: returns for how many awake seconds the oldest pending delivery of the
            configured receivers has been queued, 0 if there is none; raises StoreError.
    """

    url: Secret
    http_client: HttpClient
    accounts: Callable[[], Collection[str]]
    all_fresh: Callable[[], bool]
    oldest_pending_age: Callable[[], Awaitable[float]]
    monotonic: Callable[[], float]
    interval: float
    wakeup_deadline: float = field(default=inf, init=False)
    _polled: set[str] = field(default_factory=set, init=False)
    _round_ended: asyncio.Event = field(default_factory=asyncio.Event, init=False)
    _logged: str = field(default="", init=False)

    def note(self, status: AccountStatus) -> None:
        """Take note of a published status; a round ends when each account was polled once."""
        if not status.polled_at:
            return  # restored from the store before the first poll
        self._polled.add(status.account)
        if self._polled.issuperset(self.accounts()):
            self._polled.clear()
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
            while not self._round_ended.is_set():
                await pause(self._round_ended, self.interval)
                if not self.accounts():  # other replicas poll all of them
                    break
            self._round_ended.clear()
            self.wakeup_deadline = self.monotonic() + _BOUNDS.seconds
            withheld = await self._reason_to_withhold()
            failed = "" if withheld else await self._send()
            self.wakeup_deadline = inf
            logged, self._logged = self._logged, withheld or failed
            if self._logged == logged:
                continue  # a line each minute would hide others
            if withheld:
                log.info("heartbeat withheld", reason=withheld)
            elif failed:
                log.warning("heartbeat failed", reason=failed)
            else:
                log.info("heartbeat sent again")

    async def _reason_to_withhold(self) -> str:
        """Return why no heartbeat may be sent, in words that are the same while it lasts, or ""."""
        if not self.all_fresh():
            return "not every account has fresh data"
        try:
            age = await self.oldest_pending_age()
        except StoreError as error:
            return f"the outbox cannot be read: {error}"
        if age > _MAX_PENDING_SECONDS:
            return f"a delivery has been pending for more than {_MAX_PENDING_SECONDS / 60:.0f} min"
        return ""

    async def _send(self) -> str:
        """Return why the request failed, or "" when it was answered with 2xx."""
        try:
            response = await self.http_client.send(Request("GET", self.url(), {}), _BOUNDS)
        except (SecretError, HttpClientError) as error:
            return str(error)
        finally:
            # Servers often close a connection that was idle for a minute.
            await self.http_client.aclose()
        delivered = classify(response.status) is Outcome.DELIVERED
        return "" if delivered else f"answered {response.status}"

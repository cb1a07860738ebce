"""The fine-tunes of one account, read over several connections, kindly."""

import asyncio
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Final

from exporter.cartesia.fetch import Api, ApiKey, PageFetcher, Shared
from exporter.cartesia.listing import PATIENCE, Lister, Listing, OnPage
from exporter.cartesia.metrics import ClientMetrics
from exporter.cartesia.pages import NOTHING, Page, PageCache
from exporter.cartesia.rate_limit import Limits, RateLimiter
from exporter.core.clock import Clock
from exporter.core.model import TrackedFineTune
from exporter.http_client import HttpClient

_APART: Final = 0.001
"""By how many seconds each lane begins later than the one before. Answers that came all at once
would wait for each other, round by round: a fifth of the time of a poll over 16 lanes."""

__all__ = ["Api", "Client", "ClientMetrics", "Limits"]


class Client:
    """Reads the fine-tunes of one account, and remembers where its pages begin."""

    def __init__(
        self,
        http_client: HttpClient,
        api: Api,
        metrics: ClientMetrics,
        clock: Clock,
        limits: Limits = Limits(),  # noqa: B008 - it is frozen
    ) -> None:
        self._clock = clock
        self._key = ApiKey(api.key)
        self._pace = RateLimiter(limits, clock)
        self._shelf = PageCache()
        self._lister = Lister()
        shared = Shared(api, self._key, self._pace, self._shelf, metrics, clock)
        # A shared pool grows slow beside many connections (encode/httpx#3215).
        http_clients = [http_client, *(http_client.clone() for _ in range(limits.concurrency - 1))]
        self._lanes = [PageFetcher(each, shared) for each in http_clients]
        metrics.initialise(api.account)

    def remember(self, cursors: Sequence[str]) -> None:
        """Begin warm, with the ``cursors`` of an earlier listing; no page is taken for read."""
        self._lister.cursors = tuple(cursors)
        self._shelf.clear()

    async def list_fine_tunes(
        self,
        seconds: float,
        known: Mapping[str, TrackedFineTune] = NOTHING,
        on_page: OnPage | None = None,
    ) -> Listing:
        """Return all fine-tunes of the account, read within ``seconds`` of wall-clock time.

        Those that equal what is ``known``, by id, are the same objects. Raises CartesiaError when
        any page is missing, late or odd, or when there is no end of them.
        """
        began = self._clock.monotonic()
        self._pace.begin()
        self._shelf.begin(known)
        try:
            lanes = [
                partial(self._page, lane, began + _APART * number, began + seconds)
                for number, lane in enumerate(self._lanes)
            ]
            listing = await self._lister.read(lanes, on_page, min(PATIENCE, seconds / 4))
        finally:
            await asyncio.gather(*(lane.aclose() for lane in self._lanes))
        self._shelf.keep()
        return listing

    async def _page(
        self, lane: PageFetcher, begin: float, deadline: float, cursor: str | None
    ) -> Page:
        """Return a page over a lane that is to ``begin`` then, in monotonic seconds."""
        if (wait := begin - self._clock.monotonic()) > 0:
            await asyncio.sleep(wait)
        return await lane.page(cursor, deadline)

    def key_is_refused(self) -> bool:
        """Return whether the key, read again now, is the one that the API refused last."""
        return self._key.is_refused()

"""Client that lists the fine-tunes of one account over several connections."""

import asyncio
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Final

import structlog
from msgspec.structs import replace

from exporter.cartesia.errors import CartesiaError
from exporter.cartesia.fetch import ApiKey, ApiSettings, PageFetcher
from exporter.cartesia.listing import STALL_TIMEOUT_SECONDS, Lister, Listing, OnPage, ReadSettings
from exporter.cartesia.metrics import ClientMetrics
from exporter.cartesia.pages import NONE_TRACKED, Page, PageCache
from exporter.cartesia.rate_limit import RateLimiter, RateLimits
from exporter.core.clock import Clock
from exporter.core.model import TrackedFineTune
from exporter.http_client import HttpClient

__all__ = ["ApiSettings", "CartesiaClient", "ClientMetrics", "RateLimits"]

_STAGGER_SECONDS: Final = 0.001
"""Stagger between connections. Without it, answers arrive all at once and wait for each other in
each round: a fifth of the time of a poll over 16 connections."""

_MAX_LISTINGS: Final = 2
"""Listings per poll: a second one if the API key changed during the first."""

log = structlog.get_logger()


class CartesiaClient:
    """Lists the fine-tunes of one account; keeps the cursors and pages of the last listing."""

    def __init__(
        self,
        http_client: HttpClient,
        api: ApiSettings,
        metrics: ClientMetrics,
        clock: Clock,
        limits: RateLimits = RateLimits(),  # noqa: B008 - it is frozen
    ) -> None:
        self._clock = clock
        self._key = ApiKey(api.key, api.store_id)
        self._rate_limiter = RateLimiter(limits, clock)
        self._page_cache = PageCache()
        self._lister = Lister(clock.monotonic, log.bind(account=api.account))
        # One pool each: a pool that many requests share is slow (encode/httpx#3215).
        clones = (http_client.clone() for _ in range(limits.concurrency - 1))
        shared = (api, self._key, self._rate_limiter, self._page_cache, metrics, clock)
        self._fetchers = [PageFetcher(each, *shared) for each in (http_client, *clones)]
        metrics.initialise(api.account)

    def remember(self, cursors: Sequence[str]) -> None:
        """Prefetch by the ``cursors`` of an earlier listing, and forget all cached pages."""
        self._lister.cursors = tuple(cursors)
        self._page_cache.clear()

    async def list_fine_tunes(
        self,
        seconds: float,
        tracked: Mapping[str, TrackedFineTune] = NONE_TRACKED,
        on_page: OnPage | None = None,
    ) -> Listing:
        """Return all fine-tunes of the account, read within ``seconds`` of wall-clock time.

        A fine-tune that equals the ``tracked`` one of its id is the same object. If the API key was
        rotated meanwhile, the list is read again: pages of two organisations are not one list.
        Raises CartesiaError if any page is missing, late or malformed, or if the list does not end.
        """

        async def fetch(number: int, fetcher: PageFetcher, cursor: str | None) -> Page:
            if (wait := started + _STAGGER_SECONDS * number - self._clock.monotonic()) > 0:
                await asyncio.sleep(wait)
            return await fetcher.fetch(cursor, deadline)

        started = self._clock.monotonic()
        deadline = started + seconds
        self._rate_limiter.start_poll()
        self._page_cache.start(tracked)
        try:
            connections = [partial(fetch, *each) for each in enumerate(self._fetchers)]
            stall_timeout = min(STALL_TIMEOUT_SECONDS, seconds / 4)
            settings = ReadSettings(deadline, stall_timeout, on_page)
            for _ in range(_MAX_LISTINGS):
                self._key.fingerprints.clear()
                listing = await self._lister.read(connections, settings)
                if len(self._key.fingerprints) == 1:
                    break
            else:
                raise CartesiaError("protocol", "the API key changed while the list was read")
        finally:
            await asyncio.gather(*(fetcher.http_client.aclose() for fetcher in self._fetchers))
        self._page_cache.commit()
        (fingerprint,) = self._key.fingerprints
        return replace(listing, key_fingerprint=fingerprint)

    def key_has_worked(self, *, default: bool) -> bool:
        """Return whether the key, read again now, is the one that the API accepted last.

        It is the ``default`` while the API has accepted none.
        """
        return self._key.has_worked(default=default)

    def key_is_refused(self) -> bool:
        """Return whether the key, read again now, is the one that the API refused last."""
        return self._key.is_refused()

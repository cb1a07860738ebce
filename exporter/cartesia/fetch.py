"""Fetches one page over one connection, with retries, a deadline and typed errors."""

import asyncio
from asyncio import sleep
from dataclasses import dataclass
from hashlib import sha256
from http import HTTPStatus
from typing import Final
from urllib.parse import urlencode, urljoin, urlsplit

from exporter.cartesia.errors import POLL_TIMEOUT, CartesiaError, Reason
from exporter.cartesia.metrics import ClientMetrics
from exporter.cartesia.pages import Page, PageCache, read_problem
from exporter.cartesia.rate_limit import RateLimiter
from exporter.core.clock import Clock
from exporter.core.retry import REQUESTS, retry_after
from exporter.core.secret import Secret, SecretError
from exporter.http_client import Bounds, HttpClient, HttpClientError, Request, Response

_MAX_PAGE_BYTES: Final = 8 * 1024 * 1024
_MAX_INLINE_BYTES: Final = 128 * 1024  # up to 20 ms to decode; a larger page would block the loop
_REQUEST_SECONDS: Final = 30.0  # so that one hung request leaves time for a retry
_MAX_ATTEMPTS: Final = 5
_MAX_REDIRECTS: Final = 3
_MAX_RETRY_AFTER_SECONDS: Final = 300.0
_REDIRECTS: Final = frozenset(
    {
        HTTPStatus.MOVED_PERMANENTLY,
        HTTPStatus.FOUND,
        HTTPStatus.SEE_OTHER,
        HTTPStatus.TEMPORARY_REDIRECT,
        HTTPStatus.PERMANENT_REDIRECT,
    }
)
_RETRIED_CLIENT_ERRORS: Final = frozenset(
    {
        HTTPStatus.REQUEST_TIMEOUT,
        HTTPStatus.CONFLICT,
        HTTPStatus.TOO_EARLY,
        HTTPStatus.TOO_MANY_REQUESTS,
    }
)
_REASONS: Final[dict[int, Reason]] = {
    HTTPStatus.UNAUTHORIZED: "unauthorized",
    HTTPStatus.FORBIDDEN: "forbidden",
    HTTPStatus.TOO_MANY_REQUESTS: "rate_limited",
}
_REASONS_BY_CLASS: Final[dict[int, Reason]] = {
    3: "redirect",
    4: "client_error",
    5: "server_error",
}


@dataclass(frozen=True, slots=True)
class ApiSettings:
    """The API of one account: its base URL, version and key, and the account's label."""

    account: str
    base_url: str
    version: str
    key: Secret
    page_size: int = 100


class ApiKey:
    """An API key that may be rotated. Of a refused key only the digest is kept."""

    def __init__(self, secret: Secret) -> None:
        self.source = secret.source
        self._secret = secret
        self._refused: bytes | None = None

    def read(self) -> str:
        """Return the current key; raise CartesiaError if it cannot be read."""
        try:
            return self._secret()
        except SecretError as error:
            raise CartesiaError("unauthorized", f"there is no API key: {error}") from None

    def record(self, key: str, *, refused: bool) -> None:
        """Record whether the API refused ``key``. A key that it accepts ends the refusal."""
        self._refused = _digest(key) if refused else None

    def is_refused(self) -> bool:
        """Return whether the key, read again now, is the one that the API refused last."""
        try:
            return self._refused is not None and self._refused == _digest(self._secret())
        except SecretError:
            return False


def _digest(key: str) -> bytes:
    return sha256(key.encode()).digest()


@dataclass(frozen=True, slots=True)
class FetchContext:
    """What the fetchers of one account share."""

    api: ApiSettings
    key: ApiKey
    rate_limiter: RateLimiter
    page_cache: PageCache
    metrics: ClientMetrics
    clock: Clock


class PageFetcher:
    """Fetches one page at a time, over a connection that no other fetcher uses.

    After a listing, and after any answer but a page, it opens a new connection: a surplus answer
    left on the old one would pass for the answer to the next request.
    """

    def __init__(self, http_client: HttpClient, context: FetchContext) -> None:
        self._http_client = http_client
        self._api = context.api
        self._key = context.key
        self._rate_limiter = context.rate_limiter
        self._page_cache = context.page_cache
        self._metrics = context.metrics
        self._clock = context.clock

    async def aclose(self) -> None:
        """Close the connection; the next request opens a new one."""
        await self._http_client.aclose()

    async def fetch(self, cursor: str | None, deadline: float) -> Page:
        """Return the page after ``cursor``; retry while that may help and time is left.

        ``deadline`` is in monotonic seconds. Raises CartesiaError.
        """
        url, attempt = self._url(cursor), 1
        previous: CartesiaError | None = None
        while True:
            async with self._rate_limiter.request(deadline):
                try:
                    return await self._attempt(url, deadline)
                except CartesiaError as error:
                    wait = self._wait_after(error, attempt)
                    is_late = self._clock.monotonic() + wait >= deadline
                    if is_late and previous is not None and error.reason == "timeout":
                        # The poll's end cut the retry short: its time-out hides the real error.
                        raise previous from None
                    if not error.retryable or attempt == _MAX_ATTEMPTS or is_late:
                        raise
                    previous = error
            await sleep(wait)
            attempt += 1
            self._metrics.retries.labels(self._api.account).inc()

    def _wait_after(self, error: CartesiaError, attempt: int) -> float:
        """Count a failed attempt; return the delay before the next one, in seconds."""
        self._metrics.failures.labels(self._api.account, error.reason).inc()
        # At least our own delay: a Retry-After of 0 must not lead to five requests at once.
        delay = REQUESTS.delay(attempt, self._clock.random())
        wait = max(error.retry_after or 0.0, delay)
        if error.reason == "rate_limited":
            self._rate_limiter.slow_down(error, wait)
        return wait

    def _url(self, cursor: str | None) -> str:
        query = {"limit": str(self._api.page_size)}
        if cursor is not None:
            query["starting_after"] = cursor
        return f"{self._api.base_url.rstrip('/')}/fine-tunes/?{urlencode(query)}"

    async def _attempt(self, url: str, deadline: float) -> Page:
        """Send one request; follow redirects within the origin, as the key must not leave it."""
        key = self._key.read()
        for redirects in range(_MAX_REDIRECTS + 1):
            if redirects:
                await self._rate_limiter.wait_to_start(deadline)
            response = await self._send(url, key, deadline)
            if response.status not in _REDIRECTS:
                return await self._read(response, key)
            url = _redirect_target(url, response.headers.get("location", ""))
        raise CartesiaError("redirect", f"the API redirected more than {_MAX_REDIRECTS} times")

    async def _send(self, url: str, key: str, deadline: float) -> Response:
        headers = {
            "Accept": "application/json",
            "Authorization": f"Bearer {key}",
            "Cartesia-Version": self._api.version,
        }
        started = self._clock.monotonic()
        seconds = min(_REQUEST_SECONDS, deadline - started)
        if seconds <= 0:
            raise CartesiaError("timeout", POLL_TIMEOUT)
        try:
            bounds = Bounds(seconds, _MAX_PAGE_BYTES)
            response = await self._http_client.send(Request("GET", url, headers), bounds)
        except HttpClientError as error:
            raise self._to_cartesia_error(error, deadline) from None
        except SecretError as error:
            raise CartesiaError("connect", f"there is no proxy: {error}") from None
        finally:
            elapsed = self._clock.monotonic() - started
            self._metrics.duration.labels(self._api.account).observe(elapsed)
        self._metrics.requests.labels(self._api.account, str(response.status)).inc()
        if response.status != HTTPStatus.OK:
            await self._http_client.aclose()
        elif response.error is not None:
            raise self._to_cartesia_error(response.error, deadline)
        return response

    def _to_cartesia_error(self, error: HttpClientError, deadline: float) -> CartesiaError:
        is_over = error.reason == "timeout" and self._clock.monotonic() >= deadline
        detail = POLL_TIMEOUT if is_over else str(error)
        return CartesiaError(error.reason, detail, retryable=not error.permanent)

    async def _read(self, response: Response, key: str) -> Page:
        """Return the page of an answer; raise CartesiaError for any other answer."""
        if response.status == HTTPStatus.OK:
            if response.truncated:
                raise CartesiaError("too_large", f"a page is larger than {_MAX_PAGE_BYTES} bytes")
            self._key.record(key, refused=False)
            if len(response.body) <= _MAX_INLINE_BYTES:
                return self._page_cache.read(response.body)
            return await asyncio.to_thread(self._page_cache.read, response.body)
        if response.status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
            self._key.record(key, refused=True)
        raise self._status_error(response, key)

    def _status_error(self, response: Response, key: str) -> CartesiaError:
        status = response.status
        reason = _REASONS.get(status) or _REASONS_BY_CLASS.get(status // 100, "protocol")
        problem = read_problem(response.body, key)
        detail = f"the API answered {status}"
        if text := ": ".join(text for text in (problem.title, problem.message) if text):
            detail += f' "{text}"'
        if problem.request_id:
            detail += f" (request_id {problem.request_id})"
        if reason in {"unauthorized", "forbidden"}:
            detail += f"; check the API key from {self._key.source}"
        wait = retry_after(response.headers, self._clock.now())
        return CartesiaError(
            reason,
            detail,
            status=status,
            retryable=status in _RETRIED_CLIENT_ERRORS or reason == "server_error",
            retry_after=None if wait is None else min(wait, _MAX_RETRY_AFTER_SECONDS),
        )


def _redirect_target(url: str, location: str) -> str:
    if not location:
        raise CartesiaError("redirect", "the API redirects without saying where to")
    try:
        target = urljoin(url, location)
        same_origin = _origin(target) == _origin(url)
    except ValueError:
        same_origin = False
    if not same_origin:
        raise CartesiaError("redirect", "the API redirects away from its origin; not followed")
    return target


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)

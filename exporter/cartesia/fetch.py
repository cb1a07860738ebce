"""Fetches one page over one connection, with retries, a deadline and typed errors."""

import asyncio
from asyncio import sleep
from codecs import BOM_UTF8
from dataclasses import dataclass
from hashlib import sha256
from hmac import digest
from http import HTTPStatus
from typing import Final
from urllib.parse import urlencode, urljoin, urlsplit

from msgspec import Struct

from exporter.cartesia.errors import POLL_TIMEOUT, CartesiaError, Reason
from exporter.cartesia.metrics import ClientMetrics
from exporter.cartesia.pages import Page, PageCache, Problem, read_problem
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
_SUCCESSES: Final = (HTTPStatus.OK, HTTPStatus.NON_AUTHORITATIVE_INFORMATION)
"""203 is the 200 of a proxy that changed something, such as the compression."""

_REDIRECTS: Final = (
    HTTPStatus.MOVED_PERMANENTLY,
    HTTPStatus.FOUND,
    HTTPStatus.SEE_OTHER,
    HTTPStatus.TEMPORARY_REDIRECT,
    HTTPStatus.PERMANENT_REDIRECT,
)
_RETRIED_CLIENT_ERRORS: Final = (
    HTTPStatus.REQUEST_TIMEOUT,
    HTTPStatus.CONFLICT,
    HTTPStatus.TOO_EARLY,
    HTTPStatus.TOO_MANY_REQUESTS,
)
_REASONS: Final[dict[int, Reason]] = {
    HTTPStatus.UNAUTHORIZED: "unauthorized",
    HTTPStatus.FORBIDDEN: "forbidden",
    HTTPStatus.TOO_MANY_REQUESTS: "rate_limited",
}
_REFUSED: Final = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)
_INTERMEDIARY_STATUSES: Final[dict[int, str]] = {
    HTTPStatus.PROXY_AUTHENTICATION_REQUIRED: " (a proxy asks for a user and password)",
    HTTPStatus.NETWORK_AUTHENTICATION_REQUIRED: " (the network asks for a login)",
}
_INTERMEDIARY: Final = "answered by an intermediary (proxy, firewall, login page), not by the API"
_FIRST_JSON_ERRORS: Final = "2026-03-01"  # earlier API versions answer errors as plain text
_REASONS_BY_CLASS: Final[dict[int, Reason]] = {3: "redirect", 4: "client_error", 5: "server_error"}


class ApiSettings(Struct, frozen=True):
    """The API of one account: its base URL, version and key, and the account's label.

    ``store_id`` is what the fingerprint of the key is keyed by; without it there is none.
    """

    account: str
    base_url: str
    version: str
    key: Secret
    page_size: int = 100
    store_id: str = ""


class ApiKey:
    """An API key that may be rotated. Of keys that were refused or accepted, digests are kept.

    ``fingerprints`` are those of the keys that the API accepted since they were cleared.
    """

    def __init__(self, secret: Secret, store_id: str = "") -> None:
        self._secret = secret
        self._store_id = store_id
        self._refused: bytes | None = None
        self._accepted: bytes | None = None
        self.fingerprints: set[str] = set()

    def read(self) -> str:
        """Return the current key; raise CartesiaError if it cannot be read."""
        try:
            return self._secret()
        except SecretError as error:
            raise CartesiaError("unauthorized", f"there is no API key: {error}") from None

    def record(self, key: str, *, refused: bool) -> None:
        """Record whether the API refused ``key``. A key that it accepts ends the refusal."""
        self._refused = _digest(key) if refused else None
        if not refused:
            self._accepted = _digest(key)
            self.fingerprints.add(self._fingerprint(key))

    def has_worked(self, *, default: bool) -> bool:
        """Return whether the key, read again now, is the one that the API accepted last.

        It is the ``default`` if the API has accepted none yet, and if the key cannot be read.
        """
        try:
            return default if self._accepted is None else self._accepted == _digest(self._secret())
        except SecretError:
            return default

    def is_refused(self) -> bool:
        """Return whether the key, read again now, is the one that the API refused last."""
        try:
            return self._refused is not None and self._refused == _digest(self._secret())
        except SecretError:
            return False

    def _fingerprint(self, key: str) -> str:
        """Return what identifies the key in the state, where the key must not be."""
        if not self._store_id:
            return ""
        return digest(self._store_id.encode(), key.encode(), "sha256").hex()


def _digest(key: str) -> bytes:
    return sha256(key.encode()).digest()


@dataclass(frozen=True, slots=True, repr=False)
class PageFetcher:
    """Fetches one page at a time, over a connection that no other fetcher uses.

    After a listing, and after any answer but a page, the connection is closed: a surplus answer
    left on it would pass for the answer to the next request. The fetchers of one account share
    everything but ``http_client``.
    """

    http_client: HttpClient
    api: ApiSettings
    key: ApiKey
    rate_limiter: RateLimiter
    page_cache: PageCache
    metrics: ClientMetrics
    clock: Clock

    async def fetch(self, cursor: str | None, deadline: float) -> Page:
        """Return the page after ``cursor``; retry while that may help and time is left.

        ``deadline`` is in monotonic seconds. Raises CartesiaError.
        """
        query = {"limit": str(self.api.page_size)}
        if cursor is not None:
            query["starting_after"] = cursor
        url = f"{self.api.base_url.rstrip('/')}/fine-tunes/?{urlencode(query)}"
        attempt, previous = 1, None
        while True:
            async with self.rate_limiter.request(deadline):
                try:
                    return await self._attempt(url, deadline)
                except CartesiaError as error:
                    self.metrics.failures.labels(self.api.account, error.reason).inc()
                    # Not less than our delay: a Retry-After of 0 would be five requests at once.
                    delay = REQUESTS.delay(attempt, self.clock.random())
                    wait = max(error.retry_after or 0.0, delay)
                    if error.reason == "rate_limited":
                        self.rate_limiter.slow_down(error, wait)
                    is_late = self.clock.monotonic() + wait >= deadline
                    if is_late and previous is not None and error.reason == "timeout":
                        # The poll's end cut the retry short: its time-out hides the real error.
                        raise previous from None
                    if not error.retryable or attempt == _MAX_ATTEMPTS or is_late:
                        raise
                    previous = error
            await sleep(wait)
            attempt += 1
            self.metrics.retries.labels(self.api.account).inc()

    async def _attempt(self, url: str, deadline: float) -> Page:
        """Send one request; follow redirects within the origin, as the key must not leave it."""
        key = self.key.read()
        for redirects in range(_MAX_REDIRECTS + 1):
            if redirects:
                await self.rate_limiter.wait_to_start(deadline)
            response = await self._send(url, key, deadline)
            if response.status not in _REDIRECTS:
                return await self._read(response, url, key)
            location = response.headers.get("location")
            if not location:
                raise CartesiaError("redirect", f"{_host(url)} redirects without a location")
            try:
                target = urljoin(url, location)
                same_origin = _origin(target) == _origin(url)
            except ValueError:
                same_origin = False
            if not same_origin:
                detail = f"{_host(url)} redirects to another origin; not followed, check base_url"
                raise CartesiaError("redirect", detail)
            url = target
        raise CartesiaError("redirect", f"{_host(url)} redirected more than {_MAX_REDIRECTS} times")

    async def _send(self, url: str, key: str, deadline: float) -> Response:
        headers = {
            "Accept": "application/json",
            "Authorization": f"Bearer {key}",
            "Cartesia-Version": self.api.version,
        }
        started = self.clock.monotonic()
        seconds = min(_REQUEST_SECONDS, deadline - started)
        if seconds <= 0:
            raise CartesiaError("timeout", POLL_TIMEOUT)
        try:
            bounds = Bounds(seconds, _MAX_PAGE_BYTES)
            response = await self.http_client.send(Request("GET", url, headers), bounds)
        except HttpClientError as error:
            raise self._to_cartesia_error(error, deadline) from None
        except SecretError as error:
            raise CartesiaError("connect", f"there is no proxy: {error}") from None
        finally:
            elapsed = self.clock.monotonic() - started
            self.metrics.duration.labels(self.api.account).observe(elapsed)
        self.metrics.record_answer(self.api.account, response.status)
        if response.status not in _SUCCESSES:
            await self.http_client.aclose()
        elif response.error is not None:
            raise self._to_cartesia_error(response.error, deadline)
        return response

    def _to_cartesia_error(self, error: HttpClientError, deadline: float) -> CartesiaError:
        is_over = error.reason == "timeout" and self.clock.monotonic() >= deadline
        detail = POLL_TIMEOUT if is_over else str(error)
        return CartesiaError(error.reason, detail, retryable=not error.permanent)

    async def _read(self, response: Response, url: str, key: str) -> Page:
        """Return the page of an answer; raise CartesiaError for any other answer."""
        if response.status not in _SUCCESSES:
            raise self._status_error(response, url, key)
        if response.truncated:
            raise CartesiaError("too_large", f"a page is larger than {_MAX_PAGE_BYTES} bytes")
        try:
            if len(response.body) <= _MAX_INLINE_BYTES:
                page = self.page_cache.read(response.body)
            else:
                page = await asyncio.to_thread(self.page_cache.read, response.body)
        except CartesiaError:
            if not response.body.removeprefix(BOM_UTF8).lstrip().startswith(b"<"):
                raise
            answered = f"{_host(url)} answered {response.status} with a web page, not JSON"
            raise CartesiaError("protocol", f"{answered}; {_INTERMEDIARY}") from None
        self.key.record(key, refused=False)
        return page

    def _is_from_api(self, response: Response, problem: Problem) -> bool:
        """Return whether the API wrote an error answer; else something on the way to it did."""
        if problem.is_complete:
            return True
        content_type = response.headers.get("content-type", "").lower()
        return self.api.version < _FIRST_JSON_ERRORS and content_type.startswith("text/plain")

    def _status_error(self, response: Response, url: str, key: str) -> CartesiaError:
        status, problem = response.status, read_problem(response.body, key)
        reason = _REASONS.get(status) or _REASONS_BY_CLASS.get(status // 100, "protocol")
        detail = f"{_host(url)} answered {status}"
        if text := ": ".join(text for text in (problem.title, problem.message) if text):
            detail += f' "{text}"'
        if problem.request_id:
            detail += f" (request_id {problem.request_id})"
        if status in _INTERMEDIARY_STATUSES or (
            status in _REFUSED and not self._is_from_api(response, problem)
        ):
            reason = "client_error"
            detail += f"{_INTERMEDIARY_STATUSES.get(status, '')}; {_INTERMEDIARY}"
        elif status in _REFUSED:
            self.key.record(key, refused=True)
            detail += f"; check the API key from {self.api.key.source}"
        elif status == HTTPStatus.NOT_FOUND and "starting_after=" not in url:
            detail += "; check base_url"
        wait = retry_after(response.headers, self.clock.now())
        return CartesiaError(
            reason,
            detail,
            status=status,
            retryable=status in _RETRIED_CLIENT_ERRORS or reason == "server_error",
            retry_after=None if wait is None else min(wait, _MAX_RETRY_AFTER_SECONDS),
        )


def _host(url: str) -> str:
    """Return host and port of a URL without user name and password."""
    return urlsplit(url).netloc.rpartition("@")[2]


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)

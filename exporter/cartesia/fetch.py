"""One page from the API, over one connection: version, deadline, retries, typed errors."""

import asyncio
from asyncio import sleep
from dataclasses import dataclass
from hashlib import sha256
from typing import Final
from urllib.parse import urlencode, urljoin, urlsplit

from exporter.cartesia.errors import OVER, CartesiaError, Reason
from exporter.cartesia.metrics import ClientMetrics
from exporter.cartesia.pages import Page, PageCache, read_problem
from exporter.cartesia.rate_limit import RateLimiter
from exporter.core.clock import Clock
from exporter.core.retry import REQUESTS, retry_after
from exporter.core.secret import Secret, SecretError
from exporter.http_client import Bounds, HttpClient, HttpClientError, Request, Response


class ApiKey:
    """A key that may change while it is used. Of a refused one only the digest is kept."""

    def __init__(self, secret: Secret) -> None:
        self.source = secret.source
        self._secret = secret
        self._refused: bytes | None = None

    def read(self) -> str:
        """Return the key as it is now; raise CartesiaError when it can't be read."""
        try:
            return self._secret()
        except SecretError as error:
            raise CartesiaError("unauthorized", f"there is no API key: {error}") from None

    def note(self, key: str, *, refused: bool) -> None:
        """Keep what the API thought of a key; what it takes ends every earlier refusal."""
        self._refused = _digest(key) if refused else None

    def is_refused(self) -> bool:
        """Return whether the key, read again now, is the one that the API refused last."""
        try:
            return self._refused is not None and self._refused == _digest(self._secret())
        except SecretError:
            return False


def _digest(key: str) -> bytes:
    return sha256(key.encode()).digest()


_PAGE_BYTES: Final = 8 * 1024 * 1024
_INLINE_BYTES: Final = 128 * 1024  # some 20 ms to decode at worst: more would hold up the loop
_REQUEST_SECONDS: Final = 30.0  # so that one hung connection leaves time for another try
_ATTEMPTS: Final = 5
_REDIRECTS: Final = 3
_RETRY_AFTER_MOST: Final = 300.0
_RETRIED: Final = frozenset({408, 409, 425, 429})
_FOLLOWED: Final = frozenset({301, 302, 303, 307, 308})
_LIST: Final = 200  # the only status with a list


@dataclass(frozen=True, slots=True)
class Api:
    """Which API is asked, as whom: the label ``account``, base URL, version and key."""

    account: str
    base_url: str
    version: str
    key: Secret
    page_size: int = 100


@dataclass(frozen=True, slots=True)
class Shared:
    """What the lanes of one account have in common."""

    api: Api
    key: ApiKey
    pace: RateLimiter
    shelf: PageCache
    metrics: ClientMetrics
    clock: Clock


class PageFetcher:
    """Reads one page at a time, over a connection that no other lane uses.

    After a listing, and after any answer but a page, it goes on with a new connection: what may be
    left over on the old one, an answer too many, would pass for the answer to the next request.
    """

    def __init__(self, http_client: HttpClient, shared: Shared) -> None:
        self._exchange = http_client
        self._api = shared.api
        self._key = shared.key
        self._pace = shared.pace
        self._shelf = shared.shelf
        self._metrics = shared.metrics
        self._clock = shared.clock

    async def aclose(self) -> None:
        """Close the connection; the next page is asked for over a new one."""
        await self._exchange.aclose()

    async def page(self, cursor: str | None, deadline: float) -> Page:
        """Return the page behind ``cursor``, tried again while it may help and time is left.

        ``deadline`` is in monotonic seconds. Raises CartesiaError.
        """
        url, attempt = self._url(cursor), 1
        last: CartesiaError | None = None
        while True:
            await self._pace.enter(deadline)
            try:
                return await self._attempt(url, deadline)
            except CartesiaError as error:
                wait = self._wait_after(error, attempt)
                late = self._clock.monotonic() + wait >= deadline
                if late and last is not None and error.reason == "timeout":
                    # A repeat that the poll's end cut short hides what is wrong with the API.
                    raise last from None
                if not error.retryable or attempt == _ATTEMPTS or late:
                    raise
                last = error
            finally:
                self._pace.leave()
            await sleep(wait)
            attempt += 1
            self._metrics.retries.labels(self._api.account).inc()

    def _wait_after(self, error: CartesiaError, attempt: int) -> float:
        """Take note of a request that failed; return for how many seconds to wait then."""
        self._metrics.failures.labels(self._api.account, error.reason).inc()
        # No less than our own: an API that says 0 is not to be asked five times at once.
        delay = REQUESTS.delay(attempt, self._clock.random())
        wait = max(error.retry_after or 0.0, delay)
        if error.reason == "rate_limited":
            self._pace.slow_down(error, wait)
        return wait

    def _url(self, cursor: str | None) -> str:
        query = {"limit": str(self._api.page_size)}
        if cursor is not None:
            query["starting_after"] = cursor
        return f"{self._api.base_url.rstrip('/')}/fine-tunes/?{urlencode(query)}"

    async def _attempt(self, url: str, deadline: float) -> Page:
        """Ask once, following redirects within the origin: elsewhere the key must not go."""
        key = self._key.read()
        for hop in range(_REDIRECTS + 1):
            if hop:
                await self._pace.slot(deadline)
            response = await self._send(url, key, deadline)
            if response.status not in _FOLLOWED:
                return await self._read(response, key)
            url = _redirected(url, response.headers.get("location", ""))
        raise CartesiaError("redirect", f"the API redirected more than {_REDIRECTS} times")

    async def _send(self, url: str, key: str, deadline: float) -> Response:
        headers = {
            "Accept": "application/json",
            "Authorization": f"Bearer {key}",
            "Cartesia-Version": self._api.version,
        }
        started = self._clock.monotonic()
        seconds = min(_REQUEST_SECONDS, deadline - started)
        if seconds <= 0:
            raise CartesiaError("timeout", OVER)
        try:
            bounds = Bounds(seconds, _PAGE_BYTES)
            response = await self._exchange.send(Request("GET", url, headers), bounds)
        except HttpClientError as error:
            raise self._unread(error, deadline) from None
        except SecretError as error:
            raise CartesiaError("connect", f"there is no proxy: {error}") from None
        finally:
            elapsed = self._clock.monotonic() - started
            self._metrics.duration.labels(self._api.account).observe(elapsed)
        self._metrics.requests.labels(self._api.account, str(response.status)).inc()
        if response.status != _LIST:
            await self._exchange.aclose()
        elif response.broken is not None:
            raise self._unread(response.broken, deadline)
        return response

    def _unread(self, error: HttpClientError, deadline: float) -> CartesiaError:
        over = error.reason == "timeout" and self._clock.monotonic() >= deadline
        detail = OVER if over else str(error)
        return CartesiaError(error.reason, detail, retryable=not error.lasting)

    async def _read(self, response: Response, key: str) -> Page:
        if response.status == _LIST:
            if response.cut:
                raise CartesiaError("too_large", f"a page is larger than {_PAGE_BYTES} bytes")
            self._key.note(key, refused=False)
            if len(response.body) <= _INLINE_BYTES:
                return self._shelf.read(response.body)
            return await asyncio.to_thread(self._shelf.read, response.body)
        if response.status in {401, 403}:
            self._key.note(key, refused=True)
        raise self._refusal(response, key)

    def _refusal(self, response: Response, key: str) -> CartesiaError:
        reason = _reason(response.status)
        problem = read_problem(response.body, key)
        said = ": ".join(text for text in (problem.title, problem.message) if text)
        detail = f"the API answered {response.status}"
        if said:
            detail += f' "{said}"'
        if problem.request_id:
            detail += f" (request_id {problem.request_id})"
        if reason in {"unauthorized", "forbidden"}:
            detail += f"; check the API key from {self._key.source}"
        wait = retry_after(response.headers, self._clock.now())
        return CartesiaError(
            reason,
            detail,
            status=response.status,
            retryable=response.status in _RETRIED or reason == "server_error",
            retry_after=None if wait is None else min(wait, _RETRY_AFTER_MOST),
        )


_REASONS: Final[dict[int, Reason]] = {401: "unauthorized", 403: "forbidden", 429: "rate_limited"}
_REASONS_BY_CLASS: Final[dict[int, Reason]] = {
    3: "redirect",
    4: "client_error",
    5: "server_error",
}


def _reason(status: int) -> Reason:
    return _REASONS.get(status) or _REASONS_BY_CLASS.get(status // 100, "protocol")


def _redirected(url: str, location: str) -> str:
    if not location:
        raise CartesiaError("redirect", "the API redirects without saying where to")
    try:
        target = urljoin(url, location)
        stays = _origin(target) == _origin(url)
    except ValueError:
        stays = False
    if not stays:
        raise CartesiaError("redirect", "the API redirects away from its origin; not followed")
    return target


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)

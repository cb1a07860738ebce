"""One page from the API: key, version, deadline, retries, typed errors."""

import asyncio
from dataclasses import dataclass
from hashlib import sha256
from typing import Final
from urllib.parse import urlencode, urljoin, urlsplit

from prometheus_client import CollectorRegistry, Counter, Histogram

from exporter.cartesia.errors import REASONS, CartesiaError, Reason
from exporter.cartesia.listing import Listing, OnPage, list_all
from exporter.cartesia.wire import Page, read_page, read_problem
from exporter.core.clock import Clock
from exporter.core.retry import REQUESTS, retry_after
from exporter.core.secret import Secret, SecretError
from exporter.http import Bounds, Exchange, Request, Response
from exporter.http_errors import ExchangeError

_PAGE_BYTES: Final = 8 * 1024 * 1024
_REQUEST_SECONDS: Final = 30.0  # so that one hung connection leaves time for another try
_ATTEMPTS: Final = 5
_REDIRECTS: Final = 3
_RETRY_AFTER_MOST: Final = 300.0
_RETRIED: Final = frozenset({408, 409, 425, 429})
_FOLLOWED: Final = frozenset({301, 302, 303, 307, 308})
_LIST: Final = 200  # the only status with a list
_OVER: Final = "the time for the whole poll is over (poll.timeout)"


class ClientMetrics:
    """Counts of the requests to the API, for all accounts of a registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        label = ("account",)
        self.requests = Counter(
            "cartesia_exporter_api_requests_total",
            "Requests to the Cartesia API that were answered, by HTTP status.",
            (*label, "code"),
            registry=registry,
        )
        self.failures = Counter(
            "cartesia_exporter_api_request_failures_total",
            "Requests to the Cartesia API that failed, by reason.",
            (*label, "reason"),
            registry=registry,
        )
        self.retries = Counter(
            "cartesia_exporter_api_request_retries_total",
            "Requests to the Cartesia API that repeated a failed one.",
            label,
            registry=registry,
        )
        self.duration = Histogram(
            "cartesia_exporter_api_request_duration_seconds",
            "Time of one request to the Cartesia API, until its body was read.",
            label,
            buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0),
            registry=registry,
        )

    def initialise(self, account: str) -> None:
        """Show an account's counters at zero before anything happens."""
        self.requests.labels(account, "200")
        for reason in REASONS:
            self.failures.labels(account, reason)
        self.retries.labels(account)
        self.duration.labels(account)

    def forget(self, account: str) -> None:
        """Show nothing of an account any more."""
        for metric in (self.requests, self.failures, self.retries, self.duration):
            metric.remove_by_labels({"account": account})


@dataclass(frozen=True, slots=True)
class Api:
    """Which API is asked, as whom: the label ``account``, base URL, version and key."""

    account: str
    base_url: str
    version: str
    key: Secret
    page_size: int = 100


class Client:
    """Reads the fine-tunes of one account.

    After a listing, and after any answer but a page, it goes on with a new connection: what may be
    left over on the old one, an answer too many, would pass for the answer to the next request.
    """

    def __init__(self, exchange: Exchange, api: Api, metrics: ClientMetrics, clock: Clock) -> None:
        self._exchange = exchange
        self._api = api
        self._metrics = metrics
        self._clock = clock
        self._refused: bytes | None = None
        metrics.initialise(api.account)

    async def list_fine_tunes(self, seconds: float, on_page: OnPage | None = None) -> Listing:
        """Return all fine-tunes of the account, read within ``seconds`` of wall-clock time.

        Raises CartesiaError when any page is missing, late or odd, or when there is no end of them.
        """
        deadline = self._clock.monotonic() + seconds
        try:
            return await list_all(lambda cursor: self._page(cursor, deadline), on_page)
        finally:
            await self._exchange.aclose()

    def key_is_refused(self) -> bool:
        """Return whether the key, read again now, is the one that the API refused last."""
        try:
            return self._refused is not None and self._refused == _fingerprint(self._api.key())
        except SecretError:
            return False

    async def _page(self, cursor: str | None, deadline: float) -> Page:
        """Return the page behind ``cursor``, tried again while it may help and time is left."""
        attempt = 1
        last: CartesiaError | None = None
        while True:
            try:
                return await self._attempt(self._url(cursor), deadline)
            except CartesiaError as error:
                self._metrics.failures.labels(self._api.account, error.reason).inc()
                # No less than our own: an API that says 0 is not to be asked five times at once.
                delay = REQUESTS.delay(attempt, self._clock.chance())
                wait = max(error.retry_after or 0.0, delay)
                late = self._clock.monotonic() + wait >= deadline
                if late and last is not None and error.reason == "timeout":
                    # A repeat that the poll's end cut short hides what is wrong with the API.
                    raise last from None
                if not error.retryable or attempt == _ATTEMPTS or late:
                    raise
                last = error
            await asyncio.sleep(wait)
            attempt += 1
            self._metrics.retries.labels(self._api.account).inc()

    def _url(self, cursor: str | None) -> str:
        query = {"limit": str(self._api.page_size)}
        if cursor is not None:
            query["starting_after"] = cursor
        return f"{self._api.base_url.rstrip('/')}/fine-tunes/?{urlencode(query)}"

    async def _attempt(self, url: str, deadline: float) -> Page:
        """Ask once, following redirects within the origin: elsewhere the key must not go."""
        key = self._key()
        for _ in range(_REDIRECTS + 1):
            response = await self._send(url, key, deadline)
            if response.status not in _FOLLOWED:
                return self._read(response, key)
            url = _redirected(url, response.headers.get("location", ""))
        raise CartesiaError("redirect", f"the API redirected more than {_REDIRECTS} times")

    def _key(self) -> str:
        try:
            return self._api.key()
        except SecretError as error:
            raise CartesiaError("unauthorized", f"there is no API key: {error}") from None

    async def _send(self, url: str, key: str, deadline: float) -> Response:
        headers = {
            "Accept": "application/json",
            "Authorization": f"Bearer {key}",
            "Cartesia-Version": self._api.version,
        }
        started = self._clock.monotonic()
        seconds = min(_REQUEST_SECONDS, deadline - started)
        if seconds <= 0:
            raise CartesiaError("timeout", _OVER)
        try:
            bounds = Bounds(seconds, _PAGE_BYTES)
            response = await self._exchange.send(Request("GET", url, headers), bounds)
        except ExchangeError as error:
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

    def _unread(self, error: ExchangeError, deadline: float) -> CartesiaError:
        over = error.reason == "timeout" and self._clock.monotonic() >= deadline
        detail = _OVER if over else str(error)
        return CartesiaError(error.reason, detail, retryable=not error.lasting)

    def _read(self, response: Response, key: str) -> Page:
        if response.status == _LIST:
            if response.cut:
                raise CartesiaError("too_large", f"a page is larger than {_PAGE_BYTES} bytes")
            self._refused = None
            return read_page(response.body)
        if response.status in {401, 403}:
            self._refused = _fingerprint(key)
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
            detail += f"; check the API key from {self._api.key.source}"
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


def _fingerprint(key: str) -> bytes:
    return sha256(key.encode()).digest()

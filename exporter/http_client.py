"""One bounded HTTP exchange, shared by the API client and the receivers.

A wall-clock deadline for the whole of it, a capped body, no redirect, no cookie, no secret in an
error. httpx's own time-outs are per read: a server that drips a byte a second never meets them. Of
httpx only the transport is used: its client's cookies, redirects and sessions are a fifth of the
processor time of an exchange, and nothing that anybody asked for.
"""

import asyncio
import logging
import os
import socket
import ssl
import zlib
from base64 import b64encode
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, suppress
from copy import copy
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, Literal, Self
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import anyio
import httpx

from exporter import __version__
from exporter.core.secret import Secret


class EncodingError(Exception):
    """The body's Content-Encoding is not one we asked for, or it ends too early."""


async def read_body(response: httpx.Response, most: int) -> tuple[bytes, bool]:
    """Return the decoded body, at most so many bytes of it, and whether it is longer.

    Raises EncodingError and zlib.error for one that does not decode, httpx's errors for one that
    does not come whole.
    """
    body = bytearray()
    async with aclosing(_decoded(response, most)) as pieces:
        async for piece in pieces:
            body += piece
            if len(body) > most:
                return bytes(body[:most]), True
    return bytes(body), False


def _decoded(response: httpx.Response, most: int) -> AsyncGenerator[bytes, None]:
    encoding = response.headers.get("content-encoding", "").strip().lower()
    if encoding in {"", "identity"}:
        return _plain(response.aiter_raw())
    if encoding in {"gzip", "x-gzip"}:
        return _gunzip(response.aiter_raw(), most)
    raise EncodingError("an encoding that was not asked for")


async def _plain(pieces: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    async for piece in pieces:
        yield piece


async def _gunzip(pieces: AsyncIterator[bytes], most: int) -> AsyncGenerator[bytes, None]:
    """Inflate at most ``most`` bytes at a time: httpx would inflate a whole piece, 1000-fold."""
    inflater = zlib.decompressobj(wbits=31)
    begun = False
    async for piece in pieces:
        data = piece
        while data:
            if inflater.eof:
                inflater = zlib.decompressobj(wbits=31)
            begun = True
            yield inflater.decompress(data, most + 1)
            data = inflater.unused_data if inflater.eof else inflater.unconsumed_tail
    if begun and not inflater.eof:
        raise EncodingError("it ends in the middle")


CONNECT_SECONDS: Final = 10.0
"""How long a connection may take to come about."""

FailureReason = Literal["connect", "dns", "tls", "timeout", "protocol"]


class HttpClientError(Exception):
    """No complete answer came back.

    ``reason`` is its class, ``sent`` whether the request may have acted, and ``lasting`` whether
    somebody has to change something first. Raised without a cause: the library's exceptions hold
    the request, and with it the secrets.
    """

    def __init__(
        self, reason: FailureReason, detail: str, *, sent: bool = False, lasting: bool = False
    ) -> None:
        super().__init__(detail)
        self.reason: FailureReason = reason
        self.sent = sent
        self.lasting = lasting


def to_error(error: Exception, *, sent: bool) -> HttpClientError:
    """Return what an exception of the libraries or the system means."""
    for cause in _causes(error):
        if isinstance(cause, socket.gaierror):
            detail = f"the host name cannot be resolved: {cause.strerror or 'no address'}"
            return HttpClientError("dns", detail, sent=sent)
        if isinstance(cause, ssl.SSLCertVerificationError):
            detail = f"the server's certificate is refused: {_refusal(cause)}"
            return HttpClientError("tls", detail, sent=sent, lasting=True)
        if isinstance(cause, ssl.SSLError) and not _is_broken_off(cause):
            # An alert is the other side's word on who we are or what we speak; so is, in most
            # cases, what goes wrong before a connection stands.
            lasting = "ALERT" in (cause.reason or "") or isinstance(error, httpx.ConnectError)
            detail = f"TLS failed: {cause.reason or 'handshake error'}"
            return HttpClientError("tls", detail, sent=sent, lasting=lasting)
    for kind, reason, detail in _KINDS:
        if isinstance(error, kind):
            return HttpClientError(reason, detail + _system_detail(error), sent=sent)
    return HttpClientError("protocol", f"the exchange failed ({type(error).__name__})", sent=sent)


_KINDS: Final[tuple[tuple[type[Exception], FailureReason, str], ...]] = (
    (httpx.TimeoutException, "timeout", "no connection in time"),
    (httpx.ConnectError, "connect", "no connection"),
    (httpx.NetworkError, "connect", "the connection broke"),
    (httpx.ProxyError, "connect", "the proxy refused the connection"),
    (httpx.RemoteProtocolError, "protocol", "the server broke off or did not speak HTTP"),
    (OSError, "connect", "the connection broke"),
)


def _is_broken_off(error: ssl.SSLError) -> bool:
    """Tell whether TLS only says that no more came: with TLS, each reset and each end does."""
    # SSLWantRead is asyncio's own signal to wait for more; it is the context of what came instead.
    kinds = (
        ssl.SSLWantReadError,
        ssl.SSLWantWriteError,
        ssl.SSLEOFError,
        ssl.SSLZeroReturnError,
        ssl.SSLSyscallError,
    )
    return isinstance(error, kinds) or error.reason == "UNEXPECTED_EOF_WHILE_READING"


def _refusal(error: ssl.SSLCertVerificationError) -> str:
    # OpenSSL's own text of these names the host, which may be a receiver's secret.
    return "it is another host's" if error.verify_code in _OTHER_HOST else error.verify_message


_OTHER_HOST: Final = frozenset({62, 64})  # X509_V_ERR_HOSTNAME_MISMATCH, _IP_ADDRESS_MISMATCH


def _system_detail(error: Exception) -> str:
    # By number: the texts of asyncio's own errors name the address.
    found = (
        c for c in _causes(error) if isinstance(c, OSError) and not isinstance(c, ssl.SSLError)
    )
    numbers = [cause.errno for cause in found if cause.errno]
    return f": {os.strerror(numbers[-1])}" if numbers else ""


def _causes(error: BaseException) -> list[BaseException]:
    found: list[BaseException] = []
    waiting: list[BaseException | None] = [error]
    while waiting:
        cause = waiting.pop()
        if cause is None or cause in found:
            continue
        found.append(cause)
        waiting += [cause.__cause__, cause.__context__]
        if isinstance(cause, BaseExceptionGroup):
            waiting += cause.exceptions
    return found


USER_AGENT: Final = f"cartesia-exporter/{__version__}"
_CLOSE_SECONDS: Final = 0.5

# httpx writes every URL at level info, and a receiver's URL is its secret.
for _library in ("httpx", "httpcore"):
    logging.getLogger(_library).setLevel(logging.WARNING)


@dataclass(frozen=True, slots=True, repr=False)
class Request:
    """What is sent. It has no repr: URL, headers and body may be secret."""

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes | None = None


@dataclass(frozen=True, slots=True)
class Response:
    """What came back from ``host``; ``body`` is decoded.

    It is incomplete when ``cut`` is set, since it was longer than asked for, and empty when it did
    not come whole or does not decode: ``broken`` says why. The status stands in any case.
    """

    host: str
    status: int
    headers: httpx.Headers
    body: bytes = b""
    cut: bool = False
    broken: HttpClientError | None = None


@dataclass(frozen=True, slots=True)
class Bounds:
    """The limits of one exchange: seconds in all, bytes of the decoded body."""

    seconds: float
    body: int


class HttpClient:
    """Sends requests over pooled connections."""

    def __init__(self, *, ca_file: Path | None = None, proxy: Secret | None = None) -> None:
        """Prepare for requests; nothing is sent.

        ``ca_file`` replaces the authorities of SSL_CERT_FILE, SSL_CERT_DIR or certifi. Without
        ``proxy``, HTTPS_PROXY (or ALL_PROXY) and NO_PROXY are honoured. Raises OSError when
        ``ca_file`` can't be used.
        """
        self._tls = _tls_context(ca_file, file_version(ca_file))
        self._proxy = proxy
        self._transports: dict[str | None, httpx.AsyncHTTPTransport] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def clone(self) -> "HttpClient":
        """Return another of the same settings that sends over connections of its own."""
        other = copy(self)
        other._transports = {}  # noqa: SLF001 - of its own class
        return other

    async def aclose(self) -> None:
        """Close the connections."""
        transports, self._transports = self._transports, {}
        for transport in transports.values():
            # It is over in any case, and a peer that does not let go must not hold us up.
            with suppress(*_FAILURES):
                async with asyncio.timeout(_CLOSE_SECONDS):
                    await transport.aclose()

    async def send(self, request: Request, bounds: Bounds) -> Response:
        """Send one request and return its answer, whatever its status.

        Raises ExchangeError when no answer begins within ``bounds.seconds``, SecretError when the
        proxy's URL can't be read. A body longer than ``bounds.body`` bytes is cut there, and the
        rest is never read or inflated.
        """
        progress = _Progress()
        try:
            async with asyncio.timeout(bounds.seconds):
                return await self._exchange(request, bounds, progress)
        except TimeoutError:
            detail = f"no complete answer within {bounds.seconds:.3g} s"
            error = HttpClientError("timeout", detail, sent=progress.sent)
        except (zlib.error, EncodingError) as failure:
            detail = f"the body does not decode: {failure}"
            error = HttpClientError("protocol", detail, sent=True)
        except _SurplusError:
            detail = "the connection held an answer that nobody had asked for"
            error = HttpClientError("protocol", detail, sent=True)
        except _FAILURES as failure:
            error = to_error(failure, sent=progress.sent)
        if progress.head is None:
            raise error
        return replace(progress.head, broken=error)

    async def _exchange(self, request: Request, bounds: Bounds, progress: "_Progress") -> Response:
        try:
            proxy = self._proxy() if self._proxy is not None else _environment_proxy(request.url)
        except ValueError:
            raise HttpClientError("protocol", _UNSENDABLE) from None
        prepared = _prepared(request, bounds.seconds, progress)
        transport = self._transport(proxy)
        async with aclosing(await transport.handle_async_request(prepared)) as response:
            head = Response(prepared.url.host, response.status_code, response.headers)
            progress.head = head
            body, cut = await read_body(response, bounds.body)
            return replace(head, body=body, cut=cut)

    def _transport(self, proxy: str | None) -> httpx.AsyncHTTPTransport:
        if proxy not in self._transports:
            self._transports[proxy] = self._new_transport(proxy)
        return self._transports[proxy]

    def _new_transport(self, proxy: str | None) -> httpx.AsyncHTTPTransport:
        try:
            _ = urlsplit(proxy or "").port  # as in _check
            return httpx.AsyncHTTPTransport(
                verify=self._tls,
                proxy=proxy,
                trust_env=False,
                limits=httpx.Limits(max_connections=16, keepalive_expiry=90),
            )
        except (ValueError, ImportError, httpx.InvalidURL):
            detail = "the proxy cannot be used; its URL must be like http://host:port"
            raise HttpClientError("connect", detail) from None


# Not only httpx's: what TLS says once a connection stands passes through it as it is.
_FAILURES: Final = (
    httpx.HTTPError,
    httpx.InvalidURL,
    httpx.StreamError,
    anyio.BrokenResourceError,
    anyio.ClosedResourceError,
    OSError,
)

_UNSENDABLE = "the URL or a header is not one that can be sent"


def _prepared(request: Request, seconds: float, progress: "_Progress") -> httpx.Request:
    # Before the deadline: cut off in a TLS handshake, the library leaves its socket open.
    timeout = httpx.Timeout(None, connect=min(CONNECT_SECONDS, 0.9 * seconds))
    try:
        _check(request.url)
        url = httpx.URL(request.url)
        return httpx.Request(
            request.method,
            url,
            headers=_headers(request.headers, url),
            content=request.body,
            extensions={"timeout": timeout.as_dict(), "trace": progress.trace},
        )
    except (ValueError, httpx.InvalidURL):
        raise HttpClientError("protocol", _UNSENDABLE) from None


def _headers(given: Mapping[str, str], url: httpx.URL) -> httpx.Headers:
    headers = httpx.Headers({"Accept": "*/*", "Accept-Encoding": "gzip", "User-Agent": USER_AGENT})
    headers.update(given)  # of whatever case
    if url.username or url.password:
        user = b64encode(f"{url.username}:{url.password}".encode()).decode()
        headers["Authorization"] = f"Basic {user}"
    return headers


def _check(url: str) -> None:
    """Raise ValueError for what no socket takes; httpx does not."""
    parts = urlsplit(url)
    _ = parts.port
    if not parts.hostname:
        raise ValueError


class _Progress:
    """How far an exchange has come, told by the transport and not guessed from an exception."""

    def __init__(self) -> None:
        self.sent = False
        self.head: Response | None = None
        self._waited = False

    async def trace(self, name: str, info: dict[str, Any]) -> None:
        """Take note of a step; raise _SurplusError for an answer that was there before it."""
        if name.endswith("send_request_headers.started"):
            self.sent = self.sent or info["request"].method != b"CONNECT"  # that asks the proxy
        elif name.endswith("receive_response_headers.started"):
            self._waited = False
            asyncio.get_running_loop().call_soon(self._wait)
        elif name.endswith("receive_response_headers.complete") and not self._waited:
            # No turn of the loop has passed: it came behind an earlier answer. Taken for this
            # request's, it would be a page of another place, or a delivery that was not.
            raise _SurplusError

    def _wait(self) -> None:
        self._waited = True


class _SurplusError(Exception):
    """The connection held more than the answers that were asked for."""


def file_version(path: Path | None) -> tuple[int, ...] | None:
    """Return what differs once a file has been replaced; None when there is none to look at."""
    try:
        found = None if path is None else path.stat()
    except OSError:
        return None
    return None if found is None else (found.st_mtime_ns, found.st_ino, found.st_size)


# Shared: each holds all authorities, which takes 20 ms to read.
@lru_cache(maxsize=64)
def _tls_context(ca_file: Path | None, _: tuple[int, ...] | None) -> ssl.SSLContext:
    if ca_file is not None:
        return ssl.create_default_context(cafile=str(ca_file))
    # As httpx does by itself: SSL_CERT_FILE, SSL_CERT_DIR, then certifi's bundle.
    return httpx.create_ssl_context()


def _environment_proxy(url: str) -> str | None:
    parts = urlsplit(url)
    if parts.scheme != "https" or proxy_bypass(parts.netloc.rpartition("@")[2]):
        return None
    proxy = getproxies().get("https") or getproxies().get("all")
    # Written without a scheme, it is an http one, as it is to curl.
    return proxy if not proxy or "://" in proxy else f"http://{proxy}"

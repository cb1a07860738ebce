"""HTTP client of the API and the receivers: one request and its answer per call.

Each call has a wall-clock deadline and a body limit. Redirects are not followed, cookies are
not kept, and no error contains a secret. httpx's own time-outs are per read: a server that sends a
byte a second never exceeds them. Only httpx's transport is used: its client's cookies, redirects
and sessions, which are not needed here, take a fifth of the CPU time of a call.
"""

import asyncio
import logging
import os
import socket
import ssl
import zlib
from base64 import b64encode
from collections.abc import Mapping
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

USER_AGENT: Final = f"cartesia-exporter/{__version__}"
CONNECT_TIMEOUT_SECONDS: Final = 10.0

_CLOSE_TIMEOUT_SECONDS: Final = 0.5

# httpx logs every URL at level info, and a receiver's URL is its secret.
for _library in ("httpx", "httpcore"):
    logging.getLogger(_library).setLevel(logging.WARNING)

FailureReason = Literal["connect", "dns", "tls", "timeout", "protocol"]


@dataclass(eq=False)
class HttpClientError(Exception):
    """There is no complete answer.

    ``reason`` is its class. ``sent`` says whether the server may have processed the request.
    ``permanent`` says that a retry fails too until someone changes something. Raised without a
    cause: the exceptions of the libraries hold the request, and with it the secrets.
    """

    reason: FailureReason
    detail: str
    sent: bool = False
    permanent: bool = False

    def __str__(self) -> str:
        return self.detail


@dataclass(frozen=True, slots=True, repr=False)
class Request:
    """A request. It has no repr: URL, headers and body may be secret."""

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes | None = None


@dataclass(frozen=True, slots=True)
class Response:
    """The answer of ``host``, with its decoded body.

    ``truncated`` says that the body was longer than the limit. If the body is incomplete or does
    not decode, it is empty and ``error`` says why. The status and headers are valid in any case.
    """

    host: str
    status: int
    headers: httpx.Headers
    body: bytes = b""
    truncated: bool = False
    error: HttpClientError | None = None


@dataclass(frozen=True, slots=True)
class Bounds:
    """The limits of one call: its total time, and the decoded body in bytes."""

    seconds: float
    body: int


class HttpClient:
    """Sends requests over pooled connections."""

    def __init__(self, *, ca_file: Path | None = None, proxy: Secret | None = None) -> None:
        """Create a client without connecting.

        ``ca_file`` replaces the authorities of SSL_CERT_FILE, SSL_CERT_DIR or certifi. Without
        ``proxy``, HTTPS_PROXY (or ALL_PROXY) and NO_PROXY apply. Raises OSError if ``ca_file``
        cannot be used.
        """
        self._tls = _tls_context(ca_file, file_version(ca_file))
        self._proxy = proxy
        self._transports: dict[str | None, httpx.AsyncHTTPTransport] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def clone(self) -> "HttpClient":
        """Return a client with the same settings and its own connections."""
        other = copy(self)
        other._transports = {}  # noqa: SLF001 - of its own class
        return other

    async def aclose(self) -> None:
        """Close the connections; the client can be used again."""
        transports, self._transports = self._transports, {}
        for transport in transports.values():
            # A peer that does not complete the TLS shutdown must not block the agent.
            with suppress(*_EXCEPTIONS):
                async with asyncio.timeout(_CLOSE_TIMEOUT_SECONDS):
                    await transport.aclose()

    async def send(self, request: Request, bounds: Bounds) -> Response:
        """Send one request and return its answer, whatever its status.

        A body longer than ``bounds.body`` bytes is truncated; the rest is neither read nor
        inflated. Raises HttpClientError if no answer starts within ``bounds.seconds``, and
        SecretError if the proxy's URL cannot be read.
        """
        progress = _Progress()
        try:
            async with asyncio.timeout(bounds.seconds):
                return await self._send_once(request, bounds, progress)
        except TimeoutError:
            detail = f"no complete answer within {bounds.seconds:.3g} s"
            error = HttpClientError("timeout", detail, sent=progress.sent)
        except zlib.error as exception:
            detail = f"the body does not decode: {exception}"
            error = HttpClientError("protocol", detail, sent=True)
        except _EXCEPTIONS as exception:
            error = to_error(exception, sent=progress.sent)
        if progress.response is None:
            raise error
        return replace(progress.response, error=error)

    async def _send_once(self, request: Request, bounds: Bounds, progress: "_Progress") -> Response:
        try:
            proxy = self._proxy() if self._proxy is not None else _environment_proxy(request.url)
            prepared = _prepare(request, bounds.seconds, progress)
        except (ValueError, httpx.InvalidURL):
            detail = "the URL or a header is not one that can be sent"
            raise HttpClientError("protocol", detail) from None
        transport = self._transport(proxy)
        async with aclosing(await transport.handle_async_request(prepared)) as answer:
            response = Response(prepared.url.host, answer.status_code, answer.headers)
            progress.response = response
            body, truncated = await _read_body(answer, bounds.body)
            return replace(response, body=body, truncated=truncated)

    def _transport(self, proxy: str | None) -> httpx.AsyncHTTPTransport:
        if proxy not in self._transports:
            try:
                _ = urlsplit(proxy or "").port  # as in _prepare
                self._transports[proxy] = httpx.AsyncHTTPTransport(
                    verify=self._tls,
                    proxy=proxy,
                    trust_env=False,
                    limits=httpx.Limits(max_connections=16, keepalive_expiry=90),
                )
            except (ValueError, ImportError, httpx.InvalidURL):
                detail = "the proxy cannot be used; its URL must be like http://host:port"
                raise HttpClientError("connect", detail) from None
        return self._transports[proxy]


def _environment_proxy(url: str) -> str | None:
    """Return the environment's proxy for an https URL; raise ValueError for an invalid URL."""
    parts = urlsplit(url)
    if parts.scheme != "https" or proxy_bypass(parts.netloc.rpartition("@")[2]):
        return None
    proxy = getproxies().get("https") or getproxies().get("all")
    # Without a scheme it is an http proxy, as for curl.
    return proxy if not proxy or "://" in proxy else f"http://{proxy}"


def _prepare(request: Request, seconds: float, progress: "_Progress") -> httpx.Request:
    """Return the request for the transport; raise ValueError or httpx.InvalidURL."""
    parts = urlsplit(request.url)
    _ = parts.port  # raises ValueError for a port that httpx accepts and no socket does
    if not parts.hostname:
        raise ValueError
    url = httpx.URL(request.url)
    defaults = {"Accept": "*/*", "Accept-Encoding": "gzip", "User-Agent": USER_AGENT}
    headers = httpx.Headers(defaults)
    headers.update(request.headers)  # ignores case, so that no header is sent twice
    if url.username or url.password:
        user = b64encode(f"{url.username}:{url.password}".encode()).decode()
        headers["Authorization"] = f"Basic {user}"
    # Shorter than the deadline: httpcore leaks the socket of a TLS handshake that is cancelled.
    timeout = httpx.Timeout(None, connect=min(CONNECT_TIMEOUT_SECONDS, 0.9 * seconds))
    return httpx.Request(
        request.method,
        url,
        headers=headers,
        content=request.body,
        extensions={"timeout": timeout.as_dict(), "trace": progress.trace},
    )


class _Progress:
    """Progress of one call, as the transport reports it."""

    def __init__(self) -> None:
        self.sent = False
        self.response: Response | None = None
        self._loop_ran = asyncio.Event()

    async def trace(self, event: str, info: dict[str, Any]) -> None:
        """Record an event; raise HttpClientError for an answer that preceded its request."""
        if event.endswith("send_request_headers.started"):
            self.sent = self.sent or info["request"].method != b"CONNECT"  # sent to the proxy
        elif event.endswith("receive_response_headers.started"):
            self._loop_ran.clear()
            asyncio.get_running_loop().call_soon(self._loop_ran.set)
        elif event.endswith("receive_response_headers.complete") and not self._loop_ran.is_set():
            # The answer was in the buffer already, after that of an earlier request. Taken for the
            # answer to this one, it would be a wrong page, or a delivery that did not happen.
            detail = "the connection held an answer that nobody had asked for"
            raise HttpClientError("protocol", detail, sent=True)


async def _read_body(answer: httpx.Response, limit: int) -> tuple[bytes, bool]:
    """Return at most ``limit`` bytes of the decoded body, and whether it is longer.

    Inflates ``limit`` bytes at a time; httpx would inflate a whole chunk at once, which can be
    1,000 times as long. Raises zlib.error for a body that does not decode, httpx's errors for an
    incomplete one.
    """
    is_gzip = _is_gzip(answer.headers.get("content-encoding", ""))
    body, inflater = bytearray(), None
    async for chunk in answer.aiter_raw():
        data = chunk
        while data:
            if not is_gzip:
                body += data
                data = b""
            elif inflater is not None and inflater.eof and data[0] == 0:
                data = data.lstrip(b"\0")  # padding after a member, which gzip ignores too
            else:
                if inflater is None or inflater.eof:
                    inflater = zlib.decompressobj(wbits=31)
                body += inflater.decompress(data, limit + 1)
                data = inflater.unused_data if inflater.eof else inflater.unconsumed_tail
            if len(body) > limit:
                return bytes(body[:limit]), True
    if inflater is not None and not inflater.eof:
        raise zlib.error("it ends in the middle")
    return bytes(body), False


_REGISTERED_CODINGS: Final = frozenset(
    {"aes128gcm", "br", "compress", "dcb", "dcz", "deflate", "exi", "gzip", "pack200-gzip"}
    | {"x-compress", "x-gzip", "zstd"}
)
"""https://www.iana.org/assignments/http-parameters, without identity."""


def _is_gzip(content_encoding: str) -> bool:
    """Return whether a body is compressed with gzip; raise zlib.error for any other coding.

    What is no coding (utf-8, none) is ignored, because servers that send it send a plain body.
    """
    named = [coding.strip().lower() for coding in content_encoding.split(",")]
    codings = [coding for coding in named if coding in _REGISTERED_CODINGS]
    if codings in ([], ["gzip"], ["x-gzip"]):
        return bool(codings)
    raise zlib.error(f"its Content-Encoding {', '.join(codings[:3])} was not asked for")


# What a call may raise. anyio's errors, and those of TLS in an open connection, pass through
# httpx unchanged.
_EXCEPTIONS: Final = (
    httpx.HTTPError,
    httpx.InvalidURL,
    httpx.StreamError,
    anyio.BrokenResourceError,
    anyio.ClosedResourceError,
    OSError,
)

_REASONS: Final[tuple[tuple[type[Exception], FailureReason, str], ...]] = (
    (httpx.TimeoutException, "timeout", "no connection in time"),
    (httpx.ConnectError, "connect", "no connection"),
    (httpx.NetworkError, "connect", "the connection broke"),
    (httpx.ProxyError, "connect", "the proxy refused the connection"),
    (httpx.RemoteProtocolError, "protocol", "the server broke off or did not speak HTTP"),
    (OSError, "connect", "the connection broke"),
)

_OTHER_HOST: Final = frozenset({62, 64})  # X509_V_ERR_HOSTNAME_MISMATCH, _IP_ADDRESS_MISMATCH


def to_error(exception: Exception, *, sent: bool) -> HttpClientError:
    """Return the HttpClientError for an exception of the libraries or the system."""
    causes = _causes(exception)
    for cause in causes:
        if isinstance(cause, socket.gaierror):
            detail = f"the host name cannot be resolved: {cause.strerror or 'no address'}"
            return HttpClientError("dns", detail, sent=sent)
        if isinstance(cause, ssl.SSLCertVerificationError):
            # OpenSSL's text for another host names it, and the host may be a receiver's secret.
            is_other = cause.verify_code in _OTHER_HOST
            problem = "it is another host's" if is_other else cause.verify_message
            detail = f"the server's certificate is refused: {problem}"
            return HttpClientError("tls", detail, sent=sent, permanent=True)
        # The other subclasses are the end or reset of a TLS connection, or asyncio's signal to wait
        # for more data, which is the context of the error that came instead.
        if type(cause) is ssl.SSLError and cause.reason != "UNEXPECTED_EOF_WHILE_READING":
            # An alert is the server's answer to our certificate or protocol. It is permanent, as
            # are most errors of the handshake.
            permanent = "ALERT" in (cause.reason or "") or isinstance(exception, httpx.ConnectError)
            detail = f"TLS failed: {cause.reason or 'handshake error'}"
            return HttpClientError("tls", detail, sent=sent, permanent=permanent)
    # By number: the texts of asyncio's own errors contain the address.
    numbers = [
        cause.errno
        for cause in causes
        if isinstance(cause, OSError) and not isinstance(cause, ssl.SSLError) and cause.errno
    ]
    system_error = f": {os.strerror(numbers[-1])}" if numbers else ""
    for error_class, reason, detail in _REASONS:
        if isinstance(exception, error_class):
            return HttpClientError(reason, detail + system_error, sent=sent)
    detail = f"the exchange failed ({type(exception).__name__})"
    return HttpClientError("protocol", detail, sent=sent)


def _causes(exception: BaseException) -> list[BaseException]:
    """Return an exception and all its causes, contexts and group members."""
    causes: list[BaseException] = []
    stack: list[BaseException | None] = [exception]
    while stack:
        cause = stack.pop()
        if cause is not None and cause not in causes:
            causes.append(cause)
            stack += [cause.__cause__, cause.__context__]
            if isinstance(cause, BaseExceptionGroup):
                stack += cause.exceptions
    return causes


def file_version(path: Path | None) -> tuple[int, ...] | None:
    """Return a value that changes when the file is replaced; None if there is no file."""
    try:
        found = None if path is None else path.stat()
    except OSError:
        return None
    return None if found is None else (found.st_mtime_ns, found.st_ino, found.st_size)


# Cached: a context holds all authorities, which take 20 ms to read.
@lru_cache(maxsize=64)
def _tls_context(ca_file: Path | None, _: tuple[int, ...] | None) -> ssl.SSLContext:
    if ca_file is not None:
        return ssl.create_default_context(cafile=str(ca_file))
    # As in httpx: SSL_CERT_FILE, SSL_CERT_DIR, then certifi's bundle.
    return httpx.create_ssl_context()

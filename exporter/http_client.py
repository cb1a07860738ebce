"""HTTP client of the API and the receivers: one request and its answer per call.

Each call has a wall-clock deadline and a body limit. Redirects are not followed, cookies are
not kept, and no error contains a secret. httpx's own time-outs are per read: a server that sends a
byte a second never exceeds them. Only httpx's transport is used: its client's cookies, redirects
and sessions, which are not needed here, take a fifth of the CPU time of a call.

httpx takes a tenth of the time of a start. The first request imports it, or `load`, by which an
agent does so while it serves its metrics already.
"""

import asyncio
import logging
import os
import ssl
import zlib
from base64 import b64encode
from collections.abc import Callable, Mapping
from contextlib import aclosing, suppress
from copy import copy
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self
from urllib.parse import urlsplit

import structlog
from msgspec import Struct
from msgspec.structs import replace

from exporter import __version__
from exporter.core.no_proxy import bypasses_proxy
from exporter.core.text import os_error_text
from exporter.imports import without_rich
from exporter.transport_errors import (
    HttpClientError,
    Route,
    exceptions,
    is_connection_lost,
    to_error,
)

if TYPE_CHECKING:
    import httpx

__all__ = ["Bounds", "HttpClient", "HttpClientError", "Request", "Response", "load"]

USER_AGENT: Final = f"cartesia-exporter/{__version__}"
CONNECT_TIMEOUT_SECONDS: Final = 10.0

_CLOSE_TIMEOUT_SECONDS: Final = 0.5

_CA_VARIABLES: Final = ("SSL_CERT_FILE", "SSL_CERT_DIR")

# httpx logs every URL at level info, and a receiver's URL is its secret.
for _library in ("httpx", "httpcore"):
    logging.getLogger(_library).setLevel(logging.WARNING)

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, repr=False)
class Request:
    """A request. It has no repr: URL, headers and body may be secret."""

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes | None = None


class Response(Struct, frozen=True):
    """The answer of ``host``, with its decoded body.

    ``truncated`` says that the body was longer than the limit. If the body is incomplete or does
    not decode, it is empty and ``error`` says why. The status and headers are valid in any case.
    """

    host: str
    status: int
    headers: "httpx.Headers"
    body: bytes = b""
    truncated: bool = False
    error: HttpClientError | None = None


class Bounds(Struct, frozen=True):
    """The limits of one call: its total time, and the decoded body in bytes."""

    seconds: float
    body: int


class HttpClient:
    """Sends requests over pooled connections."""

    def __init__(
        self, *, ca_file: Path | None = None, proxy: Callable[[], str | None] | None = None
    ) -> None:
        """Create a client without connecting.

        ``ca_file`` replaces the authorities of SSL_CERT_FILE, SSL_CERT_DIR or certifi. It is read
        again when it was replaced. Without ``proxy``, HTTPS_PROXY (or ALL_PROXY) and NO_PROXY
        apply; with one that returns None, no proxy is used. Raises OSError if ``ca_file`` cannot be
        used.
        """
        self._ca_file = ca_file
        self._ca_version = file_version(_authorities(ca_file))
        # The default authorities are read by the first request: only what the operator chose can be
        # wrong.
        self._tls: ssl.SSLContext | None = None
        if ca_file is not None or any(os.environ.get(name) for name in _CA_VARIABLES):
            self._tls = _tls_context(ca_file, self._ca_version)
        self._proxy = proxy
        self._transports: dict[tuple[str | None, ssl.SSLContext], httpx.AsyncHTTPTransport] = {}

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
            with suppress(*exceptions()):
                async with asyncio.timeout(_CLOSE_TIMEOUT_SECONDS):
                    await transport.aclose()

    async def send(self, request: Request, bounds: Bounds) -> Response:
        """Send one request and return its answer, whatever its status.

        A body longer than ``bounds.body`` bytes is truncated; the rest is neither read nor
        inflated. A GET that failed on a reused connection before its answer is sent once more: the
        server may have closed the connection as the request was sent. Raises HttpClientError if no
        answer starts within ``bounds.seconds``, and SecretError if the proxy's URL cannot be read.
        """
        progress = _Progress()
        try:
            async with asyncio.timeout(bounds.seconds):
                try:
                    return await self._send_once(request, bounds, progress)
                except exceptions() as exception:
                    is_stale = progress.connection_was_reused and is_connection_lost(exception)
                    if request.method != "GET" or not is_stale:
                        raise
                return await self._send_once(request, bounds, progress)
        except TimeoutError:
            detail = f"no complete answer from {progress.route} within {bounds.seconds:.3g} s"
            error = HttpClientError("timeout", detail, sent=progress.sent)
        except zlib.error as exception:
            detail = f"the answer of {progress.route} cannot be decoded: {exception}"
            error = HttpClientError("protocol", detail, sent=True)
        except exceptions() as exception:
            error = to_error(exception, progress.route, sent=progress.sent)
        if progress.response is None:
            raise error
        return replace(progress.response, error=error)

    async def _send_once(self, request: Request, bounds: Bounds, progress: "_Progress") -> Response:
        import httpx  # noqa: PLC0415 - see above

        try:
            proxy = self._proxy() if self._proxy is not None else _environment_proxy(request.url)
            prepared = _prepare(request, bounds.seconds, progress)
        except (ValueError, httpx.InvalidURL):
            detail = "the URL or a header is not valid"
            raise HttpClientError("protocol", detail) from None
        transport = self._transport(proxy)
        progress.route = Route.of(prepared.url, proxy)
        async with aclosing(await transport.handle_async_request(prepared)) as answer:
            response = Response(prepared.url.host, answer.status_code, answer.headers)
            progress.response = response
            body, truncated = await _read_body(answer, bounds.body)
            return replace(response, body=body, truncated=truncated)

    def _transport(self, proxy: str | None) -> "httpx.AsyncHTTPTransport":
        import httpx  # noqa: PLC0415 - see above

        self._read_changed_authorities()
        tls = self._tls or _tls_context(None, None)
        key = proxy, tls
        if key not in self._transports:
            try:
                _ = urlsplit(proxy or "").port  # as in _prepare
                self._transports[key] = httpx.AsyncHTTPTransport(
                    verify=tls,
                    proxy=proxy,
                    trust_env=False,
                    limits=httpx.Limits(max_connections=16, keepalive_expiry=90),
                )
            except (ValueError, ImportError, httpx.InvalidURL):
                detail = "the proxy cannot be used; its URL must be like http://host:port"
                raise HttpClientError("connect", detail) from None
        return self._transports[key]

    def _read_changed_authorities(self) -> None:
        """Use the certificates of a file that was replaced; keep the old ones if it is unusable."""
        version = file_version(_authorities(self._ca_file))
        if version == self._ca_version:
            return
        self._ca_version = version
        try:
            self._tls = _tls_context(self._ca_file, version)
        except OSError as error:
            log.warning(
                "changed certificates cannot be read, the previous ones stay in use",
                file=str(_authorities(self._ca_file)),
                error=os_error_text(error),
            )


def _environment_proxy(url: str) -> str | None:
    """Return the environment's proxy for an https URL; raise ValueError for an invalid URL."""
    parts = urlsplit(url)
    if parts.scheme != "https":
        return None
    from urllib.request import getproxies_environment  # noqa: PLC0415 - httpx imports it, too

    proxies = getproxies_environment()
    if bypasses_proxy(proxies.get("no", ""), parts.hostname or "", parts.port or 443):
        return None
    proxy = proxies.get("https") or proxies.get("all")
    # Without a scheme it is an http proxy, as for curl.
    return proxy if not proxy or "://" in proxy else f"http://{proxy}"


def _prepare(request: Request, seconds: float, progress: "_Progress") -> "httpx.Request":
    """Return the request for the transport; raise ValueError or httpx.InvalidURL."""
    import httpx  # noqa: PLC0415 - see above

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
        self.route = Route()
        self.sent = False
        self.response: Response | None = None
        self._connected = False
        self._loop_ran = asyncio.Event()

    @property
    def connection_was_reused(self) -> bool:
        """Whether the request was sent over an open connection, and has no answer yet."""
        return self.sent and not self._connected and self.response is None

    async def trace(self, event: str, info: dict[str, Any]) -> None:
        """Record an event; raise HttpClientError for an answer that preceded its request."""
        if event == "connection.connect_tcp.started":
            self._connected = True
        elif event.endswith("send_request_headers.started"):
            self.sent = self.sent or info["request"].method != b"CONNECT"  # sent to the proxy
        elif event.endswith("receive_response_headers.started"):
            self._loop_ran.clear()
            asyncio.get_running_loop().call_soon(self._loop_ran.set)
        elif event.endswith("receive_response_headers.complete") and not self._loop_ran.is_set():
            # The answer was in the buffer already, after that of an earlier request. Taken for the
            # answer to this one, it would be a wrong page, or a delivery that did not happen.
            detail = f"the connection to {self.route} contained a response without a request"
            raise HttpClientError("protocol", detail, sent=True)


async def _read_body(answer: "httpx.Response", limit: int) -> tuple[bytes, bool]:
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
    raise zlib.error(f"its Content-Encoding {', '.join(codings[:3])} was not requested")


def file_version(path: Path | None) -> tuple[int, ...] | None:
    """Return a value that changes when the file is replaced; None if there is no file."""
    try:
        found = None if path is None else path.stat()
    except OSError:
        return None
    return None if found is None else (found.st_mtime_ns, found.st_ino, found.st_size)


def _authorities(ca_file: Path | None) -> Path | None:
    """Return the file of the trusted authorities, unless they are those of a folder or certifi."""
    variable = os.environ.get("SSL_CERT_FILE")
    return ca_file or (Path(variable) if variable else None)


# Cached: a context holds all authorities, which take 20 ms to read.
@lru_cache(maxsize=64)
def _tls_context(ca_file: Path | None, _: tuple[int, ...] | None) -> ssl.SSLContext:
    if ca_file is not None:
        return ssl.create_default_context(cafile=str(ca_file))
    import httpx  # noqa: PLC0415 - see above

    # SSL_CERT_FILE, SSL_CERT_DIR, then certifi's bundle.
    return httpx.create_ssl_context()


def load() -> None:
    """Import and read what the first request needs. Call it in a thread: it takes 0.1 s.

    Raises OSError if the default authorities cannot be read.
    """
    from anyio import lowlevel  # noqa: PLC0415 - see above

    with without_rich():
        import httpx  # noqa: PLC0415
    # A transport imports httpcore, and an event loop anyio's modules for asyncio.
    httpx.AsyncHTTPTransport(verify=_tls_context(None, file_version(_authorities(None))))
    asyncio.run(lowlevel.checkpoint())

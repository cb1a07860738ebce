"""One bounded HTTP exchange, shared by the API client and the receivers.

A wall-clock deadline for the whole of it, a capped body, no redirect, no cookie, no secret in an
error. httpx's own time-outs are per read: a server that drips a byte a second never meets them.
"""

import asyncio
import logging
import os
import socket
import ssl
import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final, Literal, Self
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import httpx

from exporter import __version__
from exporter.core.secret import Secret

USER_AGENT: Final = f"cartesia-exporter/{__version__}"
_CONNECT_TIMEOUT = 10.0

# httpx writes every URL at level info, and a receiver's URL is its secret.
for _library in ("httpx", "httpcore"):
    logging.getLogger(_library).setLevel(logging.WARNING)

_Trace = Callable[[str, dict[str, Any]], Awaitable[None]]

FailureReason = Literal["connect", "dns", "tls", "timeout", "protocol"]


class ExchangeError(Exception):
    """No complete answer came back; ``reason`` is its class and ``sent`` whether it may have acted.

    Raised without a cause: the library's exceptions hold the request, and with it the secrets.
    """

    def __init__(self, reason: FailureReason, detail: str, *, sent: bool = False) -> None:
        super().__init__(detail)
        self.reason: FailureReason = reason
        self.sent = sent


@dataclass(frozen=True, slots=True, repr=False)
class Request:
    """What is sent. It has no repr: URL, headers and body may be secret."""

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes | None = None


@dataclass(frozen=True, slots=True)
class Response:
    """What came back from ``host``; ``body`` is decoded, and incomplete when ``cut`` is set."""

    host: str
    status: int
    headers: httpx.Headers
    body: bytes
    cut: bool


@dataclass(frozen=True, slots=True)
class Bounds:
    """The limits of one exchange: seconds in all, bytes of the decoded body."""

    seconds: float
    body: int


class Exchange:
    """Sends requests over pooled connections."""

    def __init__(self, *, ca_file: Path | None = None, proxy: Secret | None = None) -> None:
        """Prepare for requests; nothing is sent.

        ``ca_file`` replaces the authorities of SSL_CERT_FILE, SSL_CERT_DIR or certifi. Without
        ``proxy``, HTTPS_PROXY (or ALL_PROXY) and NO_PROXY are honoured. Raises OSError when
        ``ca_file`` can't be used.
        """
        self._tls = _tls_context(ca_file)
        self._proxy = proxy
        self._clients: dict[str | None, httpx.AsyncClient] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections."""
        clients, self._clients = self._clients, {}
        for client in clients.values():
            await client.aclose()

    async def send(self, request: Request, bounds: Bounds) -> Response:
        """Send one request and return its answer, whatever its status.

        Raises ExchangeError when no complete answer comes within ``bounds.seconds``, SecretError
        when the proxy's URL can't be read. A body longer than ``bounds.body`` bytes is cut there,
        and the rest is never read or inflated.
        """
        # Told by the transport, not guessed from the exception: see ExchangeError.sent.
        sent = False

        async def trace(name: str, info: dict[str, Any]) -> None:
            nonlocal sent
            if name.endswith("send_request_headers.started"):
                sent = sent or info["request"].method != b"CONNECT"  # that one asks the proxy

        try:
            async with asyncio.timeout(bounds.seconds):
                return await self._exchange(request, bounds.body, trace)
        except TimeoutError:
            detail = f"no complete answer within {bounds.seconds:.3g} s"
            raise ExchangeError("timeout", detail, sent=sent) from None
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as error:
            reason, detail = _explain(error)
            raise ExchangeError(reason, detail, sent=sent) from None
        except (zlib.error, _EncodingError) as error:
            raise ExchangeError(
                "protocol", f"the body does not decode: {error}", sent=True
            ) from None

    async def _exchange(self, request: Request, most: int, trace: _Trace) -> Response:
        try:
            proxy = self._proxy() if self._proxy is not None else _environment_proxy(request.url)
        except ValueError:
            raise ExchangeError("protocol", _UNSENDABLE) from None
        client = self._client(proxy)
        prepared = _prepared(client, request, trace)
        async with aclosing(await client.send(prepared, stream=True)) as response:
            client.cookies.clear()  # nobody asked for a session that lasts for months
            body, cut = await _read(response, most)
            return Response(response.url.host, response.status_code, response.headers, body, cut)

    def _client(self, proxy: str | None) -> httpx.AsyncClient:
        if proxy not in self._clients:
            self._clients[proxy] = self._new_client(proxy)
        return self._clients[proxy]

    def _new_client(self, proxy: str | None) -> httpx.AsyncClient:
        try:
            _ = urlsplit(proxy or "").port  # as in _prepared
            return httpx.AsyncClient(
                verify=self._tls,
                proxy=proxy,
                timeout=httpx.Timeout(None, connect=_CONNECT_TIMEOUT),
                follow_redirects=False,
                # HTTP_PROXY would be shown a key that is meant for a loopback address.
                trust_env=False,
                limits=httpx.Limits(max_connections=16, keepalive_expiry=90),
            )
        except (ValueError, ImportError, httpx.InvalidURL):
            detail = "the proxy cannot be used; its URL must be like http://host:port"
            raise ExchangeError("connect", detail) from None


_UNSENDABLE = "the URL or a header is not one that can be sent"


def _prepared(client: httpx.AsyncClient, request: Request, trace: _Trace) -> httpx.Request:
    headers = {"User-Agent": USER_AGENT, "Accept-Encoding": "gzip", **request.headers}
    try:
        _ = urlsplit(request.url).port  # refuses what no socket takes; httpx does not
        return client.build_request(
            request.method,
            request.url,
            headers=headers,
            content=request.body,
            extensions={"trace": trace},
        )
    except (ValueError, httpx.InvalidURL):
        raise ExchangeError("protocol", _UNSENDABLE) from None


class _EncodingError(Exception):
    """The body's Content-Encoding is not one we asked for, or it ends too early."""


async def _read(response: httpx.Response, most: int) -> tuple[bytes, bool]:
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
    raise _EncodingError("an encoding that was not asked for")


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
        raise _EncodingError("it ends in the middle")


def _explain(error: Exception) -> tuple[FailureReason, str]:
    """Return the reason and a text of our own; the library's text may quote the URL."""
    for cause in _causes(error):
        if isinstance(cause, socket.gaierror):
            return "dns", f"the host name cannot be resolved: {cause.strerror or 'no address'}"
        if isinstance(cause, ssl.SSLCertVerificationError):
            return "tls", f"the server's certificate is refused: {_refusal(cause)}"
        if isinstance(cause, ssl.SSLError):
            return "tls", f"TLS failed: {cause.reason or 'handshake error'}"
    for kind, reason, detail in _KINDS:
        if isinstance(error, kind):
            return reason, detail + _system_detail(error)
    return "protocol", f"the exchange failed ({type(error).__name__})"


_KINDS: Final[tuple[tuple[type[Exception], FailureReason, str], ...]] = (
    (httpx.TimeoutException, "timeout", f"no connection within {_CONNECT_TIMEOUT:.0f} s"),
    (httpx.ConnectError, "connect", "no connection"),
    (httpx.NetworkError, "connect", "the connection broke"),
    (httpx.ProxyError, "connect", "the proxy refused the connection"),
    (httpx.RemoteProtocolError, "protocol", "the server broke off or did not speak HTTP"),
)


def _refusal(error: ssl.SSLCertVerificationError) -> str:
    # OpenSSL's own text of these names the host, which may be a receiver's secret.
    return "it is another host's" if error.verify_code in _OTHER_HOST else error.verify_message


_OTHER_HOST: Final = frozenset({62, 64})  # X509_V_ERR_HOSTNAME_MISMATCH, _IP_ADDRESS_MISMATCH


def _system_detail(error: Exception) -> str:
    # By number: the texts of asyncio's own errors name the address.
    numbers = [c.errno for c in _causes(error) if isinstance(c, OSError) and c.errno]
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


@cache
def _tls_context(ca_file: Path | None) -> ssl.SSLContext:
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

"""Errors of an HTTP exchange that got no complete answer, as one class with a reason.

httpx is imported by the first request: see http_client.
"""

import os
import socket
import ssl
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Final, Literal

from msgspec import Struct

if TYPE_CHECKING:
    import httpx

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


class Route(Struct, frozen=True):
    """Host and port of the server, and of the proxy on the way to it, if there is one.

    Without path, query, user name and password: those are secret.
    """

    host: str = "the server"
    proxy: str | None = None

    @classmethod
    def of(cls, url: "httpx.URL", proxy: str | None) -> "Route":
        """Return the route to a URL; raise httpx.InvalidURL for that of an invalid proxy."""
        import httpx  # noqa: PLC0415

        return cls(_host_of(url), None if proxy is None else _host_of(httpx.URL(proxy)))

    def __str__(self) -> str:
        return self.host if self.proxy is None else f"{self.host} through the proxy {self.proxy}"


def _host_of(url: "httpx.URL") -> str:
    return url.netloc.decode("ascii")


@cache
def exceptions() -> tuple[type[Exception], ...]:
    """Return what an exchange may raise.

    anyio's errors, and those of TLS in an open connection, pass through httpx unchanged.
    """
    import anyio  # noqa: PLC0415 - as httpx
    import httpx  # noqa: PLC0415

    return (
        httpx.HTTPError,
        httpx.InvalidURL,
        httpx.StreamError,
        anyio.BrokenResourceError,
        anyio.ClosedResourceError,
        OSError,
    )


def is_connection_lost(exception: Exception) -> bool:
    """Return whether the connection ended before the first line of an answer arrived."""
    import anyio  # noqa: PLC0415 - as httpx
    import httpx  # noqa: PLC0415

    # httpcore has no class of its own for it.
    ended = isinstance(exception, httpx.RemoteProtocolError) and "disconnected" in str(exception)
    lost = (httpx.NetworkError, anyio.BrokenResourceError, anyio.ClosedResourceError)
    return ended or isinstance(exception, lost)


@cache
def _reasons() -> tuple[tuple[type[Exception], FailureReason, str], ...]:
    import httpx  # noqa: PLC0415

    protocol = "{} closed the connection or did not answer with HTTP"
    return (
        (httpx.TimeoutException, "timeout", "no connection to {} in time"),
        (httpx.ConnectError, "connect", "no connection to {}"),
        (httpx.NetworkError, "connect", "the connection to {} broke"),
        (httpx.RemoteProtocolError, "protocol", protocol),
        (OSError, "connect", "the connection to {} broke"),
    )


_OTHER_HOST: Final = frozenset({62, 64})  # X509_V_ERR_HOSTNAME_MISMATCH, _IP_ADDRESS_MISMATCH


def to_error(exception: Exception, route: Route, *, sent: bool) -> HttpClientError:
    """Return the HttpClientError for an exception of the libraries or the system."""
    import httpx  # noqa: PLC0415

    causes = _causes(exception)
    for cause in causes:
        if isinstance(cause, socket.gaierror):
            name = (route.proxy or route.host).partition(":")[0]
            detail = f"the host name {name} cannot be resolved: {cause.strerror or 'no address'}"
            return HttpClientError("dns", detail, sent=sent)
        if isinstance(cause, ssl.SSLCertVerificationError):
            is_other = cause.verify_code in _OTHER_HOST
            problem = "it was issued for another host" if is_other else cause.verify_message
            detail = f"the certificate of {route} is refused: {problem}"
            return HttpClientError("tls", detail, sent=sent, permanent=True)
        # The other subclasses are the end or reset of a TLS connection, or asyncio's signal to wait
        # for more data, which is the context of the error that came instead.
        if type(cause) is ssl.SSLError and cause.reason != "UNEXPECTED_EOF_WHILE_READING":
            # An alert is the server's answer to our certificate or protocol. It is permanent, as
            # are most errors of the handshake.
            permanent = "ALERT" in (cause.reason or "") or isinstance(exception, httpx.ConnectError)
            detail = f"TLS with {route} failed: {cause.reason or 'handshake error'}"
            return HttpClientError("tls", detail, sent=sent, permanent=permanent)
    if isinstance(exception, httpx.ProxyError):
        return _proxy_refusal(exception, route, sent=sent)
    # By number: the texts of asyncio's own errors contain the address.
    numbers = [
        cause.errno
        for cause in causes
        if isinstance(cause, OSError) and not isinstance(cause, ssl.SSLError) and cause.errno
    ]
    system_error = f": {os.strerror(numbers[-1])}" if numbers else ""
    for error_class, reason, detail in _reasons():
        if isinstance(exception, error_class):
            return HttpClientError(reason, detail.format(route) + system_error, sent=sent)
    detail = f"the exchange with {route} failed ({type(exception).__name__})"
    return HttpClientError("protocol", detail, sent=sent)


def _proxy_refusal(exception: Exception, route: Route, *, sent: bool) -> HttpClientError:
    """Return the error for a CONNECT that was refused; its text begins with the status."""
    detail = f"the proxy {route.proxy} refused the connection to {route.host}"
    status = str(exception)[:3]
    if status.isascii() and status.isdecimal():
        detail += f" with status {status}"
    if status == "407":
        detail += "; put the user and password that it requires into the URL of the proxy"
    return HttpClientError("connect", detail, sent=sent)


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

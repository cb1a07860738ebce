"""Why an HTTP exchange failed, in words of our own: a library's text may quote URL and headers."""

import os
import socket
import ssl
from typing import Final, Literal

import httpx

CONNECT_SECONDS: Final = 10.0
"""How long a connection may take to come about."""

FailureReason = Literal["connect", "dns", "tls", "timeout", "protocol"]


class ExchangeError(Exception):
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


def explained(error: Exception, *, sent: bool) -> ExchangeError:
    """Return what an exception of the libraries or the system means."""
    for cause in _causes(error):
        if isinstance(cause, socket.gaierror):
            detail = f"the host name cannot be resolved: {cause.strerror or 'no address'}"
            return ExchangeError("dns", detail, sent=sent)
        if isinstance(cause, ssl.SSLCertVerificationError):
            detail = f"the server's certificate is refused: {_refusal(cause)}"
            return ExchangeError("tls", detail, sent=sent, lasting=True)
        if isinstance(cause, ssl.SSLError) and not _is_broken_off(cause):
            # An alert is the other side's word on who we are or what we speak; so is, in most
            # cases, what goes wrong before a connection stands.
            lasting = "ALERT" in (cause.reason or "") or isinstance(error, httpx.ConnectError)
            detail = f"TLS failed: {cause.reason or 'handshake error'}"
            return ExchangeError("tls", detail, sent=sent, lasting=lasting)
    for kind, reason, detail in _KINDS:
        if isinstance(error, kind):
            return ExchangeError(reason, detail + _system_detail(error), sent=sent)
    return ExchangeError("protocol", f"the exchange failed ({type(error).__name__})", sent=sent)


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

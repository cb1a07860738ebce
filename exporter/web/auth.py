"""Authentication and rate limit of the web configuration, as ASGI middleware."""

import asyncio
import base64
import binascii
from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from exporter.web.details import TRUSTED
from exporter.web.live_config import RateLimit, ReloadingWebConfig, WebSettings
from exporter.web.passwords import BusyError, PasswordChecker

EXEMPT_PATHS: Final = frozenset({"/-/active", "/-/healthy", "/-/ready"})


class AuthMiddleware:
    """Applies the web configuration to an application.

    All listeners share one instance, so that the rate limit is for all of them. ``EXEMPT_PATHS``
    need no password, are not limited, and are served while the web configuration is invalid:
    otherwise a supervisor would restart the agent because of a mistake in the file, and the agent
    could not start again.
    """

    def __init__(self, app: ASGIApp, live: ReloadingWebConfig) -> None:
        self._app = app
        self._live = live
        self._passwords = PasswordChecker()
        self._bucket = TokenBucket(live.first.rate_limit) if live.first.rate_limit else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on to the application, or refuse it."""
        settings = await self._live.settings()
        if settings is not None:
            send = _with_headers(send, settings.headers)
        refusal = await self._refuse(scope, settings)
        if refusal is None or scope["path"] in EXEMPT_PATHS:
            state = {**scope.get("state", {}), TRUSTED: refusal is None}
            await self._app({**scope, "state": state}, receive, send)
        else:
            await refusal(scope, receive, send)

    async def _refuse(self, scope: Scope, settings: WebSettings | None) -> Response | None:
        """Return the response to a client that may not see details, or None."""
        if settings is None:
            reason = ": the web configuration cannot be used, see the log"
            return _refusal(HTTPStatus.INTERNAL_SERVER_ERROR, reason)
        authorization = Headers(scope=scope).get("authorization", "").encode("latin-1")
        # A password at an exempt path counts for the rate limit: otherwise passwords could be
        # guessed there without limit.
        is_limited = scope["path"] not in EXEMPT_PATHS or (settings.users and authorization)
        if is_limited and self._bucket and not self._bucket.take(asyncio.get_running_loop().time()):
            return _refusal(HTTPStatus.TOO_MANY_REQUESTS)
        if not settings.users:
            return None
        credentials = parse_basic_auth(authorization)
        client = tuple(scope["client"] or ("", 0))
        try:
            if credentials and await self._passwords.check(settings.users, *credentials, client):
                return None
        except BusyError:
            reason = ": too many passwords wait to be compared"
            return _refusal(HTTPStatus.SERVICE_UNAVAILABLE, reason, {"Retry-After": "1"})
        return _refusal(HTTPStatus.UNAUTHORIZED, headers={"WWW-Authenticate": "Basic"})


def _refusal(
    status: HTTPStatus, reason: str = "", headers: Mapping[str, str] | None = None
) -> Response:
    return PlainTextResponse(f"{status.phrase}{reason}\n", status, headers)


def _with_headers(send: Send, headers: Mapping[str, str]) -> Send:
    """Return a ``send`` that adds headers to the response."""
    added = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()]
    # Browsers apply each security policy, so the application's stays. Other headers are replaced.
    replaced = {name for name, _ in added} - {b"content-security-policy"}

    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            kept = [pair for pair in message.get("headers", ()) if pair[0] not in replaced]
            message = {**message, "headers": [*kept, *added]}
        await send(message)

    return send_with_headers


class TokenBucket:
    """Rate limit: a bucket that is full at first and gains one token per interval."""

    def __init__(self, limit: RateLimit) -> None:
        self._limit = limit
        self._tokens = float(limit.burst)
        self._refilled_at = 0.0

    def take(self, now: float) -> bool:
        """Take a token at ``now`` (monotonic seconds). Return False if there is none."""
        gained = (now - self._refilled_at) / self._limit.interval
        self._tokens = min(self._tokens + gained, self._limit.burst)
        self._refilled_at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


def parse_basic_auth(authorization: bytes) -> tuple[bytes, bytes] | None:
    """Return user and password of an Authorization header, or None if it has none (RFC 7617)."""
    scheme, _, encoded = authorization.partition(b" ")
    if scheme.lower() != b"basic":
        return None
    try:
        user, colon, password = base64.b64decode(encoded.strip(), validate=True).partition(b":")
    except binascii.Error:
        return None
    return (user, password) if colon else None

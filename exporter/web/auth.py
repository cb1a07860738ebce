"""Authentication and rate limit of the web configuration, as ASGI middleware."""

import asyncio
import base64
import binascii
import hashlib
import secrets
from collections import Counter
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Final

import bcrypt
from starlette.datastructures import Headers
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from exporter.threads import start_executor
from exporter.web.live_config import RateLimit, ReloadingWebConfig, WebSettings

EXEMPT_PATHS: Final = frozenset({"/-/healthy", "/-/ready"})

_TRUSTED: Final = "trusted"

_MAX_PASSWORD_BYTES: Final = 72
"""Limit of bcrypt. Some libraries cut a longer password, others raise an error."""

_MAX_ACCEPTED: Final = 100
_MAX_WAITING: Final = 32
_MAX_WAITING_PER_CLIENT: Final = 8
"""Limit per client address, so that one attacker cannot use all slots."""

_MAX_WAIT_SECONDS: Final = 8.0
"""Less than the timeout of a scrape. A comparison that takes longer still completes and its result
is cached, so that the second scrape is answered."""

_DUMMY_HASH: Final = b"$QOauhQNbBCuQDKes6eFzPeMqBSjb7Mr5DUmpZ/VcEd00UAV/LDeSi"
"""Salt and hash from exporter-toolkit, without the algorithm and the cost."""


class BusyError(Exception):
    """A password was not compared: too many wait, or the comparison takes too long."""


def may_see_details(request: HTTPConnection) -> bool:
    """Whether the client gave a valid password, or none is needed."""
    return bool(getattr(request.state, _TRUSTED, True))


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
            state = {**scope.get("state", {}), _TRUSTED: refusal is None}
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
        address = scope["client"][0] if scope["client"] else ""
        try:
            if credentials and await self._passwords.check(settings.users, *credentials, address):
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


class PasswordChecker:
    """Compares passwords with bcrypt hashes, and caches the accepted ones.

    The cache key is a keyed hash of user, password and bcrypt hash, so that an entry ends with its
    bcrypt hash. Wrong passwords are not cached: an attacker cannot evict the right ones.
    """

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)
        self._accepted: dict[bytes, None] = {}
        self._thread = start_executor("bcrypt")
        self._waiting: Counter[str] = Counter()

    async def check(
        self, users: Mapping[bytes, bytes], user: bytes, password: bytes, client: str
    ) -> bool:
        """Return whether the user has this password.

        Raises BusyError if the comparison has to wait for too long. ``client`` is the address of
        the client. An unknown user takes as long as the user with the costliest hash.
        """
        if len(password) > _MAX_PASSWORD_BYTES:
            return False
        hashed = users.get(user)
        if hashed is None:
            cost = max(each.split(b"$")[2] for each in users.values())
            # The result is ignored: the dummy hash has a password, which anybody may know.
            await self._in_thread(client, bcrypt.checkpw, password, b"$2b$" + cost + _DUMMY_HASH)
            return False
        values = repr((user, password, hashed)).encode()
        digest = hashlib.blake2b(values, key=self._key).digest()
        if digest in self._accepted:
            return True
        return await self._in_thread(client, self._compare, password, hashed, digest)

    async def _in_thread(
        self, client: str, compare: Callable[..., bool], *arguments: bytes
    ) -> bool:
        waiting = self._waiting
        if waiting[client] >= _MAX_WAITING_PER_CLIENT or waiting.total() >= _MAX_WAITING:
            raise BusyError
        waiting[client] += 1
        try:
            loop = asyncio.get_running_loop()
            async with asyncio.timeout(_MAX_WAIT_SECONDS):
                return await loop.run_in_executor(self._thread, compare, *arguments)
        except TimeoutError:
            raise BusyError from None
        finally:
            self._waiting -= Counter((client,))

    def _compare(self, password: bytes, hashed: bytes, digest: bytes) -> bool:
        # An earlier request of the queue may have compared the same password.
        if digest in self._accepted:
            return True
        accepted = bcrypt.checkpw(password, hashed)
        if accepted:
            while len(self._accepted) >= _MAX_ACCEPTED:
                del self._accepted[next(iter(self._accepted))]
            self._accepted[digest] = None
        return accepted

"""What stands before the pages: the file must be usable, then the rate limit, then the password."""

import asyncio
import base64
import binascii
import hashlib
import secrets
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import bcrypt
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from exporter.web.live_config import RateLimit, ReloadingWebConfig, WebSettings

_MAX_PASSWORD_BYTES: Final = 72
"""What bcrypt takes; a longer one would be cut by some libraries, and is an error in others."""

_REMEMBERED: Final = 100
_MAX_WAITING: Final = 32
_MAX_OF_ONE: Final = 8
"""Of one address: else one that guesses takes all places, and who has the password gets none."""

_LONGEST_WAIT: Final = 8.0
"""Seconds, less than a scrape takes. What is being compared then is remembered all the same: also
with a cost that takes longer, the second scrape is answered."""

# The one of exporter-toolkit, to be put behind a cost.
_NOBODY: Final = b"$QOauhQNbBCuQDKes6eFzPeMqBSjb7Mr5DUmpZ/VcEd00UAV/LDeSi"

Credentials = tuple[bytes, bytes]


class BusyError(Exception):
    """Too many passwords wait to be compared, or for too long; nothing is known of this one."""


def basic_credentials(authorization: bytes) -> Credentials | None:
    """Return user and password of an Authorization header, None if it has none (RFC 7617)."""
    scheme, _, encoded = authorization.partition(b" ")
    if scheme.lower() != b"basic":
        return None
    try:
        user, colon, password = base64.b64decode(encoded.strip(), validate=True).partition(b":")
    except binascii.Error:
        return None
    return (user, password) if colon else None


class Passwords:
    """Compares passwords with bcrypt hashes.

    A right one is remembered by a keyed hash of user, password and bcrypt hash, so that it ends
    with the bcrypt hash it was compared with. A wrong one is not: nobody can push the right ones
    out by guessing.
    """

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)
        self._right: dict[bytes, None] = {}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="bcrypt")
        self._waiting: Counter[str] = Counter()

    async def accept(
        self, users: Mapping[bytes, bytes], credentials: Credentials, client: str
    ) -> bool:
        """Return whether a user has this password; BusyError when that takes too long.

        ``client`` is the address that asks; each has its share of those who may wait.
        A user whom nobody knows takes as long as one with the costliest hash, and the same steps.
        """
        user, password = credentials
        if len(password) > _MAX_PASSWORD_BYTES:
            return False
        hashed = users.get(user)
        if hashed is None:
            # Neither remembered nor looked up: this hash has a password, and anybody may know it.
            await self._in_thread(client, bcrypt.checkpw, password, _hash_of_nobody(users))
            return False
        digest = self._digest(user, password, hashed)
        if digest in self._right:
            return True
        return await self._in_thread(client, self._compare, password, hashed, digest)

    async def _in_thread(
        self, client: str, compare: Callable[..., bool], *arguments: bytes
    ) -> bool:
        if self._waiting[client] >= _MAX_OF_ONE or self._waiting.total() >= _MAX_WAITING:
            raise BusyError
        self._waiting[client] += 1
        try:
            loop = asyncio.get_running_loop()
            async with asyncio.timeout(_LONGEST_WAIT):
                return await loop.run_in_executor(self._thread, compare, *arguments)
        except TimeoutError:
            raise BusyError from None
        finally:
            self._waiting -= Counter((client,))

    def _compare(self, password: bytes, hashed: bytes, digest: bytes) -> bool:
        """Compare in the thread; of requests sent at once the first may have found it out."""
        if digest in self._right:
            return True
        right = bcrypt.checkpw(password, hashed)
        if right:
            self._remember(digest)
        return right

    def _remember(self, digest: bytes) -> None:
        while len(self._right) >= _REMEMBERED:
            del self._right[next(iter(self._right))]
        self._right[digest] = None

    def _digest(self, *parts: bytes) -> bytes:
        digest = hashlib.blake2b(key=self._key)
        for part in parts:
            digest.update(len(part).to_bytes(8, "big") + part)
        return digest.digest()


def _hash_of_nobody(users: Mapping[bytes, bytes]) -> bytes:
    cost = max(hashed.split(b"$")[2] for hashed in users.values())
    return b"$2b$" + cost + _NOBODY


class TokenBucket:
    """Full at first; a request takes a token, and each interval brings one back."""

    def __init__(self, limit: RateLimit, now: float) -> None:
        self._limit = limit
        self._tokens = float(limit.burst)
        self._counted_at = now

    def take(self, now: float) -> bool:
        """Take a token at ``now`` (monotonic seconds); return whether there was one."""
        gained = (now - self._counted_at) / self._limit.interval
        self._tokens = min(self._tokens + gained, self._limit.burst)
        self._counted_at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


EXEMPT: Final = frozenset({"/-/healthy", "/-/ready"})
_TRUSTED: Final = "trusted"
# Both hold when there are two of it; any other of the agent's own headers is replaced.
_ADDED: Final = b"content-security-policy"


def is_trusted(request: HTTPConnection) -> bool:
    """Return whether who asks may see details: it gave a right password, or none is needed."""
    return bool(getattr(request.state, _TRUSTED, True))


class AuthMiddleware:
    """Applies the web configuration to an application.

    One for all listeners: a request counts once, whichever way it came. ``EXEMPT`` paths need no
    password, are not limited, and are answered as well while the file cannot be used: a supervisor
    would restart the agent for a slip in a file, and it would not come back.
    """

    def __init__(self, app: ASGIApp, live: ReloadingWebConfig) -> None:
        self._app = app
        self._live = live
        self._passwords = Passwords()
        self._bucket: TokenBucket | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or have the application do so."""
        settings = await self._live.settings()
        if settings is not None:
            send = _with_headers(send, settings.headers)
        if scope["path"] in EXEMPT:
            answer = self._trusting(trusted=await self._may_see_details(scope, settings))
        elif settings is None:
            answer = _refusal(500)
        elif not self._within_limit():
            answer = _refusal(429)
        else:
            answer = await self._answer_to(scope, settings)
        await answer(scope, receive, send)

    async def _answer_to(self, scope: Scope, settings: WebSettings) -> ASGIApp:
        try:
            accepted = await self._accepted(scope, settings)
        except BusyError:
            return _refusal(503, {"Retry-After": "1"})
        if accepted:
            return self._trusting(trusted=True)
        return _refusal(401, {"WWW-Authenticate": "Basic"})

    async def _accepted(self, scope: Scope, settings: WebSettings) -> bool:
        if not settings.users:
            return True
        credentials = basic_credentials(_authorization(scope["headers"]))
        if credentials is None:
            return False
        client = scope["client"] or ("",)
        return await self._passwords.accept(settings.users, credentials, client[0])

    async def _may_see_details(self, scope: Scope, settings: WebSettings | None) -> bool:
        if settings is None or not settings.users:
            return settings is not None
        # A password counts as any other request does: else it could be guessed here without limit.
        if not _authorization(scope["headers"]) or not self._within_limit():
            return False
        try:
            return await self._accepted(scope, settings)
        except BusyError:
            return False

    def _within_limit(self) -> bool:
        now, limit = asyncio.get_running_loop().time(), self._live.first.rate_limit
        if limit is None:
            return True
        if self._bucket is None:
            self._bucket = TokenBucket(limit, now)
        return self._bucket.take(now)

    def _trusting(self, *, trusted: bool) -> ASGIApp:
        """Return the application, told whether who asks may see details."""

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            state = {**scope.get("state", {}), _TRUSTED: trusted}
            await self._app({**scope, "state": state}, receive, send)

        return app


def _refusal(status: int, headers: Mapping[str, str] | None = None) -> Response:
    words = {
        401: "Unauthorized",
        429: "Too Many Requests",
        500: "Internal Server Error: the web configuration cannot be used, see the log",
        503: "Service Unavailable: too many passwords wait to be compared",
    }
    return PlainTextResponse(f"{words[status]}\n", status, headers)


def _authorization(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    return next((value for name, value in headers if name == b"authorization"), b"")


def _with_headers(send: Send, headers: Mapping[str, str]) -> Send:
    ours = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()]
    replaced = {name for name, _ in ours} - {_ADDED}

    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            given = [pair for pair in message.get("headers", ()) if pair[0] not in replaced]
            message = {**message, "headers": [*given, *ours]}
        await send(message)

    return send_with_headers

"""What stands before the pages: the file must be usable, then the rate limit, then the password."""

import asyncio
from collections.abc import Iterable, Mapping
from typing import Final

from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from exporter.web.live_settings import LiveSettings
from exporter.web.passwords import BusyError, Passwords, basic_credentials
from exporter.web.rate import TokenBucket
from exporter.web.settings import WebSettings

EXEMPT: Final = frozenset({"/-/healthy", "/-/ready"})
_TRUSTED: Final = "trusted"
# Both hold when there are two of it; any other of the agent's own headers is replaced.
_ADDED: Final = b"content-security-policy"


def is_trusted(request: HTTPConnection) -> bool:
    """Return whether who asks may see details: it gave a right password, or none is needed."""
    return bool(getattr(request.state, _TRUSTED, True))


class Guard:
    """Applies the web configuration to an application.

    One for all listeners: a request counts once, whichever way it came. ``EXEMPT`` paths need no
    password, are not limited, and are answered as well while the file cannot be used: a supervisor
    would restart the agent for a slip in a file, and it would not come back.
    """

    def __init__(self, app: ASGIApp, live: LiveSettings) -> None:
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

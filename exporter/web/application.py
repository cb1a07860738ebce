"""The web application: metrics, health and reload at once, the pages as soon as they are imported.

The pages and their templates take a tenth of the time of a start.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from msgspec import Struct
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from exporter.core.health import Liveness, Readiness
from exporter.core.ownership import AGENT, Item
from exporter.core.view import AccountStatus
from exporter.exposition.page import Page
from exporter.web.cross_site import is_cross_site
from exporter.web.details import may_see_details
from exporter.web.scrape import NO_SNIFF, metrics_endpoint

if TYPE_CHECKING:
    from exporter.web.pages import PagesContext

Reload = Callable[[], Awaitable[list[str]]]
"""Reloads the configuration. Returns why it was refused, or an empty list if it is in force."""

_RELOAD_METHODS: Final = ("POST", "PUT")
_RELOAD_OFF: Final = (
    "Reload over HTTP is disabled: start with --web.enable-lifecycle, or send SIGHUP.\n"
)
_CROSS_SITE: Final = "Refused: a page of another site sent this request.\n"
_RELOAD_USAGE: Final = "Use POST or PUT: curl -X POST http://ADDRESS/-/reload\n"


class WebContext(Struct, frozen=True):
    """What the endpoints read.

    Attributes:
        page: the metrics.
        readiness: returns the current readiness.
        pages: returns what the pages and the JSON API read; called once, in a thread. None for an
            application without them.
        telemetry_path: path of the metrics.
        statuses: returns the newest status of each account.
        reload: reloads the configuration; None if HTTP requests must not do that.
        liveness: returns which services are late.
        owned: returns what this replica owns; None without replicas.
        monotonic: the clock by which data becomes stale, in seconds.
    """

    page: Page
    readiness: Callable[[], Readiness]
    pages: "Callable[[], PagesContext] | None" = None
    telemetry_path: str = "/metrics"
    statuses: Callable[[], Sequence[AccountStatus]] = tuple
    reload: Reload | None = None
    liveness: Callable[[], Liveness] = lambda: Liveness(0)
    monotonic: Callable[[], float] = time.monotonic
    owned: Callable[[], Collection[Item] | None] = lambda: None


class Application:
    """The web application."""

    def __init__(self, context: WebContext) -> None:
        self._context = context
        self._first = _first_routes(context)
        self._first_paths = {route.path for route in self._first}
        self._app = Starlette(routes=self._first)
        self._loading = asyncio.Lock()
        self._is_loaded = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request; the first one for a page waits until the pages are imported."""
        if not self._is_loaded and scope["path"] not in self._first_paths:
            await self.load()
        await self._app(scope, receive, send)

    async def load(self) -> None:
        """Import the pages in a thread, unless that was done."""
        async with self._loading:
            if not self._is_loaded:
                self._app = await asyncio.to_thread(self._complete)
                self._is_loaded = True

    def _complete(self) -> Starlette:
        from exporter.web.site import site  # noqa: PLC0415 - see above

        pages = self._context.pages
        return site(self._first, None if pages is None else pages())


def _first_routes(context: WebContext) -> list[Route]:
    """Return the routes that need no page."""

    async def healthy(request: Request) -> Response:
        liveness = context.liveness()
        late = sorted(liveness.late.items()) if may_see_details(request) else ()
        details = "".join(f"{service}: {seconds:.0f} s late\n" for service, seconds in late)
        return _health_response("healthy", liveness.counts, details, ok=liveness.healthy)

    async def ready(request: Request) -> Response:
        readiness, details = context.readiness(), ""
        counts = f"{readiness.fresh} of {readiness.accounts} accounts have a fresh snapshot"
        if readiness.standby:
            counts = "standby, other replicas poll the accounts"
        if may_see_details(request):
            if readiness.trouble:
                counts += f"; the state cannot be stored: {readiness.trouble}"
            details = _describe_troubled(context.statuses(), context.monotonic())
        return _health_response("ready", counts, details, ok=readiness.ready)

    async def active(_: Request) -> Response:
        owned, counts = context.owned(), "the only agent"
        if owned is not None:
            number = len([each for each in owned if each != AGENT])
            work = ", does the work of one agent" if AGENT in owned else ""
            counts = f"owns {number} accounts and receivers{work}"
        return _health_response("active", counts, "", ok=owned is None or bool(owned))

    metrics = metrics_endpoint(context.page)
    return [
        Route(context.telemetry_path, metrics),
        Route(f"{context.telemetry_path}/", metrics),
        Route("/-/healthy", healthy),
        Route("/-/ready", ready),
        Route("/-/active", active),
        Route("/-/reload", _reload_endpoint(context.reload), methods=["GET", *_RELOAD_METHODS]),
    ]


def _health_response(word: str, counts: str, details: str, *, ok: bool) -> Response:
    status = HTTPStatus.OK if ok else HTTPStatus.SERVICE_UNAVAILABLE
    text = f"cartesia-exporter is {word if ok else f'not {word}'}: {counts}.\n{details}"
    return PlainTextResponse(text, status)


def _describe_troubled(statuses: Sequence[AccountStatus], monotonic: float) -> str:
    """Return a line for each account that is stale or failed its last poll."""
    troubled = [each for each in statuses if not each.up or each.is_stale(monotonic)]
    return "".join(f"{each.account}: {_describe_poll(each, monotonic)}\n" for each in troubled)


def _describe_poll(status: AccountStatus, monotonic: float) -> str:
    """Return the result of the last poll in words, and whether the data is withheld as stale."""
    is_withheld = status.counts and status.is_stale(monotonic)
    note = "; its data is stale and withheld" if is_withheld else ""
    if status.up:
        return f"complete{note}"
    return f"failed: {status.failure.replace('_', ' ')}{note}" if status.failure else "not yet"


def _reload_endpoint(reload: Reload | None) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        if request.method not in _RELOAD_METHODS:
            text = _RELOAD_OFF if reload is None else _RELOAD_USAGE
            allowed = {"Allow": ", ".join(_RELOAD_METHODS)}
            return PlainTextResponse(text, HTTPStatus.METHOD_NOT_ALLOWED, allowed)
        if reload is None:
            return PlainTextResponse(_RELOAD_OFF, HTTPStatus.FORBIDDEN)
        if is_cross_site(request):
            return PlainTextResponse(_CROSS_SITE, HTTPStatus.FORBIDDEN)
        problems = await reload()
        if problems:
            text = "The old configuration stays in force:\n" + "".join(f"  {p}\n" for p in problems)
            return PlainTextResponse(text, HTTPStatus.INTERNAL_SERVER_ERROR, NO_SNIFF)
        return PlainTextResponse("The configuration is in force.\n")

    return endpoint

"""The web application: metrics, health, configuration, reload and the status page."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route

from exporter.core.health import Liveness, Readiness
from exporter.core.view import AccountStatus
from exporter.exposition.page import Page
from exporter.web.auth import may_see_details
from exporter.web.cross_site import is_cross_site
from exporter.web.scrape import NO_SNIFF, metrics_endpoint
from exporter.web.status_pages import SECURITY_HEADERS, describe_poll, status_page

Reload = Callable[[], Awaitable[list[str]]]
"""Reloads the configuration. Returns why it was refused, or an empty list if it is in force."""

_RELOAD_METHODS: Final = ("POST", "PUT")
_RELOAD_OFF: Final = (
    "Reloading over HTTP is off; start with --web.enable-lifecycle, or send the process SIGHUP.\n"
)
_CROSS_SITE: Final = "Refused: a page of another site sent this request.\n"
_RELOAD_USAGE: Final = "This takes a POST or a PUT, as of: curl -X POST http://ADDRESS/-/reload\n"


@dataclass(frozen=True, slots=True)
class WebContext:
    """What the endpoints read.

    Attributes:
        page: the metrics.
        readiness: returns the current readiness.
        telemetry_path: path of the metrics.
        statuses: returns the newest status of each account.
        reload: reloads the configuration; None if HTTP requests must not do that.
        configuration: returns the current configuration as YAML without secrets. It is called for
            each request, in a thread.
        liveness: returns which services are late.
        monotonic: the clock by which data becomes stale, in seconds.
    """

    page: Page
    readiness: Callable[[], Readiness]
    telemetry_path: str = "/metrics"
    statuses: Callable[[], Sequence[AccountStatus]] = tuple
    reload: Reload | None = None
    configuration: Callable[[], str] = str
    liveness: Callable[[], Liveness] = lambda: Liveness(0)
    monotonic: Callable[[], float] = time.monotonic


def application(context: WebContext) -> Starlette:
    """Return the web application."""

    async def healthy(request: Request) -> Response:
        liveness = context.liveness()
        late = sorted(liveness.late.items()) if may_see_details(request) else ()
        details = "".join(f"{service}: {seconds:.0f} s late\n" for service, seconds in late)
        return _health_response("healthy", liveness.counts, details, ok=liveness.healthy)

    async def ready(request: Request) -> Response:
        readiness, details = context.readiness(), ""
        counts = f"{readiness.fresh} of {readiness.accounts} accounts have a fresh snapshot"
        if may_see_details(request):
            if readiness.trouble:
                counts += f"; the state cannot be stored: {readiness.trouble}"
            details = _describe_troubled(context.statuses(), context.monotonic())
        return _health_response("ready", counts, details, ok=readiness.ready)

    async def status(_: Request) -> Response:
        text = status_page(context.statuses(), context.telemetry_path, context.monotonic())
        return HTMLResponse(text, headers=SECURITY_HEADERS)

    async def configuration(_: Request) -> Response:
        headers = {"Cache-Control": "no-store", **SECURITY_HEADERS}
        # A large configuration takes long to serialise and would block the event loop.
        text = await asyncio.to_thread(context.configuration)
        return PlainTextResponse(text, headers=headers)

    metrics = metrics_endpoint(context.page)
    pages = Starlette(
        routes=[
            Route("/", status),
            Route(context.telemetry_path, metrics),
            Route(f"{context.telemetry_path}/", metrics),
            Route("/config", configuration),
            Route("/-/healthy", healthy),
            Route("/-/ready", ready),
            Route("/-/reload", _reload_endpoint(context.reload), methods=["GET", *_RELOAD_METHODS]),
        ]
    )
    # A redirect would lead wherever the Host header says.
    pages.router.redirect_slashes = False
    return pages


def _health_response(word: str, counts: str, details: str, *, ok: bool) -> Response:
    status = HTTPStatus.OK if ok else HTTPStatus.SERVICE_UNAVAILABLE
    text = f"cartesia-exporter is {word if ok else f'not {word}'}: {counts}.\n{details}"
    return PlainTextResponse(text, status)


def _describe_troubled(statuses: Sequence[AccountStatus], monotonic: float) -> str:
    """Return a line for each account that is stale or failed its last poll."""
    troubled = [each for each in statuses if not each.up or each.is_stale(monotonic)]
    return "".join(f"{each.account}: {describe_poll(each, monotonic)}\n" for each in troubled)


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

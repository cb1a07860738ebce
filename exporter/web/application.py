"""The pages: metrics, health, the configuration, and a plain front page that says what this is."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route

from exporter.core.health import Health
from exporter.core.readiness import Readiness
from exporter.core.view import AccountView
from exporter.web.front import HEADERS, front_page
from exporter.web.guard import is_trusted
from exporter.web.health import healthy_text, ready_text, troubles
from exporter.web.lifecycle import METHODS, Reload, reload_endpoint
from exporter.web.metrics import metrics_endpoint
from exporter.web.page import Page

_PRIVATE: Final = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


@dataclass(frozen=True, slots=True)
class Shown:
    """What the pages show.

    Attributes:
        page: the metrics.
        readiness: whether the data can be relied on, now.
        telemetry_path: where the metrics are.
        views: the newest view of each account.
        reload: what reads the configuration again; None where requests can't ask for it.
        configuration: the configuration in force, as YAML without its secrets. It is asked for each
            request, in a thread.
        health: which parts are late, now.
        monotonic: the time, in seconds, by which data grows old.
    """

    page: Page
    readiness: Callable[[], Readiness]
    telemetry_path: str = "/metrics"
    views: Callable[[], Sequence[AccountView]] = tuple
    reload: Reload | None = None
    configuration: Callable[[], str] = str
    health: Callable[[], Health] = lambda: Health(0)
    monotonic: Callable[[], float] = time.monotonic


def application(shown: Shown) -> Starlette:
    """Return the web application."""

    async def healthy(request: Request) -> Response:
        now = shown.health()
        text = healthy_text(now, detailed=is_trusted(request))
        return PlainTextResponse(text, status_code=200 if now.healthy else 503)

    async def ready(request: Request) -> Response:
        now = shown.readiness()
        troubled = troubles(shown.views(), shown.monotonic())
        text = ready_text(now, troubled, detailed=is_trusted(request))
        return PlainTextResponse(text, status_code=200 if now.ready else 503)

    async def front(_: Request) -> Response:
        text = front_page(shown.views(), shown.telemetry_path, shown.monotonic())
        return HTMLResponse(text, headers=HEADERS)

    # Not async: a long one takes long to write, and the loop has to go on meanwhile.
    def configuration(_: Request) -> Response:
        return PlainTextResponse(shown.configuration(), headers=_PRIVATE)

    return Starlette(
        routes=[
            Route("/", front),
            Route(shown.telemetry_path, metrics_endpoint(shown.page)),
            Route("/config", configuration),
            Route("/-/healthy", healthy),
            Route("/-/ready", ready),
            Route("/-/reload", reload_endpoint(shown.reload), methods=["GET", *METHODS]),
        ]
    )

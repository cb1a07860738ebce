"""The pages: metrics, health, the configuration, and a plain front page that says what this is."""

import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route

from exporter.core.health import Liveness, Readiness
from exporter.core.view import AccountStatus
from exporter.exposition.page import Page
from exporter.web.auth import is_trusted
from exporter.web.scrape import metrics_endpoint
from exporter.web.status_pages import HEADERS, front_page, state_of


def healthy_text(now: Liveness, *, detailed: bool) -> str:
    """Return whether the agent itself works; ``detailed`` names the parts that are late."""
    word = "healthy" if now.healthy else "not healthy"
    late = sorted(now.late.items()) if detailed else ()
    lines = (f"{part}: {seconds:.0f} s late\n" for part, seconds in late)
    return f"cartesia-exporter is {word}: {now.counts}.\n{''.join(lines)}"


def ready_text(now: Readiness, troubled: Iterable[str], *, detailed: bool) -> str:
    """Return whether the data can be relied on; ``detailed`` adds why not, and who is troubled."""
    word = "ready" if now.ready else "not ready"
    counts = f"{now.fresh} of {now.accounts} accounts have a fresh snapshot"
    if not detailed:
        return f"cartesia-exporter is {word}: {counts}.\n"
    stored = f"; the state cannot be stored: {now.trouble}" if now.trouble else ""
    lines = "".join(f"{line}\n" for line in troubled)
    return f"cartesia-exporter is {word}: {counts}{stored}.\n{lines}"


def troubles(views: Iterable[AccountStatus], monotonic: float) -> list[str]:
    """Return the accounts that could not be read last or for too long, at a monotonic time."""
    return [
        f"{view.account}: {state_of(view, monotonic)}"
        for view in views
        if not view.up or view.is_stale(monotonic)
    ]


Reload = Callable[[], Awaitable[list[str]]]
"""Reloads; returns every reason why the old configuration stays in force, none if it doesn't."""

METHODS: Final = ("POST", "PUT")

_OFF: Final = (
    "Reloading over HTTP is off; start with --web.enable-lifecycle, or send the process SIGHUP.\n"
)
_HOW: Final = "This takes a POST or a PUT, as of: curl -X POST http://ADDRESS/-/reload\n"


def reload_endpoint(reload: Reload | None) -> Callable[[Request], Awaitable[Response]]:
    """Return what answers; ``reload`` is None when requests may not ask for one."""

    async def answer(request: Request) -> Response:
        if request.method not in METHODS:
            text = _OFF if reload is None else _HOW
            return PlainTextResponse(text, 405, {"Allow": ", ".join(METHODS)})
        if reload is None:
            return PlainTextResponse(_OFF, 403)
        problems = await reload()
        if problems:
            text = "The old configuration stays in force:\n" + "".join(f"  {p}\n" for p in problems)
            return PlainTextResponse(text, 500, {"X-Content-Type-Options": "nosniff"})
        return PlainTextResponse("The configuration is in force.\n")

    return answer


_PRIVATE: Final = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


@dataclass(frozen=True, slots=True)
class WebContext:
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
    views: Callable[[], Sequence[AccountStatus]] = tuple
    reload: Reload | None = None
    configuration: Callable[[], str] = str
    health: Callable[[], Liveness] = lambda: Liveness(0)
    monotonic: Callable[[], float] = time.monotonic


def application(shown: WebContext) -> Starlette:
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

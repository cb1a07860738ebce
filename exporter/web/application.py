"""The pages: metrics, health, and a plain front page that says what this is."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics import exposition as openmetrics
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route

from exporter.core.exposition import AccountView
from exporter.core.readiness import Readiness
from exporter.web.front import HEADERS, front_page

_TEXT: Final = generate_latest, "text/plain; version=0.0.4; charset=utf-8"
_OPENMETRICS: Final = (
    openmetrics.generate_latest,
    "application/openmetrics-text; version=1.0.0; charset=utf-8",
)


@dataclass(frozen=True, slots=True)
class Shown:
    """What the pages show, under which path the metrics are, and the newest view per account."""

    registry: CollectorRegistry
    readiness: Callable[[], Readiness]
    telemetry_path: str = "/metrics"
    views: Callable[[], Sequence[AccountView]] = tuple


def application(shown: Shown) -> Starlette:
    """Return the web application."""

    async def metrics(request: Request) -> Response:
        accept = ",".join(request.headers.getlist("accept"))
        encode, content_type = _OPENMETRICS if _wants_openmetrics(accept) else _TEXT
        body = await run_in_threadpool(encode, shown.registry)
        return Response(body, headers={"Content-Type": content_type})

    async def healthy(_: Request) -> Response:
        return PlainTextResponse("cartesia-exporter is healthy.\n")

    async def ready(_: Request) -> Response:
        now = shown.readiness()
        counts = f"{now.fresh} of {now.accounts} accounts have a fresh snapshot"
        if now.ready:
            return PlainTextResponse(f"cartesia-exporter is ready: {counts}.\n")
        stored = f"; the state cannot be stored: {now.trouble}" if now.trouble else ""
        text = f"cartesia-exporter is not ready: {counts}{stored}.\n"
        return PlainTextResponse(text, status_code=503)

    async def front(_: Request) -> Response:
        return HTMLResponse(front_page(shown.views(), shown.telemetry_path), headers=HEADERS)

    return Starlette(
        routes=[
            Route("/", front),
            Route(shown.telemetry_path, metrics),
            Route("/-/healthy", healthy),
            Route("/-/ready", ready),
        ]
    )


_MEDIA_TYPE: Final = "application/openmetrics-text"
_VERSIONS: Final = ("", "1.0.0")
_REFUSED: Final = re.compile(r"0(\.0*)?")  # RFC 9110, 12.4.2: "not acceptable"


def _wants_openmetrics(accept: str) -> bool:
    """Return whether a scraper takes OpenMetrics 1.0.

    The library's own choice answers some headers with an exception, and others with a version that
    it does not speak.
    """
    for offer in accept.lower().split(","):
        media_type, *parameters = (part.strip() for part in offer.split(";"))
        values = dict(parameter.split("=", 1) for parameter in parameters if "=" in parameter)
        if media_type != _MEDIA_TYPE or _REFUSED.fullmatch(values.get("q", "")):
            continue
        if values.get("version", "").strip('"') in _VERSIONS:
            return True
    return False

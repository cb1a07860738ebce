"""The answer to a scrape: parts that are ready, joined; it renders nothing."""

import re
from collections.abc import Awaitable, Callable, Iterator
from typing import Final, Literal

from starlette.requests import Request
from starlette.responses import Response

from exporter.exposition.gzip import Body
from exporter.exposition.page import Page

TEXT: Final = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS: Final = "application/openmetrics-text; version=1.0.0; charset=utf-8"
OPENMETRICS_0: Final = "application/openmetrics-text; version=0.0.1; charset=utf-8"
"""What Prometheus asked for before there was a 1.0.0; no different for what is served here."""

Encoding = Literal["gzip", "identity"]

# In this order when a scraper likes two the same; it names OpenMetrics only if it speaks it.
_OFFERS: Final = (
    (OPENMETRICS, "application/openmetrics-text", ("1.0.0", "")),
    (OPENMETRICS_0, "application/openmetrics-text", ("0.0.1",)),
    (TEXT, "text/plain", ("0.0.4", "")),
)
_WILDCARDS: Final = ("text/*", "*/*")
_QUALITY: Final = re.compile(r"0(\.\d{0,3})?|1(\.0{0,3})?")


def content_type(accept: str) -> str:
    """Return the type that a scraper likes best, by its header Accept; the text format at worst."""
    best, choice = 0.0, TEXT
    ranges = list(_parts(accept))
    for offered, media_type, versions in _OFFERS:
        liked = max(
            (q for name, version, q in ranges if name == media_type and version in versions),
            default=None,
        )
        if liked is None and offered == TEXT:
            liked = next((q for each in _WILDCARDS for name, _, q in ranges if name == each), 0.0)
        if liked is not None and liked > best:
            best, choice = liked, offered
    return choice


def encoding(accept_encoding: str) -> Encoding:
    """Return gzip if the scraper takes it and does not like to have the page as it is better."""
    liked = {name: q for name, _, q in _parts(accept_encoding)}
    gzip = liked.get("gzip", liked.get("x-gzip", liked.get("*", 0.0)))
    return "gzip" if gzip > 0 and gzip >= liked.get("identity", 0.0) else "identity"


def _parts(header: str) -> Iterator[tuple[str, str, float]]:
    """Yield name, version and quality of each part; one with an odd quality is no part."""
    for part in header.lower().split(","):
        name, *parameters = (each.strip() for each in part.split(";"))
        pairs = (parameter.partition("=") for parameter in parameters)
        values = {key.strip(): value.strip().strip('"') for key, _, value in pairs}
        quality = values.get("q", "1")
        if name and _QUALITY.fullmatch(quality):
            yield name, values.get("version", ""), float(quality)


_FILTER = "name[]"


def metrics_endpoint(page: Page) -> Callable[[Request], Awaitable[Response]]:
    """Return what answers a scrape of ``page``.

    ``?name[]=…``, as often as needed, asks for the samples or families of these names alone. That
    is rendered for the one request.
    """

    async def metrics(request: Request) -> Response:
        kind = content_type(",".join(request.headers.getlist("accept")))
        coding = encoding(",".join(request.headers.getlist("accept-encoding")))
        names = request.query_params.getlist(_FILTER)
        bodies = await (page.only(frozenset(names)) if names else page.newest())
        body = bodies.text if kind == TEXT else bodies.openmetrics
        return _answer(body, kind, coding)

    return metrics


def _answer(body: Body, kind: str, coding: Encoding) -> Response:
    headers = {
        "Content-Type": kind,
        "Vary": "Accept, Accept-Encoding",
        # A browser would take an odd character in a name for a sign of a binary, and download it.
        "X-Content-Type-Options": "nosniff",
    }
    if coding == "gzip":
        headers["Content-Encoding"] = coding
    return Response(b"".join(body.gzipped if coding == "gzip" else body.plain), headers=headers)

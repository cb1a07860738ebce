"""The metrics endpoint: content negotiation, and the page that is kept ready."""

import re
from collections.abc import Awaitable, Callable, Iterator
from typing import Final, Literal

from starlette.requests import Request
from starlette.responses import Response

from exporter.exposition.page import Page

TEXT: Final = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS: Final = "application/openmetrics-text; version=1.0.0; charset=utf-8"
OPENMETRICS_0: Final = "application/openmetrics-text; version=0.0.1; charset=utf-8"
"""Older versions of Prometheus ask for this; the page is the same as in 1.0.0."""

Encoding = Literal["gzip", "identity"]

# In order of our preference: a scraper names OpenMetrics only if it supports it.
_OFFERS: Final = (
    (OPENMETRICS, "application/openmetrics-text", ("1.0.0", "")),
    (OPENMETRICS_0, "application/openmetrics-text", ("0.0.1",)),
    (TEXT, "text/plain", ("0.0.4", "")),
)
_WILDCARDS: Final = ("text/*", "*/*")
_QUALITY: Final = re.compile(r"0(\.\d{0,3})?|1(\.0{0,3})?")


def metrics_endpoint(page: Page) -> Callable[[Request], Awaitable[Response]]:
    """Return the endpoint that answers scrapes with ``page``.

    Repeated parameters ``?name[]=…`` select samples or families by name. Such a page is rendered
    for the request.
    """

    async def metrics(request: Request) -> Response:
        content_type = negotiate_content_type(",".join(request.headers.getlist("accept")))
        encoding = negotiate_encoding(",".join(request.headers.getlist("accept-encoding")))
        names = request.query_params.getlist("name[]")
        rendered = await (page.only(frozenset(names)) if names else page.newest())
        body = rendered.text if content_type == TEXT else rendered.openmetrics
        headers = {
            "Content-Type": content_type,
            "Vary": "Accept, Accept-Encoding",
            # Without it, a browser takes an odd character for binary data and downloads the page.
            "X-Content-Type-Options": "nosniff",
        }
        if encoding == "gzip":
            return Response(b"".join(body.gzipped), headers={**headers, "Content-Encoding": "gzip"})
        return Response(b"".join(body.plain), headers=headers)

    return metrics


def negotiate_content_type(accept: str) -> str:
    """Return the content type that an Accept header prefers; the text format if it names none."""
    best, choice = 0.0, TEXT
    ranges = list(_parse_ranges(accept))
    for offer, media_type, versions in _OFFERS:
        quality = max(
            (q for name, version, q in ranges if name == media_type and version in versions),
            default=None,
        )
        if quality is None and offer == TEXT:
            quality = next((q for each in _WILDCARDS for name, _, q in ranges if name == each), 0.0)
        if quality is not None and quality > best:
            best, choice = quality, offer
    return choice


def negotiate_encoding(accept_encoding: str) -> Encoding:
    """Return gzip if an Accept-Encoding header accepts it and does not prefer identity."""
    qualities = {name: q for name, _, q in _parse_ranges(accept_encoding)}
    gzip = qualities.get("gzip", qualities.get("x-gzip", qualities.get("*", 0.0)))
    return "gzip" if gzip > 0 and gzip >= qualities.get("identity", 0.0) else "identity"


def _parse_ranges(header: str) -> Iterator[tuple[str, str, float]]:
    """Yield name, version and quality of each item of a header. Skip invalid qualities."""
    for item in header.lower().split(","):
        name, *parameters = (each.strip() for each in item.split(";"))
        pairs = (parameter.partition("=") for parameter in parameters)
        values = {key.strip(): value.strip().strip('"') for key, _, value in pairs}
        quality = values.get("q", "1")
        if name and _QUALITY.fullmatch(quality):
            yield name, values.get("version", ""), float(quality)

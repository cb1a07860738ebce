"""The answer to a scrape: parts that are ready, joined; it renders nothing."""

from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response

from exporter.core.gzip_member import Body
from exporter.web.negotiation import TEXT, Encoding, content_type, encoding
from exporter.web.page import Page

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

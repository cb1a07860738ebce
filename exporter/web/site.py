"""All endpoints as one application: imports the pages, the JSON API and their templates."""

from collections.abc import Sequence
from http import HTTPStatus

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute

from exporter.web.api import Api
from exporter.web.forms import Forms
from exporter.web.pages import Pages, PagesContext, error_page, query_error
from exporter.web.query import QueryError
from exporter.web.scrape import NO_SNIFF


def site(first: Sequence[BaseRoute], context: PagesContext | None) -> Starlette:
    """Return an application with the routes ``first`` and, if there is a context, all pages."""
    routes = list(first)
    if context is not None:
        for part in (Pages(context), Forms(context), Api(context)):
            routes += part.routes()
    handlers = {QueryError: query_error, HTTPStatus.NOT_FOUND: _not_found}
    app = Starlette(routes=routes, exception_handlers=handlers)
    # A redirect would lead wherever the Host header says.
    app.router.redirect_slashes = False
    return app


async def _not_found(request: Request, _: Exception) -> Response:
    text = f"There is no {request.url.path}."
    if "text/html" in request.headers.get("accept", ""):
        return error_page(HTTPStatus.NOT_FOUND, "Not found", text)
    return PlainTextResponse(f"{text}\n", HTTPStatus.NOT_FOUND, NO_SNIFF)

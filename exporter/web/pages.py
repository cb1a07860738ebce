"""The pages: rendered from the store, and answered with 304 while nothing changed."""

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from datetime import timedelta
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import quote, urlencode

from msgspec import Struct
from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from exporter.core.model import STATUSES
from exporter.core.text import cut
from exporter.core.view import AccountStatus
from exporter.store.errors import StoreError
from exporter.store.event_lists import count_failures
from exporter.store.pages import AmbiguousCursorError, UnknownCursorError
from exporter.store.reader import BusyError, Reader
from exporter.web.actions import Actions
from exporter.web.lists import fine_tunes_page, notifications_page
from exporter.web.overview import overview
from exporter.web.query import parse
from exporter.web.requests import id_of, user_of
from exporter.web.scrape import NO_SNIFF
from exporter.web.stories import story, story_page
from exporter.web.strip import RANGES
from exporter.web.templating import ASSETS, ICON, icon, read_asset, render
from exporter.web.view import View, ViewSettings

SECURITY_HEADERS: Final = {
    # Second defence behind escaping: only our own files are loaded, and nothing inline.
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "same-origin",
    **NO_SNIFF,
}

_CACHE: Final = {"Cache-Control": "private, no-cache", "Vary": "Authorization, Accept"}
_ASSET_CACHE: Final = {"Cache-Control": "public, max-age=31536000, immutable"}

_KEPT_PAGES: Final = 16
"""Rendered pages that are kept for other readers of the same."""

_LONGEST_KEPT: Final = 512 * 1024

_LONGEST_NUMBER: Final = 9

FINE_TUNES_QUERY: Final = frozenset(
    {"account", "status", "model_id", "dataset", "q", "since", "sort", "starting_after"}
    | {"after_account"}
)
NOTIFICATIONS_QUERY: Final = frozenset(
    {"account", "status", "q", "since", "receiver", "state", "type", "starting_after", "added"}
)


class NotFoundError(Exception):
    """There is no such page; the text says what was looked for."""


class PagesContext(Struct, frozen=True):
    """What the pages read.

    ``settings``, ``statuses`` and ``configuration`` return what is current: the settings, the
    account statuses, and the configuration as YAML without secrets. ``now`` is Unix time,
    ``monotonic`` the clock by which data becomes stale, both in seconds. ``actions`` is None
    unless requests may change deliveries.
    """

    reader: Reader
    settings: Callable[[], ViewSettings]
    statuses: Callable[[], Sequence[AccountStatus]]
    configuration: Callable[[], str]
    now: Callable[[], float]
    monotonic: Callable[[], float]
    telemetry_path: str = "/metrics"
    actions: Actions | None = None

    def view(self, connection: Connection) -> View:
        """Return what there is to show now. Call it in the reader's thread."""
        now, monotonic = self.now(), self.monotonic()
        return View(connection, self.settings(), self.statuses(), now, monotonic)

    def trust_key(self) -> Hashable:
        """Return a value that changes when the state of trust does, and every minute.

        Without a commit, failures still leave the last hour and the last day.
        """
        monotonic, settings, now = self.monotonic(), self.settings(), self.now()
        overdue = now - settings.interval - settings.timeout
        states = tuple(
            (
                each.account,
                each.up,
                each.polled_at,
                each.succeeded_at,
                each.failure,
                each.counts is None,
                each.next_poll_at,
                each.is_stale(monotonic),
                0 < each.next_poll_at < overdue,
            )
            for each in self.statuses()
        )
        return settings, states, now // 60


Content = Callable[[View], tuple[str, dict[str, Any]]]
"""Returns the name and the variables of a template."""


class Pages:
    """Endpoints of the pages."""

    def __init__(self, context: PagesContext) -> None:
        self._context = context
        self._kept: OrderedDict[str, bytes] = OrderedDict()

    def routes(self) -> list[BaseRoute]:
        """Return the routes of all pages and static files."""
        return [
            Route("/", self.overview),
            Route("/fine-tunes", self.fine_tunes),
            Route("/fine-tunes/{account}/{id:text}", self.fine_tune),
            Route("/fine-tunes/{account}/", self.fine_tune),
            Route("/notifications", self.notifications),
            Route("/config", self.configuration),
            Route(f"/static/{ICON}", _icon),
            *(Route(f"/static/{name}", _asset(name)) for name in ASSETS),
        ]

    async def overview(self, request: Request) -> Response:
        """Answer with what failed, who was notified, and whether the data can be trusted."""
        key = request.query_params.get("range", "7d")
        key = key if key in RANGES else "7d"
        every = request.query_params.get("failures") == "all"
        return await self._page(
            request, lambda view: ("overview.html", overview(view, key, every_failure=every))
        )

    async def fine_tunes(self, request: Request) -> Response:
        """Answer with a list of fine-tunes."""
        query = parse(request.query_params, FINE_TUNES_QUERY)
        return await self._page(
            request, lambda view: ("fine_tunes.html", fine_tunes_page(view, query))
        )

    async def fine_tune(self, request: Request) -> Response:
        """Answer with the story of one fine-tune."""
        account, fine_tune_id = request.path_params["account"], id_of(request)

        def content(view: View) -> tuple[str, dict[str, Any]]:
            found = story(view, account, fine_tune_id)
            if found is None:
                raise NotFoundError(f"account {account} has no fine-tune {fine_tune_id}")
            return "fine_tune.html", story_page(view, found)

        return await self._page(request, content)

    async def notifications(self, request: Request) -> Response:
        """Answer with the receivers and the deliveries."""
        query = parse(request.query_params, NOTIFICATIONS_QUERY)
        return await self._page(
            request, lambda view: ("notifications.html", notifications_page(view, query))
        )

    async def configuration(self, request: Request) -> Response:
        """Answer with the configuration: a page for a browser, else plain text."""
        if "text/html" not in request.headers.get("accept", ""):
            text = await asyncio.to_thread(self._context.configuration)
            return PlainTextResponse(text, headers={"Cache-Control": "no-store", **NO_SNIFF})
        base = str(request.base_url).rstrip("/")
        text = await asyncio.to_thread(self._context.configuration)
        return await self._page(
            request, lambda _: ("config.html", {"configuration": text, "base": base}), text, base
        )

    async def _page(self, request: Request, content: Content, *parts: Hashable) -> Response:
        """Answer with a page, with 304 if the client has it, or with an error.

        ``parts`` are what ``content`` depends on beside the store and the state of trust.
        """
        context, user = self._context, user_of(request)
        csrf = "" if context.actions is None else context.actions.token(user)
        try:
            version = await context.reader.version()
            etag = etag_of(request, version, context.trust_key(), csrf, *parts)
            headers = {"ETag": etag, **_CACHE, **SECURITY_HEADERS}
            if etag in request.headers.get("if-none-match", ""):
                return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
            body = self._kept.get(etag)
            if body is None:
                body = await context.reader.read(self._render, request, content, csrf)
                self._keep(etag, body)
        except (UnknownCursorError, AmbiguousCursorError) as error:
            return error_page(HTTPStatus.BAD_REQUEST, "No such page", str(error))
        except NotFoundError as error:
            return error_page(HTTPStatus.NOT_FOUND, "No such fine-tune", str(error))
        except BusyError as error:
            return error_page(
                HTTPStatus.SERVICE_UNAVAILABLE, "Too busy", str(error), {"Retry-After": "5"}
            )
        except StoreError as error:
            return error_page(
                HTTPStatus.SERVICE_UNAVAILABLE, "The state cannot be read", str(error)
            )
        return Response(body, media_type="text/html", headers=headers)

    def _render(
        self, connection: Connection, request: Request, content: Content, csrf: str
    ) -> bytes:
        view = self._context.view(connection)
        name, variables = content(view)
        names = [each.name for each in view.settings.accounts]
        day = (view.now - timedelta(days=1)).timestamp()
        current = f"/{request.scope['path'].split('/')[1]}"
        shared = {
            "trust": view.trust,
            "current": current,
            "api": _api_url(request),
            "interval": view.settings.interval,
            "retention": view.settings.retention,
            "telemetry_path": self._context.telemetry_path,
            "brief": False,
            "csrf": csrf,
            "user": user_of(request),
            "statuses": STATUSES,
        }
        if "failures" not in variables:
            shared["failures"] = count_failures(connection, names, day)
        return render(name, view.now, **shared | variables).encode()

    def _keep(self, etag: str, body: bytes) -> None:
        if len(body) <= _LONGEST_KEPT:
            self._kept[etag] = body
            while len(self._kept) > _KEPT_PAGES:
                self._kept.popitem(last=False)


def etag_of(request: Request, *parts: Hashable) -> str:
    """Return the ETag of an answer that depends on the URL and on ``parts``."""
    # Not request.url: an id with "%23" and one with "#" have the same there.
    text = repr((request.scope["path"], request.scope["query_string"], *parts))
    return f'"{hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]}"'


def _api_url(request: Request) -> str:
    path = quote(request.scope["raw_path"], safe="/%")
    if path == "/":
        return "/api/v1/status"
    query = urlencode([each for each in request.query_params.multi_items() if each[0] != "added"])
    name = {"/notifications": "/deliveries", "/config": "/status"}.get(path, path)
    return f"/api/v1{name}{f'?{query}' if query else ''}"


def error_page(
    status: HTTPStatus, title: str, message: str, headers: Mapping[str, str] | None = None
) -> Response:
    """Return a page that says what went wrong and what to do."""
    body = render("error.html", None, title=title, message=cut(message))  # type: ignore[arg-type]
    return Response(
        body,
        status,
        {"Cache-Control": "no-store", **SECURITY_HEADERS, **(headers or {})},
        media_type="text/html",
    )


async def query_error(_: Request, error: Exception) -> Response:
    """Answer a request with an invalid query."""
    return error_page(HTTPStatus.BAD_REQUEST, "The filter is not valid", str(error))


def _asset(name: str) -> Callable[[Request], Response]:
    body, content_type = read_asset(name), ASSETS[name]

    def endpoint(_: Request) -> Response:
        return Response(body, headers={"Content-Type": content_type, **_ASSET_CACHE, **NO_SNIFF})

    return endpoint


def _icon(request: Request) -> Response:
    text = request.query_params.get("failed", "")[:_LONGEST_NUMBER]
    failures = int(text) if text.isascii() and text.isdigit() else 0
    headers = {**_ASSET_CACHE, **SECURITY_HEADERS}
    return Response(icon(failures), media_type="image/svg+xml", headers=headers)

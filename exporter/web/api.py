"""The JSON API below ``/api/v1``."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime, timedelta
from http import HTTPStatus
from typing import Any, Final, Generic, TypeVar

import msgspec
from msgspec import Struct
from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from exporter import __version__
from exporter.core.records import (
    AccountRecord,
    DeliveryRecord,
    EventRecord,
    FineTuneRecord,
    FineTuneStory,
    ReceiverRecord,
    Time,
)
from exporter.store.errors import StoreError
from exporter.store.event_lists import count_failures
from exporter.store.pages import AmbiguousCursorError, Page, UnknownCursorError
from exporter.store.reader import BusyError
from exporter.web.actions import ActionError
from exporter.web.lists import event_filter, fine_tune_filter
from exporter.web.pages import NotFoundError, PagesContext, etag_of
from exporter.web.query import Query, QueryError, parse
from exporter.web.requests import id_of, is_cross_site, user_of
from exporter.web.scrape import NO_SNIFF
from exporter.web.stories import story
from exporter.web.view import View

PREFIX: Final = "/api/v1"

_Element = TypeVar("_Element")

_HEADERS: Final = {"Cache-Control": "private, no-cache", "Vary": "Authorization", **NO_SNIFF}
_JSON: Final = "application/json"

PAGING: Final = frozenset({"limit", "starting_after"})
FINE_TUNES_PARAMETERS: Final = PAGING | {
    "account", "status", "model_id", "dataset", "q", "since", "sort", "after_account",
}  # fmt: skip
EVENTS_PARAMETERS: Final = PAGING | {
    "account", "fine_tune", "status", "q", "since", "receiver", "state", "type",
}  # fmt: skip


class ListAnswer(Struct, Generic[_Element], frozen=True, kw_only=True):
    """A page of a list. ``has_more`` is whether more elements follow the last one.

    ``as_of`` is the time of the oldest data in it, ``complete`` whether all of it is current.
    """

    data: list[_Element]
    has_more: bool
    as_of: Time | None
    complete: bool


class StatusAnswer(Struct, frozen=True, kw_only=True):
    """Whether the data can be trusted, and what failed lately."""

    version: str
    as_of: Time | None
    complete: bool
    failures_1h: int
    failures_24h: int
    accounts: list[AccountRecord]
    receivers: list[ReceiverRecord]


class StoryAnswer(Struct, frozen=True, kw_only=True):
    """A fine-tune with its story, how old the data is, and whether it is current."""

    data: FineTuneStory
    as_of: Time | None
    complete: bool


class ChangeAnswer(Struct, frozen=True, kw_only=True):
    """The number of deliveries that were changed."""

    changed: int


class ErrorAnswer(Struct, frozen=True, kw_only=True):
    """What went wrong and what to do."""

    title: str
    message: str


class Api:
    """Endpoints of the JSON API."""

    def __init__(self, context: PagesContext) -> None:
        self._context = context

    def routes(self) -> list[BaseRoute]:
        """Return the routes of the API."""
        endpoints = {
            "/status": (frozenset[str](), _status),
            "/fine-tunes/{account}/{id:text}": (frozenset[str](), _story),
            "/fine-tunes/{account}/": (frozenset({"fine_tune"}), _story),
            **{f"/{kind}": each for kind, each in LISTS.items()},
        }
        return [
            *(Route(PREFIX + path, self._get(*each)) for path, each in endpoints.items()),
            Route(f"{PREFIX}/openapi.json", _openapi),
            Route(PREFIX + "/deliveries/{id:text}/{action}", self._change, methods=["POST"]),
            Route(PREFIX + "/{rest:text}", _unknown),
        ]

    def _get(
        self, allowed: frozenset[str], answer: Callable[..., Any]
    ) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            try:
                query = parse(request.query_params, allowed)
                return await self._read(request, query, answer)
            except (QueryError, AmbiguousCursorError) as error:
                return error_answer(HTTPStatus.BAD_REQUEST, "Invalid request", str(error))
            except (NotFoundError, UnknownCursorError) as error:
                return error_answer(HTTPStatus.NOT_FOUND, "Not found", str(error))
            except BusyError as error:
                refusal = error_answer(HTTPStatus.SERVICE_UNAVAILABLE, "Too busy", str(error))
                refusal.headers["Retry-After"] = "5"
                return refusal
            except StoreError as error:
                return error_answer(
                    HTTPStatus.SERVICE_UNAVAILABLE, "The state cannot be read", str(error)
                )

        return endpoint

    async def _read(self, request: Request, query: Query, answer: Callable[..., Any]) -> Response:
        context = self._context
        version = await context.reader.version()
        etag = etag_of(request, version, context.trust_key())
        headers = {"ETag": etag, **_HEADERS}
        if etag in request.headers.get("if-none-match", ""):
            return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)

        def build(connection: Connection) -> bytes:
            view = context.view(connection)
            path = {**request.path_params, "id": id_of(request)}
            return msgspec.json.encode(answer(view, query, path))

        body = await context.reader.read(build)
        return Response(body, media_type=_JSON, headers=headers)

    async def _change(self, request: Request) -> Response:
        actions, action = self._context.actions, request.path_params["action"]
        if action not in {"retry", "discard"}:
            return await _unknown(request)
        if actions is None:
            text = "Start the agent with --web.enable-lifecycle to allow changes."
            return error_answer(HTTPStatus.FORBIDDEN, "Changes are off", text)
        # A form of another site cannot send this content type without asking first.
        if request.headers.get("content-type", "").partition(";")[0].strip() != _JSON:
            text = f"Send Content-Type: {_JSON}."
            return error_answer(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "Wrong content type", text)
        if is_cross_site(request):
            text = "The request came from another site."
            return error_answer(HTTPStatus.FORBIDDEN, "Refused", text)
        try:
            changed = await actions.act(action, request.path_params["id"], user_of(request))
        except ActionError as error:
            return error_answer(HTTPStatus.CONFLICT, "Nothing was changed", str(error))
        answer = ChangeAnswer(changed=sum(changed.values()))
        return Response(msgspec.json.encode(answer), media_type=_JSON, headers=_HEADERS)


def error_answer(status: HTTPStatus, title: str, message: str) -> Response:
    """Return an error as JSON."""
    body = msgspec.json.encode(ErrorAnswer(title=title, message=message))
    headers = {"Cache-Control": "no-store", **NO_SNIFF}
    return Response(body, status, headers, media_type=_JSON)


def _status(view: View, _query: Query, _path: dict[str, str]) -> StatusAnswer:
    names = [each.name for each in view.settings.accounts]
    counted = {
        hours: count_failures(
            view.connection, names, (view.now - timedelta(hours=hours)).timestamp()
        )
        for hours in (1, 24)
    }
    return StatusAnswer(
        version=__version__,
        as_of=_as_of(view.accounts),
        complete=view.is_complete(view.accounts),
        failures_1h=counted[1],
        failures_24h=counted[24],
        accounts=view.accounts,
        receivers=view.receivers,
    )


def _accounts(view: View, query: Query, _path: dict[str, str]) -> ListAnswer[AccountRecord]:
    return _answer(view, query, _sliced(view.accounts, query))


def _receivers(view: View, query: Query, _path: dict[str, str]) -> ListAnswer[ReceiverRecord]:
    return _answer(view, query, _sliced(view.receivers, query))


def _fine_tunes(view: View, query: Query, _path: dict[str, str]) -> ListAnswer[FineTuneRecord]:
    criteria = fine_tune_filter(query, view.now.timestamp())
    return _answer(view, query, view.fine_tunes.page(criteria, query.page, query.sort))


def _events(view: View, query: Query, _path: dict[str, str]) -> ListAnswer[EventRecord]:
    criteria = event_filter(query, view.now.timestamp())
    return _answer(view, query, view.events.page(criteria, query.page))


def _deliveries(view: View, query: Query, _path: dict[str, str]) -> ListAnswer[DeliveryRecord]:
    criteria = event_filter(query, view.now.timestamp())
    return _answer(view, query, view.events.deliveries(criteria, query.page))


def _story(view: View, _query: Query, path: dict[str, str]) -> StoryAnswer:
    found = story(view, path["account"], path["id"])
    if found is None:
        raise NotFoundError(f"account {path['account']} has no fine-tune {path['id']}")
    accounts = [each for each in view.accounts if each.id == path["account"]]
    return StoryAnswer(data=found, as_of=_as_of(accounts), complete=view.is_complete(accounts))


def _answer(view: View, query: Query, page: Page[_Element]) -> ListAnswer[_Element]:
    accounts = [each for each in view.accounts if query.account in {None, each.id}]
    return ListAnswer(
        data=page.elements,
        has_more=page.has_more,
        as_of=_as_of(accounts),
        complete=view.is_complete(accounts),
    )


def _as_of(accounts: Sequence[AccountRecord]) -> datetime | None:
    times = [each.as_of for each in accounts]
    known = [each for each in times if each is not None]
    return min(known) if known and len(known) == len(times) else None


_Record = TypeVar("_Record", AccountRecord, ReceiverRecord)


def _sliced(records: Sequence[_Record], query: Query) -> Page[_Record]:
    first = 0
    if query.starting_after is not None:
        ids = [each.id for each in records]
        if query.starting_after not in ids:
            raise UnknownCursorError(f"there is no {query.starting_after}")
        first = ids.index(query.starting_after) + 1
    end = first + query.limit
    return Page(list(records[first:end]), end < len(records))


async def _unknown(request: Request) -> Response:
    text = f"There is no {request.url.path}; {PREFIX}/openapi.json describes the API."
    return error_answer(HTTPStatus.NOT_FOUND, "Not found", text)


async def _openapi(_: Request) -> Response:
    from exporter.web.openapi import document  # noqa: PLC0415 - only this request needs it

    return Response(msgspec.json.encode(document()), media_type=_JSON, headers=_HEADERS)


LISTS: Final[Mapping[str, tuple[frozenset[str], Callable[[View, Query, Any], Any]]]] = {
    "accounts": (PAGING, _accounts),
    "fine-tunes": (FINE_TUNES_PARAMETERS, _fine_tunes),
    "events": (EVENTS_PARAMETERS, _events),
    "deliveries": (EVENTS_PARAMETERS, _deliveries),
    "receivers": (PAGING, _receivers),
}
"""Parameters and answer of each list, by the last part of its path."""

LIST_TYPES: Final[Mapping[str, Any]] = {
    "accounts": ListAnswer[AccountRecord],
    "fine-tunes": ListAnswer[FineTuneRecord],
    "events": ListAnswer[EventRecord],
    "deliveries": ListAnswer[DeliveryRecord],
    "receivers": ListAnswer[ReceiverRecord],
}

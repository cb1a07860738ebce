"""The JSON API below ``/api/v1``."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime, timedelta
from http import HTTPStatus
from typing import Any, Final, TypeVar

import msgspec
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
    MuteRecord,
    ReceiverRecord,
)
from exporter.store.errors import StoreError
from exporter.store.event_lists import count_failures
from exporter.store.pages import AmbiguousCursorError, Page, UnknownCursorError
from exporter.store.reader import BusyError
from exporter.web.answers import (
    HEADERS,
    JSON,
    ListAnswer,
    StatusAnswer,
    StoryAnswer,
    error_answer,
    json_answer,
)
from exporter.web.api_changes import Changes
from exporter.web.lists import event_filter, fine_tune_filter
from exporter.web.pages import NotFoundError, PagesContext, etag_of
from exporter.web.query import Query, QueryError, parse
from exporter.web.requests import id_of
from exporter.web.stories import story
from exporter.web.view import View

PREFIX: Final = "/api/v1"

_Element = TypeVar("_Element")

PAGING: Final = frozenset({"limit", "starting_after"})
FINE_TUNES_PARAMETERS: Final = PAGING | {
    "account", "status", "model_id", "dataset", "q", "since", "sort", "after_account",
}  # fmt: skip
EVENTS_PARAMETERS: Final = PAGING | {
    "account", "fine_tune", "status", "q", "since", "receiver", "state", "type",
}  # fmt: skip


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
            *Changes(self._context).routes(PREFIX),
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
        headers = {"ETag": etag, **HEADERS}
        if etag in request.headers.get("if-none-match", ""):
            return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)

        def build(connection: Connection) -> bytes:
            view = context.view(connection)
            path = {**request.path_params, "id": id_of(request)}
            return msgspec.json.encode(answer(view, query, path))

        body = await context.reader.read(build)
        return Response(body, media_type=JSON, headers=headers)


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
        replicas=view.replicas,
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


def _mutes(view: View, query: Query, _path: dict[str, str]) -> ListAnswer[MuteRecord]:
    found = [each for each in view.mutes if query.active in {None, each.active}]
    return _answer(view, query, _sliced(found, query))


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


_Record = TypeVar("_Record", AccountRecord, ReceiverRecord, MuteRecord)


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

    return json_answer(document())


LISTS: Final[Mapping[str, tuple[frozenset[str], Callable[[View, Query, Any], Any]]]] = {
    "accounts": (PAGING, _accounts),
    "fine-tunes": (FINE_TUNES_PARAMETERS, _fine_tunes),
    "events": (EVENTS_PARAMETERS, _events),
    "deliveries": (EVENTS_PARAMETERS, _deliveries),
    "receivers": (PAGING, _receivers),
    "mutes": (PAGING | {"active"}, _mutes),
}
"""Parameters and answer of each list, by the last part of its path."""

LIST_TYPES: Final[Mapping[str, Any]] = {
    "accounts": ListAnswer[AccountRecord],
    "fine-tunes": ListAnswer[FineTuneRecord],
    "events": ListAnswer[EventRecord],
    "deliveries": ListAnswer[DeliveryRecord],
    "receivers": ListAnswer[ReceiverRecord],
    "mutes": ListAnswer[MuteRecord],
}

"""Answers of the JSON API."""

from http import HTTPStatus
from typing import Any, Final, Generic, TypeVar

import msgspec
from msgspec import Struct
from starlette.responses import Response

from exporter.core.records import (
    AccountRecord,
    FineTuneStory,
    MuteRecord,
    ReceiverRecord,
    ReplicaRecord,
    Time,
)
from exporter.web.scrape import NO_SNIFF

HEADERS: Final = {"Cache-Control": "private, no-cache", "Vary": "Authorization", **NO_SNIFF}
JSON: Final = "application/json"

_Element = TypeVar("_Element")


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
    replicas: list[ReplicaRecord]


class StoryAnswer(Struct, frozen=True, kw_only=True):
    """A fine-tune with its story, how old the data is, and whether it is current."""

    data: FineTuneStory
    as_of: Time | None
    complete: bool


class ChangeAnswer(Struct, frozen=True, kw_only=True):
    """The number of deliveries that were changed."""

    changed: int


class MuteAnswer(Struct, frozen=True, kw_only=True):
    """A mute that was added or ended, and how many of the present fine-tunes it matches."""

    mute: MuteRecord
    matches: int


class ErrorAnswer(Struct, frozen=True, kw_only=True):
    """What went wrong and what to do."""

    title: str
    message: str


def json_answer(content: Any) -> Response:
    """Return an answer with a content."""
    return Response(msgspec.json.encode(content), media_type=JSON, headers=HEADERS)


def error_answer(status: HTTPStatus, title: str, message: str) -> Response:
    """Return an error as JSON."""
    body = msgspec.json.encode(ErrorAnswer(title=title, message=message))
    headers = {"Cache-Control": "no-store", **NO_SNIFF}
    return Response(body, status, headers, media_type=JSON)

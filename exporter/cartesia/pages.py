"""Decodes list pages and error answers of the API, and caches decoded pages.

Source: the OpenAPI document of ``GET /fine-tunes/``, and the API conventions, which allow the API
to add response fields and enum values.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from types import MappingProxyType
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from exporter.cartesia.errors import CartesiaError
from exporter.core.model import UNKNOWN, FineTune, TrackedFineTune
from exporter.core.text import one_line, scalar_text, shared


class PageError(CartesiaError):
    """A body is not a page as the API documents it; the text says why."""

    def __init__(self, problem: str) -> None:
        super().__init__("protocol", f"an odd page: {problem}")


@dataclass(frozen=True, slots=True)
class Page:
    """One page of the list, in the API's order; ``size`` is the length of its JSON in bytes."""

    fine_tunes: list[FineTune]
    has_more: bool
    size: int = field(default=0, compare=False)


class _Item(msgspec.Struct):
    id: str
    name: str | None = None
    description: str | None = None
    language: str | None = None
    model_id: str | None = None
    dataset: str | None = None
    status: str | None = None


class _Body(msgspec.Struct):
    data: list[_Item]
    has_more: bool


_decoder: Final = msgspec.json.Decoder(_Body)


def read_page(body: bytes) -> Page:
    """Return the page in ``body``; raise PageError if it is not one.

    ``data`` must be a list of objects with an ``id`` each, ``has_more`` a boolean. A missing or
    null text is empty; a missing, null or empty status or model_id is ``unknown``.
    """
    try:
        body.decode()  # msgspec accepts invalid UTF-8 in the names of unknown fields
        decoded = _decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        # msgspec also refuses lone surrogates and types that do not matter; json decides.
        return _read_leniently(body)
    return _page(decoded.data, body, has_more=decoded.has_more)


def _page(items: Iterable[_Item], body: bytes, *, has_more: bool) -> Page:
    fine_tunes = [_fine_tune(item, position) for position, item in enumerate(items)]
    return Page(fine_tunes, has_more, len(body))


def _fine_tune(item: _Item, position: int) -> FineTune:
    if not item.id:
        raise PageError(f"item {position} has no id")
    return FineTune(
        item.id,
        item.name or "",
        item.description or "",
        shared(item.language or ""),
        shared(item.model_id or UNKNOWN),
        shared(item.dataset or ""),
        shared(item.status or UNKNOWN),
    )


def _read_leniently(body: bytes) -> Page:
    try:
        raw = json.loads(body)
    except (ValueError, RecursionError):
        raise PageError("the body is not JSON") from None
    if not isinstance(raw, dict):
        raise PageError("the body is not a JSON object")
    data, has_more = raw.get("data"), raw.get("has_more")
    if not isinstance(data, list):
        raise PageError("`data` is not a list")
    if not isinstance(has_more, bool):
        raise PageError("`has_more` is missing or not a boolean")
    items = (_lenient_item(item, position) for position, item in enumerate(data))
    return _page(items, body, has_more=has_more)


def _lenient_item(raw: Any, position: int) -> _Item:
    if not isinstance(raw, dict) or raw.get("id") is None:
        raise PageError(f"item {position} has no id")
    if not isinstance(raw["id"], str):
        raise PageError(f"item {position} has an id that is not a text")
    return _Item(**{name: _text(raw.get(name)) for name in _Item.__struct_fields__})


def _text(value: Any) -> str:
    """Return a string as it is, null as an empty one, and anything else as JSON."""
    if value is None:
        return ""
    try:
        return scalar_text(value if isinstance(value, str) else json.dumps(value))
    except RecursionError:
        raise PageError("a text is nested too deeply") from None


@dataclass(frozen=True, slots=True)
class Problem:
    """The body of an error answer, since API version 2026-03-01. Missing fields are empty."""

    title: str = ""
    message: str = ""
    request_id: str = ""


_MAX_TEXT: Final = 200
_MASKED_KEY: Final = "sk_car_…"
_ANY_KEY: Final = re.compile(r"sk_car_\S*")


def read_problem(body: bytes, key: str) -> Problem:
    """Return the fields of an error answer, each as one line of at most 200 characters.

    The ``key``, and any other key that the API quotes, is masked: the texts are logged.
    """
    try:
        raw = json.loads(body)
    except (ValueError, RecursionError):
        return Problem()
    if not isinstance(raw, dict):
        return Problem()
    texts = {name: raw.get(name) for name in Problem.__slots__}
    return Problem(**{n: _mask_keys(t, key) for n, t in texts.items() if isinstance(t, str)})


def _mask_keys(text: str, key: str) -> str:
    # Masked before the text is cut, or a part of the key could stay; and masked again after
    # one_line has removed invisible characters, which could have hidden the key.
    line = one_line(text.replace(key, _MASKED_KEY), _MAX_TEXT)
    return _ANY_KEY.sub(_MASKED_KEY, line.replace(key, _MASKED_KEY))


NONE_TRACKED: Final[Mapping[str, TrackedFineTune]] = MappingProxyType({})


class PageCache:
    """Page cache keyed by the digest of the response body.

    It holds the pages of the last complete listing. So a page that did not change is neither
    decoded again nor held twice.
    """

    def __init__(self) -> None:
        self._pages: dict[bytes, Page] = {}
        self._new_pages: dict[bytes, Page] = {}
        self._tracked = NONE_TRACKED

    def clear(self) -> None:
        """Drop all pages: each will be decoded again."""
        self._pages = {}

    def start(self, tracked: Mapping[str, TrackedFineTune] = NONE_TRACKED) -> None:
        """Start a listing, and drop the pages of one that was not completed.

        Decoded fine-tunes that equal the ``tracked`` one of their id are replaced by that object.
        """
        self._new_pages, self._tracked = {}, tracked

    def read(self, body: bytes) -> Page:
        """Return the page in ``body``; raise PageError if it is not one. Thread-safe."""
        digest = sha256(body).digest()
        page = self._new_pages.get(digest) or self._pages.get(digest)
        if page is None:
            page = read_page(body)
            page.fine_tunes[:] = map(self._reuse_tracked, page.fine_tunes)
        self._new_pages[digest] = page
        return page

    def _reuse_tracked(self, fine_tune: FineTune) -> FineTune:
        tracked = self._tracked.get(fine_tune.id)
        if tracked is None:
            return fine_tune
        before = tracked.fine_tune
        # The id is also a key of other mappings: without replacing it, it would be held twice.
        return before if before == fine_tune else replace(fine_tune, id=before.id)

    def commit(self) -> None:
        """Complete a listing: its pages replace those of the one before."""
        self._pages, self._new_pages, self._tracked = self._new_pages, {}, NONE_TRACKED

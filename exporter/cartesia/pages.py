"""Decodes list pages and error answers of the API, and caches decoded pages.

Source: the OpenAPI document of ``GET /fine-tunes/``, and the API conventions, which allow the API
to add response fields and enum values.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from types import MappingProxyType
from typing import Any, Final

import msgspec
from msgspec import Struct
from msgspec.structs import asdict, replace

from exporter.cartesia.errors import CartesiaError
from exporter.core.model import UNKNOWN, FineTune, TrackedFineTune
from exporter.core.text import cut_bytes, one_line, shared, storable_text


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


_MAX_INDEXED_BYTES: Final = 2_000
"""PostgreSQL refuses a row whose indexed columns have more than 2,700 bytes."""

_decoder: Final = msgspec.json.Decoder(_Body)


def read_page(body: bytes) -> Page:
    """Return the page in ``body``; raise CartesiaError if it is not one.

    ``data`` must be a list of objects with an ``id`` each, ``has_more`` a boolean; null ``data``
    is the empty list on the last page. A missing or null text is empty; a missing, null or empty
    status or model_id is ``unknown``. What a text cannot contain is U+FFFD in it: bytes that are
    not UTF-8, raw control characters, U+0000, lone surrogates. An id with any of these is refused.
    Models, languages, datasets and statuses are cut at 2,000 bytes.
    """
    try:
        body.decode()  # msgspec accepts invalid UTF-8 in the names of unknown fields
        decoded = _decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        # msgspec also refuses lone surrogates and types that do not matter; json decides.
        decoded = _read_leniently(body)
    else:
        if b"\\u0000" in body:
            decoded = _storable(decoded)
    fine_tunes = []
    for position, item in enumerate(decoded.data):
        if not item.id:
            raise _odd_page(f"item {position} has no id")
        fine_tune = FineTune(
            item.id,
            item.name or "",
            item.description or "",
            _indexed(item.language or ""),
            _indexed(item.model_id or UNKNOWN),
            _indexed(item.dataset or ""),
            _indexed(item.status or UNKNOWN),
        )
        fine_tunes.append(fine_tune)
    return Page(fine_tunes, decoded.has_more, len(body))


def _indexed(text: str) -> str:
    return shared(cut_bytes(text, _MAX_INDEXED_BYTES))


def _odd_page(problem: str) -> CartesiaError:
    return CartesiaError("protocol", f"invalid page: {problem}")


def _storable(body: _Body) -> _Body:
    return _Body(
        [_item(asdict(item), position) for position, item in enumerate(body.data)], body.has_more
    )


def _read_leniently(body: bytes) -> _Body:
    """Return the page in ``body``; a text field of another JSON type becomes its JSON."""
    try:
        raw = _load_json(body)
    except (ValueError, RecursionError):
        raise _odd_page("the body is not JSON") from None
    if not isinstance(raw, dict):
        raise _odd_page("the body is not a JSON object")
    data, has_more = raw.get("data"), raw.get("has_more")
    if "data" in raw and data is None and has_more is False:
        data = []
    if not isinstance(data, list):
        raise _odd_page("`data` is not a list")
    if not isinstance(has_more, bool):
        raise _odd_page("`has_more` is missing or not a boolean")
    return _Body([_item(item, position) for position, item in enumerate(data)], has_more)


def _load_json(body: bytes) -> Any:
    """Return the JSON value in ``body``, with lone surrogates for what strings cannot contain.

    Raises ValueError, RecursionError.
    """
    encoding = json.detect_encoding(body)
    # Characters of their own, which storable_text replaces and an id must not have.
    errors = "surrogateescape" if encoding.startswith("utf-8") else "replace"
    text = body.decode(encoding, errors)
    return json.loads(_JSON_STRING.sub(lambda string: string[0].translate(_RAW_CONTROLS), text))


_JSON_STRING: Final = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_RAW_CONTROLS: Final = {code: 0xDC00 + code for code in range(0x20)}


def _item(raw: Any, position: int) -> _Item:
    if not isinstance(raw, dict) or raw.get("id") in (None, ""):
        raise _odd_page(f"item {position} has no id")
    if not isinstance(raw["id"], str):
        raise _odd_page(f"item {position} has an id that is not a text")
    if storable_text(raw["id"]) != raw["id"]:
        raise _odd_page(f"item {position} has an id with characters that are not text")
    values = {name: raw.get(name) for name in _Item.__struct_fields__}
    # One damaged bit in the name of a field could change the status of a fine-tune.
    if values.keys() - raw.keys() and any(storable_text(name) != name for name in raw):
        raise _odd_page(f"item {position} has a field whose name is not text")
    try:
        texts = {
            name: storable_text(value if isinstance(value, str) else json.dumps(value))
            for name, value in values.items()
            if value is not None
        }
    except RecursionError:
        raise _odd_page("a text is nested too deeply") from None
    return _Item(**texts)


class Problem(Struct, frozen=True):
    """The body of an error answer, since API version 2026-03-01. Missing fields are empty.

    ``is_complete``: it has the fields that every error of the API has, so the API wrote it.
    """

    title: str = ""
    message: str = ""
    request_id: str = ""
    is_complete: bool = False


_MASKED_KEY: Final = "sk_car_…"
_ANY_KEY: Final = re.compile(r"sk_car_\S*")


def read_problem(body: bytes, key: str) -> Problem:
    """Return the fields of an error answer, each as one line of at most 200 characters.

    The ``key``, and any other key that the API quotes, is masked: the texts are logged.
    """
    try:
        raw = _load_json(body)
    except (ValueError, RecursionError):
        return Problem()
    if not isinstance(raw, dict):
        return Problem()
    texts = {}
    for name in ("title", "message", "request_id"):
        if isinstance(text := raw.get(name), str):
            # Masked before the text is cut, or a part of the key could stay; and masked again after
            # one_line has removed invisible characters, which could have hidden the key.
            line = one_line(text.replace(key, _MASKED_KEY), 200)
            texts[name] = _ANY_KEY.sub(_MASKED_KEY, line.replace(key, _MASKED_KEY))
    return Problem(**texts, is_complete={"title", "message"} <= texts.keys())


NONE_TRACKED: Final[Mapping[str, TrackedFineTune]] = MappingProxyType({})


class PageCache:
    """Page cache keyed by the digest of the body; holds the pages of the last complete listing."""

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
        """Return the page in ``body``; raise CartesiaError if it is not one. Thread-safe."""
        digest = sha256(body).digest()
        page = self._new_pages.get(digest) or self._pages.get(digest)
        if page is None:
            page = read_page(body)
            for position, fine_tune in enumerate(page.fine_tunes):
                if tracked := self._tracked.get(fine_tune.id):
                    before = tracked.fine_tune
                    same = before == fine_tune
                    # The id is also a key of other mappings: else it would be held twice.
                    page.fine_tunes[position] = before if same else replace(fine_tune, id=before.id)
        self._new_pages[digest] = page
        return page

    def commit(self) -> None:
        """Complete a listing: its pages replace those of the one before."""
        self._pages, self._new_pages, self._tracked = self._new_pages, {}, NONE_TRACKED

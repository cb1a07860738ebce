"""The API's JSON, read tolerantly: what may be missing is filled in, what may not is refused.

Source: the OpenAPI document of ``GET /fine-tunes/``, and the API conventions, which reserve the
right to add response fields and enum values.
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
    """A page is not what the API promises; the text says what is odd about it."""

    def __init__(self, oddity: str) -> None:
        super().__init__("protocol", f"an odd page: {oddity}")


@dataclass(frozen=True, slots=True)
class Page:
    """One page of the list, in the API's order; ``size`` is that of its JSON, in bytes."""

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
    """Return the page in ``body``; raise PageError when it is not one.

    ``data`` must be a list of objects with an ``id`` each, ``has_more`` a boolean. Null or missing
    text is empty, a null, missing or empty status or model_id is ``unknown``.
    """
    try:
        body.decode()  # msgspec takes any bytes for the name of a field that it does not know
        decoded = _decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        # Strict about lone surrogates, and about types that do not matter; json tells apart.
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
    """Return text as it is, null as empty, and anything else as the JSON it came in."""
    if value is None:
        return ""
    try:
        return scalar_text(value if isinstance(value, str) else json.dumps(value))
    except RecursionError:
        raise PageError("a text is nested too deeply") from None


@dataclass(frozen=True, slots=True)
class Problem:
    """The body of an error answer (API errors, from version 2026-03-01 on); empty where absent."""

    title: str = ""
    message: str = ""
    request_id: str = ""


_LONGEST: Final = 200
_MASK: Final = "sk_car_…"
_KEYS: Final = re.compile(r"sk_car_\S*")


def read_problem(body: bytes, key: str) -> Problem:
    """Return what an error answer says of itself, each text one line of at most 200 characters.

    An API that quotes the ``key`` it refuses, or another one, must not put it into the log.
    """
    try:
        raw = json.loads(body)
    except (ValueError, RecursionError):
        return Problem()
    if not isinstance(raw, dict):
        return Problem()
    texts = {name: raw.get(name) for name in Problem.__slots__}
    return Problem(**{n: _quotable(t, key) for n, t in texts.items() if isinstance(t, str)})


def _quotable(text: str, key: str) -> str:
    # Before it is cut, so that no part of the key stays; and after, when nothing hides in it.
    shown = one_line(text.replace(key, _MASK), _LONGEST)
    return _KEYS.sub(_MASK, shown.replace(key, _MASK))


NOTHING: Final[Mapping[str, TrackedFineTune]] = MappingProxyType({})


class PageCache:
    """Keeps the pages of the last complete reading by the digest of their bytes, not the bytes."""

    def __init__(self) -> None:
        self._pages: dict[bytes, Page] = {}
        self._taken: dict[bytes, Page] = {}
        self._known = NOTHING

    def clear(self) -> None:
        """Forget the pages: each will be decoded again."""
        self._pages = {}

    def begin(self, known: Mapping[str, TrackedFineTune] = NOTHING) -> None:
        """Begin a reading; what the last one took without being complete is forgotten.

        A page with a fine-tune that equals a ``known`` one will hold the same object.
        """
        self._taken, self._known = {}, known

    def read(self, body: bytes) -> Page:
        """Return the page in ``body``; raise PageError when it is not one. Safe in any thread."""
        digest = sha256(body).digest()
        page = self._taken.get(digest) or self._pages.get(digest) or self._shared(read_page(body))
        self._taken[digest] = page
        return page

    def _shared(self, page: Page) -> Page:
        items = [_shared(read, self._known.get(read.id)) for read in page.fine_tunes]
        return Page(items, page.has_more, page.size)

    def keep(self) -> None:
        """End a complete reading: its pages replace those of the last one."""
        self._pages, self._taken, self._known = self._taken, {}, NOTHING


def _shared(read: FineTune, known: TrackedFineTune | None) -> FineTune:
    if known is None:
        return read
    before = known.fine_tune
    # The id too: it is a key elsewhere, and would be held there as it was read first.
    return before if before == read else replace(read, id=before.id)

"""Every page of the list, or CartesiaError: a partial listing would look like a mass deletion."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from exporter.cartesia.errors import CartesiaError
from exporter.cartesia.wire import Page
from exporter.core.model import FineTune

Fetch = Callable[[str | None], Awaitable[Page]]
"""Given the cursor (None at the head of the list), return the page behind it."""

OnPage = Callable[[int, int], None]
"""Told after each page how many pages and how many fine-tunes have been read."""

_CURSOR_GONE: Final = frozenset({400, 404})
_MOST_FINE_TUNES: Final = 1_000_000
_MOST_BYTES: Final = 512 * 1024 * 1024
_TOO_LARGE: Final = (
    f"the list is larger than {_MOST_FINE_TUNES:,} fine-tunes or {_MOST_BYTES // 2**20} MiB"
)


@dataclass(frozen=True, slots=True)
class Listing:
    """A complete list, keyed by id in the API's order, and how many pages it took."""

    fine_tunes: dict[str, FineTune]
    pages: int


async def list_all(fetch: Fetch, on_page: OnPage | None = None) -> Listing:
    """Follow the cursors to the end of the list.

    An id that comes twice counts once, the later item wins. When the API no longer knows a cursor
    (its fine-tune was deleted meanwhile: 400 or 404), the listing begins again, once. Raises
    CartesiaError when any page fails or is odd; a part of the list is never returned.
    """
    try:
        return await _walk(fetch, on_page)
    except _CursorGoneError:
        pass
    try:
        return await _walk(fetch, on_page)
    except _CursorGoneError as again:
        raise again.error from None


class _CursorGoneError(Exception):
    def __init__(self, error: CartesiaError) -> None:
        super().__init__(str(error))
        self.error = error


async def _walk(fetch: Fetch, on_page: OnPage | None) -> Listing:
    found: dict[str, FineTune] = {}
    used: set[str] = set()
    cursor: str | None = None
    pages = size = 0
    while True:
        pages += 1
        page = await _fetch_page(fetch, cursor, pages)
        found.update((fine_tune.id, fine_tune) for fine_tune in page.fine_tunes)
        size += page.size
        if len(found) > _MOST_FINE_TUNES or size > _MOST_BYTES:
            raise CartesiaError("too_large", _TOO_LARGE)
        if on_page is not None:
            on_page(pages, len(found))
        if not page.has_more:
            return Listing(found, pages)
        cursor = _next_cursor(page, used, pages)
        used.add(cursor)


async def _fetch_page(fetch: Fetch, cursor: str | None, number: int) -> Page:
    try:
        return await fetch(cursor)
    except CartesiaError as error:
        if cursor is None:
            raise
        if error.status in _CURSOR_GONE:
            raise _CursorGoneError(error.on_page(number)) from None
        raise error.on_page(number) from None


def _next_cursor(page: Page, used: set[str], number: int) -> str:
    if not page.fine_tunes:
        raise CartesiaError("protocol", f"page {number} is empty but says that more follow")
    cursor = page.fine_tunes[-1].id
    if cursor in used:
        raise CartesiaError("protocol", f"page {number} ends where an earlier page ended")
    return cursor

"""Every page of the list, or CartesiaError: a partial listing would look like a mass deletion."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from exporter.cartesia.errors import CartesiaError
from exporter.cartesia.wire import Page, PageError, read_page
from exporter.core.model import FineTune

Fetch = Callable[[str | None], Awaitable[bytes]]
"""Given the cursor (None at the head of the list), return the body of the page behind it."""

OnPage = Callable[[int, int], None]
"""Told after each page how many pages and how many fine-tunes have been read."""

_CURSOR_GONE: Final = frozenset({400, 404})


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
    pages = 0
    while True:
        page = await _fetch_page(fetch, cursor, pages + 1)
        pages += 1
        found.update((fine_tune.id, fine_tune) for fine_tune in page.fine_tunes)
        if on_page is not None:
            on_page(pages, len(found))
        if not page.has_more:
            return Listing(found, pages)
        cursor = _next_cursor(page, used, pages)
        used.add(cursor)


async def _fetch_page(fetch: Fetch, cursor: str | None, number: int) -> Page:
    try:
        return read_page(await fetch(cursor))
    except PageError as error:
        raise CartesiaError("protocol", f"page {number} is odd: {error}") from None
    except CartesiaError as error:
        if cursor is not None and error.status in _CURSOR_GONE:
            raise _CursorGoneError(error) from None
        raise


def _next_cursor(page: Page, used: set[str], number: int) -> str:
    if not page.fine_tunes:
        raise CartesiaError("protocol", f"page {number} is empty but says that more follow")
    cursor = page.fine_tunes[-1].id
    if cursor in used:
        raise CartesiaError("protocol", f"page {number} ends where an earlier page ended")
    return cursor

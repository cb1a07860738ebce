"""Reads the list of fine-tunes: all its pages, or CartesiaError.

A partial list would look like a mass deletion.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import Final

from exporter.cartesia.errors import CartesiaError
from exporter.cartesia.pages import Page
from exporter.cartesia.prefetch import FetchPage, Prefetcher, StalledError
from exporter.core.model import FineTune

OnPage = Callable[[int, int], None]
"""Called after each page with the numbers of pages and of fine-tunes read so far."""

STALL_TIMEOUT_SECONDS: Final = 5.0
"""Time that a page may wait for a free connection: longer than a slow page takes."""

_CURSOR_GONE: Final = frozenset({400, 404})
_MAX_FINE_TUNES: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Listing:
    """A complete list by id, in the API's order, and the number of its pages.

    ``cursors`` are where the pages start, for the prefetch of the next listing.
    ``key_fingerprint`` identifies the API key that read all pages; empty without a store.
    """

    fine_tunes: dict[str, FineTune]
    pages: int
    cursors: tuple[str, ...] = ()
    key_fingerprint: str = ""


class Lister:
    """Reads complete lists; prefetches pages by the ``cursors`` of the listing before."""

    def __init__(self) -> None:
        self.cursors: tuple[str, ...] = ()
        self._succeeded = True

    async def read(
        self,
        connections: Sequence[FetchPage],
        on_page: OnPage | None = None,
        stall_timeout: float = STALL_TIMEOUT_SECONDS,
    ) -> Listing:
        """Follow the cursors to the end of the list and prefetch pages over all connections.

        If an id occurs twice, the later item counts. If the API no longer knows a cursor that is
        needed (400 or 404: its fine-tune was deleted meanwhile), the listing starts again, once. If
        a page that is needed gets no connection for ``stall_timeout`` seconds, because pages that
        are not needed hang on all of them, the rest is read page by page over the first one. Raises
        CartesiaError if any page that is needed fails or is malformed.
        """
        reader, error = await self._read_pages(connections, on_page, stall_timeout)
        if error is not None and reader.cursor is not None and error.status in _CURSOR_GONE:
            self.cursors = tuple(cursor for cursor in self.cursors if cursor != reader.cursor)
            reader, error = await self._read_pages(connections, on_page, stall_timeout)
        self._succeeded = error is None
        if error is not None:
            raise error
        self.cursors = reader.cursors()
        return Listing(reader.fine_tunes, reader.pages, self.cursors)

    async def _read_pages(
        self, connections: Sequence[FetchPage], on_page: OnPage | None, stall_timeout: float
    ) -> tuple["ListingReader", CartesiaError | None]:
        """Return the reader, and the error that stopped it before the end of the list."""
        reader = ListingReader(self.cursors)
        # A single connection would fetch pages before the reader knows whether it needs them.
        cursors = (None, *self.cursors) if len(connections) > 1 else ()
        prefetcher = Prefetcher(cursors, stall_timeout, all_at_once=self._succeeded)
        used = connections[: max(1, len(cursors))]
        error = await _follow_cursors(reader, prefetcher, used, on_page)
        if error is None and not reader.ended:
            prefetcher = Prefetcher((), stall_timeout)
            error = await _follow_cursors(reader, prefetcher, connections[:1], on_page)
        if error is not None and len(reader.followed) > len(self.cursors):
            # The next poll can prefetch a list that is too long to be read page by page in one.
            self.cursors = tuple(reader.followed)
        return reader, error


async def _follow_cursors(
    reader: "ListingReader",
    prefetcher: Prefetcher,
    connections: Sequence[FetchPage],
    on_page: OnPage | None,
) -> CartesiaError | None:
    """Read to the end of the list, or until the prefetcher stalls."""
    async with prefetcher.run(connections):
        try:
            while not reader.ended:
                reader.add(await _next_page(reader, prefetcher))
                if len(reader.fine_tunes) > _MAX_FINE_TUNES:
                    detail = f"the list is larger than {_MAX_FINE_TUNES:,} fine-tunes"
                    return CartesiaError("too_large", detail)
                if on_page is not None:
                    on_page(reader.pages, len(reader.fine_tunes))
        except CartesiaError as error:
            return error
        except StalledError:
            return None
    return None


async def _next_page(reader: "ListingReader", prefetcher: Prefetcher) -> Page:
    try:
        return await prefetcher.page(reader.cursor)
    except CartesiaError as error:
        detail = str(error) if reader.cursor is None else f"page {reader.pages + 1}: {error}"
        raise replace(error, detail=detail) from None


class ListingReader:
    """Follows the list's cursors, independent of when pages are fetched.

    ``cursor`` is that of the page that is needed next; None is the first page. ``pages`` is the
    number of pages added. ``followed`` has the cursors used so far, each with the length of the
    page that ended there. A page that contains one of the ``known_cursors`` (of earlier listings)
    counts only up to it, so that the pages that follow are those that were prefetched.
    """

    def __init__(self, known_cursors: Iterable[str] = ()) -> None:
        self.cursor: str | None = None
        self.ended = False
        self.pages = 0
        self.fine_tunes: dict[str, FineTune] = {}
        self.followed: dict[str, int] = {}
        self._known_cursors = frozenset(known_cursors)

    def add(self, page: Page) -> None:
        """Add the page after ``cursor``; if an id occurs twice, the later item counts.

        Raises CartesiaError for a page that says that more follow, but has no new cursor.
        """
        self.pages += 1
        items = page.fine_tunes
        if page.has_more:
            # A cursor that was followed already has moved in the list and does not count.
            ends = (
                number
                for number in range(len(items), 0, -1)
                if (cursor := items[number - 1].id) in self._known_cursors
                and cursor not in self.followed
            )
            items = items[: next(ends, len(items))]
        self.fine_tunes.update((item.id, item) for item in items)
        if not page.has_more:
            self.ended = True
            return
        if not items:
            raise CartesiaError("protocol", f"page {self.pages} is empty but says that more follow")
        cursor = items[-1].id
        if cursor in self.followed:
            raise CartesiaError("protocol", f"page {self.pages} ends where an earlier page ended")
        self.cursor = cursor
        self.followed[cursor] = len(page.fine_tunes)

    def cursors(self) -> tuple[str, ...]:
        """Return the cursors for the next listing: those followed, unless fewer pages suffice.

        What has to be divided anew is divided from its end, including what is new at the head. So
        the other pages keep their cursors from poll to poll while fine-tunes are added at the head.
        """
        ids, followed = list(self.fine_tunes), list(self.followed)
        # The shortest page seen, because a gap between cursors that is longer than a page costs a
        # second request. A page shorter than half of the longest is an exception and ignored.
        lengths = self.followed.values() or [1]
        length = max(min(lengths), max(lengths) // 2, 1)
        if self.pages > ceil(len(ids) / length):
            return _divide(ids, length)
        reused = (n for n, cursor in enumerate(followed) if cursor in self._known_cursors)
        first_reused = next(reused, 0)
        head = ids[: ids.index(followed[first_reused]) + 1] if first_reused else []
        return (*_divide(head, length), *followed[first_reused:])


def _divide(ids: Sequence[str], length: int) -> tuple[str, ...]:
    """Return the cursors of all pages but the first, if every page but the first is full."""
    full = range((len(ids) - 1) // length, 0, -1)
    return tuple(ids[-1 - length * number] for number in full)

"""Reads the list of fine-tunes: all its pages, or CartesiaError.

A partial list would look like a mass deletion.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from math import ceil, inf
from typing import Final

from msgspec import Struct
from structlog.typing import FilteringBoundLogger

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

_MAX_REORDERED_POLLS: Final = 2
_PAGE_BY_PAGE_POLLS: Final = 1000
"""Polls that are read page by page after ``_MAX_REORDERED_POLLS``. It is not for good: the cause
may have been one bulk change."""


class Listing(Struct, frozen=True):
    """A complete list by id, in the API's order, and the number of its pages.

    ``cursors`` are where the pages start, for the prefetch of the next listing.
    ``key_fingerprint`` identifies the API key that read all pages; empty without a store.
    """

    fine_tunes: dict[str, FineTune]
    pages: int
    cursors: tuple[str, ...] = ()
    key_fingerprint: str = ""


class ReadSettings(Struct, frozen=True):
    """How one list is read. ``deadline`` is in monotonic seconds.

    If a page that is needed gets no connection for ``stall_timeout`` seconds, because pages that
    are not needed hang on all of them, the rest is read page by page over the first one.
    """

    deadline: float = inf
    stall_timeout: float = STALL_TIMEOUT_SECONDS
    on_page: OnPage | None = None


class Lister:
    """Reads complete lists; prefetches pages by the ``cursors`` of the listing before.

    ``monotonic`` returns seconds. ``log`` says when lists are read page by page from now on.
    """

    def __init__(self, monotonic: Callable[[], float], log: FilteringBoundLogger) -> None:
        self.cursors: tuple[str, ...] = ()
        self._monotonic = monotonic
        self._log = log
        self._succeeded = True
        self._reordered_polls = 0
        self._page_by_page_polls = 0

    async def read(
        self,
        connections: Sequence[FetchPage],
        settings: ReadSettings = ReadSettings(),  # noqa: B008 - it is frozen
    ) -> Listing:
        """Follow the cursors to the end of the list and prefetch pages over all connections.

        If an id occurs twice, the later item counts. If the API no longer knows a cursor that is
        needed (400 or 404: its fine-tune was deleted meanwhile), the listing starts again, once. If
        a prefetched page contradicts the result, the list changed its order and is read once more
        page by page. Raises CartesiaError if any page that is needed fails or is malformed, or if
        there is no time for the second reading.
        """
        started, prefetch = self._monotonic(), self._page_by_page_polls == 0
        try:
            reader = await self._read_pages(connections, settings, prefetch=prefetch)
            if reader.is_contradicted:
                reader = await self._read_again(connections, settings, started)
        except CartesiaError as error:
            self._succeeded = False
            if error.reason == "timeout":
                self._page_by_page_polls = 0  # only prefetched pages may be fast enough
            raise
        self._succeeded = True
        self._reordered_polls = 0
        self._page_by_page_polls = max(self._page_by_page_polls - 1, 0)
        self.cursors = reader.cursors()
        return Listing(reader.fine_tunes, reader.pages, self.cursors)

    async def _read_again(
        self, connections: Sequence[FetchPage], settings: ReadSettings, started: float
    ) -> "ListingReader":
        """Read page by page what a first reading, begun at ``started``, read in another order."""
        now = self._monotonic()
        # It takes at least as long as the first reading.
        if now + (now - started) <= settings.deadline:
            try:
                reader = await self._read_pages(connections, settings, prefetch=False)
            except CartesiaError as error:
                if error.reason != "timeout":
                    raise
            else:
                if not reader.is_contradicted:
                    return reader
                detail = "the list changed its order during both readings"
                raise CartesiaError("protocol", detail)
        self._reordered_polls += 1
        detail = (
            "the list changed its order while it was read, and the rest of poll.timeout is too "
            "short to read it again page by page; increase poll.timeout"
        )
        if self._reordered_polls == _MAX_REORDERED_POLLS:
            self._reordered_polls = 0
            self._page_by_page_polls = _PAGE_BY_PAGE_POLLS
            self._log.warning(
                "the list is read page by page from now on",
                reason=f"it changed its order during {_MAX_REORDERED_POLLS} polls in a row",
                polls=_PAGE_BY_PAGE_POLLS,
            )
        raise CartesiaError("protocol", detail)

    async def _read_pages(
        self, connections: Sequence[FetchPage], settings: ReadSettings, *, prefetch: bool
    ) -> "ListingReader":
        """Return the reader at the end of the list."""
        restarted = False
        while True:
            reader = ListingReader(self.cursors, cut=prefetch)
            used = connections if prefetch else connections[:1]
            error = await self._add_pages(reader, used, settings)
            if error is None:
                return reader
            if len(reader.followed) > len(self.cursors):
                # The next poll can prefetch a list that is too long to be read page by page.
                self.cursors = tuple(reader.followed)
            if restarted or reader.cursor is None or error.status not in _CURSOR_GONE:
                raise error
            restarted = True
            self.cursors = tuple(cursor for cursor in self.cursors if cursor != reader.cursor)

    async def _add_pages(
        self, reader: "ListingReader", connections: Sequence[FetchPage], settings: ReadSettings
    ) -> CartesiaError | None:
        """Read to the end of the list; return the error that prevented it."""
        # A single connection would fetch pages before the reader knows whether it needs them.
        cursors = (None, *self.cursors) if len(connections) > 1 else ()
        prefetcher = Prefetcher(cursors, settings.stall_timeout, all_at_once=self._succeeded)
        used = connections[: max(1, len(cursors))]
        error = await _follow_cursors(reader, prefetcher, used, settings.on_page)
        unused = prefetcher.unused_pages()
        if error is None and not reader.ended:
            prefetcher = Prefetcher((), settings.stall_timeout)
            error = await _follow_cursors(reader, prefetcher, connections[:1], settings.on_page)
            unused += prefetcher.unused_pages()
        reader.is_contradicted = reader.lacks_any(unused)
        return error


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
                await _add_next_page(reader, prefetcher)
                if len(reader.fine_tunes) > _MAX_FINE_TUNES:
                    detail = f"the list is larger than {_MAX_FINE_TUNES:,} fine-tunes"
                    return CartesiaError("too_large", detail)
                if on_page is not None:
                    on_page(reader.pages, len(reader.fine_tunes))
            if (cursor := reader.unread_cursor()) is not None:
                await prefetcher.fetch(cursor)
        except CartesiaError as error:
            return error
        except StalledError:
            return None
    return None


async def _add_next_page(reader: "ListingReader", prefetcher: Prefetcher) -> None:
    """Add a page that continues the last one; undo the cut of the last one if none does."""
    while True:
        try:
            page = await prefetcher.page(reader.cursor)
        except CartesiaError as error:
            if reader.left_out and error.status in _CURSOR_GONE:
                reader.undo_cut()
                continue
            detail = str(error) if reader.cursor is None else f"page {reader.pages + 1}: {error}"
            raise replace(error, detail=detail) from None
        if reader.continues_with(page):
            reader.add(page)
            return
        prefetcher.reject(reader.cursor)
        reader.undo_cut()


class ListingReader:
    """Follows the list's cursors, independent of when pages are fetched.

    ``cursor`` is that of the page that is needed next; None is the first page. ``pages`` is the
    number of pages added. ``followed`` has the cursors used so far, each with the length of the
    page that ended there. A page that contains one of the ``known_cursors`` (of earlier listings)
    is cut after it, so that the pages that follow are those that were prefetched; ``left_out`` is
    the rest of the page.

    The next page must begin with what was left out. If it does not, the cursor moved in the list
    between the two requests, and following it would skip a part of the list. Then the page counts
    as a whole, as for a reader without known cursors.

    Without ``cut``, known cursors only serve to check the end of the list.
    """

    def __init__(self, known_cursors: Sequence[str] = (), *, cut: bool = True) -> None:
        self.cursor: str | None = None
        self.ended = False
        self.is_contradicted = False
        self.pages = 0
        self.fine_tunes: dict[str, FineTune] = {}
        self.followed: dict[str, int] = {}
        self.left_out: list[FineTune] = []
        self._known_cursors = known_cursors
        self._cuts = frozenset(known_cursors if cut else ())
        self._followed_twice: set[str] = set()

    def continues_with(self, page: Page) -> bool:
        """Return whether a page begins with what was left out of the page before."""
        expected = [item.id for item in self.left_out]
        found = [item.id for item in page.fine_tunes[: len(expected)]]
        # A page may be shorter than others, but not the last one.
        return found == expected[: len(found)] and (page.has_more or len(found) == len(expected))

    def undo_cut(self) -> None:
        """Count what was left out, too, and continue after it."""
        length = self.followed.pop(str(self.cursor))
        rest, self.left_out = self.left_out, []
        self.fine_tunes.update((item.id, item) for item in rest)
        self._follow(rest[-1].id, length)

    def add(self, page: Page) -> None:
        """Add the page after ``cursor``; if an id occurs twice, the later item counts.

        Raises CartesiaError for a page that says that more follow, but has no new cursor.
        """
        self.pages += 1
        items = page.fine_tunes
        end = self._cut(items) if page.has_more else len(items)
        self.fine_tunes.update((item.id, item) for item in items[:end])
        self.left_out = items[end:]
        if not page.has_more:
            self.ended = True
            return
        if not items:
            raise CartesiaError("protocol", f"page {self.pages} is empty but says that more follow")
        self._follow(items[end - 1].id, len(items))

    def _cut(self, items: Sequence[FineTune]) -> int:
        """Return how many items there are up to the last known cursor among them, or all."""
        for number in range(len(items), 0, -1):
            cursor = items[number - 1].id
            # A cursor that was followed already has moved in the list.
            if cursor in self._cuts and cursor not in self.followed:
                return number
        return len(items)

    def _follow(self, cursor: str, length: int) -> None:
        """Continue after a cursor. One that moves towards the head is met, and followed, twice."""
        if cursor in self._followed_twice:
            raise CartesiaError("protocol", f"page {self.pages} ends where an earlier page ended")
        if cursor in self.followed:
            self._followed_twice.add(cursor)
        self.cursor = cursor
        self.followed[cursor] = length

    def unread_cursor(self) -> str | None:
        """Return the last known cursor if it was not read.

        It was deleted, or the end of the list is not where this reader found it.
        """
        last = self._known_cursors[-1:]
        return next((cursor for cursor in last if cursor not in self.fine_tunes), None)

    def lacks_any(self, pages: Iterable[Page]) -> bool:
        """Return whether a fine-tune of these pages was not read."""
        return any(item.id not in self.fine_tunes for page in pages for item in page.fine_tunes)

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
        reused = (n for n, cursor in enumerate(followed) if cursor in self._cuts)
        first_reused = next(reused, 0)
        head = ids[: ids.index(followed[first_reused]) + 1] if first_reused else []
        return (*_divide(head, length), *followed[first_reused:])


def _divide(ids: Sequence[str], length: int) -> tuple[str, ...]:
    """Return the cursors of all pages but the first, if every page but the first is full."""
    full = range((len(ids) - 1) // length, 0, -1)
    return tuple(ids[-1 - length * number] for number in full)

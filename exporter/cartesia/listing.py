"""Every page of the list, or CartesiaError: a partial listing would look like a mass deletion."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Final

from exporter.cartesia.errors import CartesiaError
from exporter.cartesia.pages import Page
from exporter.cartesia.prefetch import Fetch, Prefetcher, StalledError, served
from exporter.core.model import FineTune


class Walk:
    """One reading of the list, from its head to its end.

    ``cursor`` is where it stands: the page behind it is needed next; None is the head of the list.
    ``fine_tunes`` are those it has met, by id, on so many ``pages``, and ``trail`` the cursors it
    has gone on from. ``remembered`` are cursors of earlier pages: a page that has one of them in
    its middle is cut behind it, so that the way leads over pages that may be there already.
    """

    def __init__(self, remembered: Iterable[str] = ()) -> None:
        self.cursor: str | None = None
        self.ended = False
        self.pages = 0
        self.fine_tunes: dict[str, FineTune] = {}
        self.trail: list[str] = []
        self._remembered = frozenset(remembered)
        self._landmarks = set(self._remembered)
        self._used: set[str] = set()
        self._lengths: list[int] = []

    def take(self, page: Page) -> None:
        """Go on over the page behind ``cursor``; of an id that comes twice, the later item counts.

        Raises CartesiaError for a page that says that more follow and leads nowhere new.
        """
        self.pages += 1
        items = self._cut(page.fine_tunes) if page.has_more else page.fine_tunes
        self.fine_tunes.update((item.id, item) for item in items)
        if not page.has_more:
            self.ended = True
            return
        self._lengths.append(len(page.fine_tunes))
        self.cursor = self._next(items)
        self.trail.append(self.cursor)
        self._used.add(self.cursor)
        self._landmarks.discard(self.cursor)

    def _cut(self, items: Sequence[FineTune]) -> Sequence[FineTune]:
        """Return the items up to the last landmark among them; all of them when there is none."""
        marks = (n for n in range(len(items), 0, -1) if items[n - 1].id in self._landmarks)
        return items[: next(marks, len(items))]

    def _next(self, items: Sequence[FineTune]) -> str:
        if not items:
            raise CartesiaError("protocol", f"page {self.pages} is empty but says that more follow")
        if items[-1].id in self._used:
            raise CartesiaError("protocol", f"page {self.pages} ends where an earlier page ended")
        return items[-1].id

    def cursors(self) -> tuple[str, ...]:
        """Return the cursors to remember: those of the trail, unless fewer pages would do.

        Whatever has to be divided anew is divided from its end, also what is new at the head. So
        the other pages stay as they are from poll to poll while new fine-tunes come in there.
        """
        ids, length = list(self.fine_tunes), self._length()
        if self.pages > ceil(len(ids) / length):
            return _divided(ids, length)
        met = (n for n, cursor in enumerate(self.trail) if cursor in self._remembered)
        known = next(met, 0)
        new = ids[: ids.index(self.trail[known]) + 1] if known else []
        return (*_divided(new, length), *self.trail[known:])

    def _length(self) -> int:
        """Return how many fine-tunes a page has if more follow: as few as the shortest had.

        Pages may have different lengths. Behind cursors that are further apart than one reaches,
        each takes two requests. One that is shorter than half of the longest is an exception.
        """
        shortest, longest = min(self._lengths, default=1), max(self._lengths, default=1)
        return max(shortest, longest // 2, 1)


def _divided(ids: Sequence[str], length: int) -> tuple[str, ...]:
    """Return the ids behind which each page but the first begins, if all but it are full."""
    full = range((len(ids) - 1) // length, 0, -1)
    return tuple(ids[-1 - length * number] for number in full)


OnPage = Callable[[int, int], None]
"""Told after each page how many pages and how many fine-tunes have been read."""

PATIENCE: Final = 5.0
"""For how many seconds a page may wait for a lane: more than a slow page takes."""

_CURSOR_GONE: Final = frozenset({400, 404})
_MOST_FINE_TUNES: Final = 1_000_000
_TOO_MANY: Final = f"the list is larger than {_MOST_FINE_TUNES:,} fine-tunes"


@dataclass(frozen=True, slots=True)
class Listing:
    """A complete list, keyed by id in the API's order, and how many pages it took.

    ``cursors`` are where its pages can be asked for side by side the next time.
    """

    fine_tunes: dict[str, FineTune]
    pages: int
    cursors: tuple[str, ...] = ()


class Lister:
    """Reads whole lists, each by the ``cursors`` that are known from the one before."""

    def __init__(self) -> None:
        self.cursors: tuple[str, ...] = ()
        self._well = True

    async def read(
        self, lanes: Sequence[Fetch], on_page: OnPage | None = None, patience: float = PATIENCE
    ) -> Listing:
        """Follow the cursors to the end of the list, asking for pages over all ``lanes``.

        An id that comes twice counts once, the later item wins. When the API no longer knows a
        cursor that is needed (its fine-tune was deleted meanwhile: 400 or 404), the listing begins
        again, once. When pages that are not needed hold up all lanes, so that one that is needed
        finds none for ``patience`` seconds, the rest is read over the first lane alone, page by
        page. Raises CartesiaError when any page that is needed fails or is odd; a part of
        the list is never returned.
        """
        walk, failure = await self._walk(lanes, on_page, patience)
        if failure is not None and walk.cursor is not None and failure.status in _CURSOR_GONE:
            self.cursors = tuple(cursor for cursor in self.cursors if cursor != walk.cursor)
            walk, failure = await self._walk(lanes, on_page, patience)
        self._well = failure is None
        if failure is not None:
            raise failure
        self.cursors = walk.cursors()
        return Listing(walk.fine_tunes, walk.pages, self.cursors)

    async def _walk(
        self, lanes: Sequence[Fetch], on_page: OnPage | None, patience: float
    ) -> tuple[Walk, CartesiaError | None]:
        """Return a walk, and what has stopped it before the end of the list."""
        walk = Walk(self.cursors)
        # A lane alone would ask for pages before the walk finds out that it does not need them.
        ahead = (None, *self.cursors) if len(lanes) > 1 else ()
        desk = Prefetcher(ahead, patience, at_once=self._well)
        failure = await _follow(walk, desk, lanes[: max(1, len(ahead))], on_page)
        if failure is None and not walk.ended:
            failure = await _follow(walk, Prefetcher((), patience), lanes[:1], on_page)
        if failure is not None and len(walk.trail) > len(self.cursors):
            # A list too long to be read page by page in one poll is read side by side in the next.
            self.cursors = tuple(walk.trail)
        return walk, failure


async def _follow(
    walk: Walk, desk: Prefetcher, lanes: Sequence[Fetch], on_page: OnPage | None
) -> CartesiaError | None:
    """Go on to the end of the list, or until pages that are not needed hold up all lanes."""
    async with served(desk, lanes):
        try:
            while not walk.ended:
                walk.take(await _page(walk, desk))
                if len(walk.fine_tunes) > _MOST_FINE_TUNES:
                    return CartesiaError("too_large", _TOO_MANY)
                if on_page is not None:
                    on_page(walk.pages, len(walk.fine_tunes))
        except CartesiaError as error:
            return error
        except StalledError:
            return None
    return None


async def _page(walk: Walk, desk: Prefetcher) -> Page:
    try:
        return await desk.page(walk.cursor)
    except CartesiaError as error:
        raise error if walk.cursor is None else error.on_page(walk.pages + 1) from None

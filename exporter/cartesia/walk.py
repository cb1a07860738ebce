"""The way through the list, page by page; when a page is asked for is others' business.

What stands behind a cursor is a page, and a cursor is the id of a fine-tune (``starting_after`` in
the API's OpenAPI document). Who goes on from the last id that was read meets every fine-tune that
is in the list all the while, whatever comes and goes beside it, and whenever a page was asked for.
"""

from collections.abc import Iterable, Sequence
from math import ceil

from exporter.cartesia.errors import CartesiaError
from exporter.cartesia.wire import Page
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

"""Every page of the list, or CartesiaError: a partial listing would look like a mass deletion."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from exporter.cartesia.desk import Desk, Fetch, served
from exporter.cartesia.errors import CartesiaError
from exporter.cartesia.walk import Walk
from exporter.cartesia.wire import Page
from exporter.core.model import FineTune

OnPage = Callable[[int, int], None]
"""Told after each page how many pages and how many fine-tunes have been read."""

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

    async def read(self, lanes: Sequence[Fetch], on_page: OnPage | None = None) -> Listing:
        """Follow the cursors to the end of the list, asking for pages over all ``lanes``.

        An id that comes twice counts once, the later item wins. When the API no longer knows a
        cursor that is needed (its fine-tune was deleted meanwhile: 400 or 404), the listing begins
        again, once. Raises CartesiaError when any page that is needed fails or is odd; a part of
        the list is never returned.
        """
        walk, failure = await self._walk(lanes, on_page)
        if failure is not None and walk.cursor is not None and failure.status in _CURSOR_GONE:
            self.cursors = tuple(cursor for cursor in self.cursors if cursor != walk.cursor)
            walk, failure = await self._walk(lanes, on_page)
        self._well = failure is None
        if failure is not None:
            raise failure
        self.cursors = walk.cursors()
        return Listing(walk.fine_tunes, walk.pages, self.cursors)

    async def _walk(
        self, lanes: Sequence[Fetch], on_page: OnPage | None
    ) -> tuple[Walk, CartesiaError | None]:
        """Return a walk, and what has stopped it before the end of the list."""
        walk = Walk(self.cursors)
        # A lane alone would ask for pages before the walk finds out that it does not need them.
        ahead = self.cursors if len(lanes) > 1 else ()
        desk = Desk(ahead, at_once=self._well)
        async with served(desk, lanes[: 1 + len(ahead)]):
            failure = await _follow(walk, desk, on_page)
        if failure is not None and len(walk.trail) > len(self.cursors):
            # A list too long to be read page by page in one poll is read side by side in the next.
            self.cursors = tuple(walk.trail)
        return walk, failure


async def _follow(walk: Walk, desk: Desk, on_page: OnPage | None) -> CartesiaError | None:
    try:
        while not walk.ended:
            walk.take(await _page(walk, desk))
            if len(walk.fine_tunes) > _MOST_FINE_TUNES:
                return CartesiaError("too_large", _TOO_MANY)
            if on_page is not None:
                on_page(walk.pages, len(walk.fine_tunes))
    except CartesiaError as error:
        return error
    return None


async def _page(walk: Walk, desk: Desk) -> Page:
    try:
        return await desk.page(walk.cursor)
    except CartesiaError as error:
        raise error if walk.cursor is None else error.on_page(walk.pages + 1) from None

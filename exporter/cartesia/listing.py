"""Every page of the list, or CartesiaError: a partial listing would look like a mass deletion."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from exporter.cartesia.desk import Desk, Fetch, HeldUpError, served
from exporter.cartesia.errors import CartesiaError
from exporter.cartesia.walk import Walk
from exporter.cartesia.wire import Page
from exporter.core.model import FineTune

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
        desk = Desk(ahead, patience, at_once=self._well)
        failure = await _follow(walk, desk, lanes[: max(1, len(ahead))], on_page)
        if failure is None and not walk.ended:
            failure = await _follow(walk, Desk((), patience), lanes[:1], on_page)
        if failure is not None and len(walk.trail) > len(self.cursors):
            # A list too long to be read page by page in one poll is read side by side in the next.
            self.cursors = tuple(walk.trail)
        return walk, failure


async def _follow(
    walk: Walk, desk: Desk, lanes: Sequence[Fetch], on_page: OnPage | None
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
        except HeldUpError:
            return None
    return None


async def _page(walk: Walk, desk: Desk) -> Page:
    try:
        return await desk.page(walk.cursor)
    except CartesiaError as error:
        raise error if walk.cursor is None else error.on_page(walk.pages + 1) from None

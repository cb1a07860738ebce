"""Pages asked for side by side: which lane asks for which, and who waits for it."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Final

from exporter.cartesia.errors import CartesiaError
from exporter.cartesia.pages import Page

Fetch = Callable[[str | None], Awaitable[Page]]
"""Given the cursor (None at the head of the list), return the page behind it."""

_MOST_BYTES: Final = 512 * 1024 * 1024
_NOW: Final = -1
_TOO_LARGE: Final = f"the pages of the list are larger than {_MOST_BYTES // 2**20} MiB"


class StalledError(Exception):
    """No lane was free for a page that is needed: pages that are not hold up all of them."""


class Prefetcher:
    """Gives the lanes their work: first the page that is waited for, then those ``ahead``.

    Unless all lanes work ``at_once``, the others wait until the first lane has brought a page: an
    API that is down is not asked for every page side by side, poll after poll. ``patience`` is for
    how many seconds a page that is needed may wait for a lane.
    """

    def __init__(
        self, ahead: Iterable[str | None], patience: float, *, at_once: bool = True
    ) -> None:
        self._work: asyncio.PriorityQueue[tuple[int, str | None]] = asyncio.PriorityQueue()
        for turn, cursor in enumerate(ahead):
            self._work.put_nowait((turn, cursor))
        new = asyncio.get_running_loop().create_future
        self._answers = defaultdict[str | None, asyncio.Future[Page | CartesiaError]](new)
        self._asked: set[str | None] = set()
        self._patience = patience
        self._size = 0
        self._open = asyncio.Event()
        if at_once:
            self._open.set()

    async def page(self, cursor: str | None) -> Page:
        """Return the page behind ``cursor``, asked for ahead or now.

        Raises the CartesiaError that was its answer, HeldUpError when it can't be asked for.
        """
        if cursor not in self._asked:
            self._work.put_nowait((_NOW, cursor))
            await asyncio.wait([self._answers[cursor]], timeout=self._patience)
            if cursor not in self._asked:
                raise StalledError
        # Shielded: until it is cancelled too, a lane may bring the page of a poll that is.
        answer = await asyncio.shield(self._answers[cursor])
        if isinstance(answer, CartesiaError):
            raise answer
        return answer

    async def serve(self, lane: Fetch, *, first: bool) -> None:
        """Ask for pages over a lane until cancelled; an error is the answer for its page alone."""
        if not first:
            await self._open.wait()
        while True:
            _, cursor = await self._work.get()
            if cursor in self._asked:
                continue
            self._asked.add(cursor)
            answer = await self._answer(lane, cursor)
            self._answers[cursor].set_result(answer)
            if isinstance(answer, Page):
                self._open.set()
            await self._open.wait()

    async def _answer(self, lane: Fetch, cursor: str | None) -> Page | CartesiaError:
        try:
            page = await lane(cursor)
        except CartesiaError as error:
            return error
        self._size += page.size
        if self._size > _MOST_BYTES:
            return CartesiaError("too_large", _TOO_LARGE)
        return page


@asynccontextmanager
async def served(desk: Prefetcher, lanes: Sequence[Fetch]) -> AsyncIterator[None]:
    """Have the lanes work at the desk within the context; a bug in one of them leaves here."""
    async with asyncio.TaskGroup() as group:
        workers = [
            group.create_task(desk.serve(lane, first=number == 0))
            for number, lane in enumerate(lanes)
        ]
        try:
            yield
        finally:
            for worker in workers:
                worker.cancel()

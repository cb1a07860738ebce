"""Prefetches list pages over several connections."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Final

from exporter.cartesia.errors import CartesiaError
from exporter.cartesia.pages import Page

FetchPage = Callable[[str | None], Awaitable[Page]]
"""Fetches the page after a cursor over one connection; None is the cursor of the first page."""

_MAX_BYTES: Final = 512 * 1024 * 1024


class StalledError(Exception):
    """No connection became free for a page that is needed, within the stall timeout."""


class Prefetcher:
    """Fetches the page that the reader waits for first, then the pages of ``cursors``, in order.

    Without ``all_at_once``, only the first connection is used until it has fetched a page. So an
    API that is down does not get a request per page and poll. ``stall_timeout`` is the time that a
    needed page may wait for a free connection, in seconds.
    """

    def __init__(
        self, cursors: Iterable[str | None], stall_timeout: float, *, all_at_once: bool = True
    ) -> None:
        self._queue: asyncio.PriorityQueue[tuple[int, str | None]] = asyncio.PriorityQueue()
        for priority, cursor in enumerate(cursors):
            self._queue.put_nowait((priority, cursor))
        new_future = asyncio.get_running_loop().create_future
        self._results = defaultdict[str | None, asyncio.Future[Page | CartesiaError]](new_future)
        self._requested: set[str | None] = set()
        self._used: set[str | None] = set()
        self._rejected: set[str | None] = set()
        self._stall_timeout = stall_timeout
        self._bytes = 0
        self._use_all = asyncio.Event()
        if all_at_once:
            self._use_all.set()

    @asynccontextmanager
    async def run(self, connections: Sequence[FetchPage]) -> AsyncIterator[None]:
        """Fetch pages in the background within the context, one at a time per connection.

        An exception other than CartesiaError is a bug and leaves the context as a group.
        """
        async with asyncio.TaskGroup() as group:
            workers = [
                group.create_task(self._work(fetch, first=number == 0))
                for number, fetch in enumerate(connections)
            ]
            try:
                yield
            finally:
                for worker in workers:
                    worker.cancel()

    async def page(self, cursor: str | None) -> Page:
        """Return the page after ``cursor``; request it now if it was not prefetched.

        A page that was returned before is requested again: the list has changed since. Raises the
        CartesiaError of the request, and StalledError if no connection becomes free.
        """
        if cursor in self._used:
            self._used.discard(cursor)
            self._requested.discard(cursor)
            del self._results[cursor]
        await self.fetch(cursor)
        if cursor not in self._requested:
            raise StalledError
        # Shielded: if the poll is cancelled, a worker may set this result before it ends.
        result = await asyncio.shield(self._results[cursor])
        self._used.add(cursor)
        if isinstance(result, CartesiaError):
            raise result
        return result

    async def fetch(self, cursor: str | None) -> None:
        """Request the page after ``cursor`` now, and wait for it for the stall timeout."""
        if cursor not in self._requested:
            self._queue.put_nowait((-1, cursor))  # before all that are queued
        await asyncio.wait([self._results[cursor]], timeout=self._stall_timeout)

    def reject(self, cursor: str | None) -> None:
        """Keep a page that ``page`` returned, because it does not belong there in the list."""
        self._used.discard(cursor)
        self._rejected.add(cursor)

    def unused_pages(self) -> list[Page]:
        """Return the pages that were fetched and that ``page`` never returned."""
        returned = self._used | self._rejected
        unused = (each for cursor, each in self._results.items() if cursor not in returned)
        results = (each.result() for each in unused if each.done())
        return [each for each in results if isinstance(each, Page)]

    async def _work(self, fetch: FetchPage, *, first: bool) -> None:
        """Fetch queued pages until cancelled. A CartesiaError is the result of its page only."""
        if not first:
            await self._use_all.wait()
        while True:
            _, cursor = await self._queue.get()
            if cursor in self._requested:
                continue
            self._requested.add(cursor)
            result: Page | CartesiaError
            try:
                result = await fetch(cursor)
                self._use_all.set()
                self._bytes += result.size
                if self._bytes > _MAX_BYTES:
                    detail = f"the pages of the list are larger than {_MAX_BYTES // 2**20} MiB"
                    result = CartesiaError("too_large", detail)
            except CartesiaError as error:
                result = error
            self._results[cursor].set_result(result)
            await self._use_all.wait()

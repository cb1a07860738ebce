"""The loop around a receiver's turns, and what it says of a store that cannot be used."""

import asyncio
import math
from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from exporter.pause import pause
from exporter.store.errors import StoreError

LOOK_SECONDS: Final = 5.0
"""How often the outbox is looked at when nobody says that it changed."""

log = structlog.get_logger()


class Loop:
    """Takes a receiver's turns: when the outbox changed, when its time has come, at least each 5 s.

    It tells once of a trouble of the store, and once of its end. ``due_at`` is the monotonic time
    by which it will have set its next turn.
    """

    def __init__(self, receiver: str, monotonic: Callable[[], float]) -> None:
        self.due_at = math.inf
        self._monotonic = monotonic
        self._changed = asyncio.Event()
        self._trouble = ""
        self._log = log.bind(receiver=receiver)

    def wake(self) -> None:
        """Say that the outbox changed."""
        self._changed.set()

    async def run(self, turn: Callable[[], Awaitable[float]], stop: asyncio.Event) -> None:
        """Take turns until ``stop`` is set; each says in how many seconds the next one is due."""
        stopping = asyncio.ensure_future(stop.wait())
        stopping.add_done_callback(lambda _: self.wake())
        try:
            while not stop.is_set():
                self._changed.clear()
                self.expect(0.0)
                wait = await self._take(turn)
                if wait > 0 and not stop.is_set():
                    await self._rest(wait)
        finally:
            stopping.cancel()

    async def _take(self, turn: Callable[[], Awaitable[float]]) -> float:
        try:
            return await turn()
        except StoreError as error:
            self.tell_trouble(error)
            return LOOK_SECONDS

    def expect(self, seconds: float) -> None:
        """Say for how long what is done now may last."""
        self.due_at = self._monotonic() + seconds

    async def _rest(self, seconds: float) -> None:
        wait = min(seconds, LOOK_SECONDS)
        self.expect(wait)
        await pause(self._changed, wait)

    def tell_trouble(self, error: StoreError) -> None:
        """Say that the store cannot be used; the same words are said once."""
        if str(error) != self._trouble:
            self._trouble = str(error)
            self._log.error("outbox unavailable, nothing is lost", error=self._trouble)

    def tell_end_of_trouble(self) -> None:
        """Say that it can be used again, if it could not."""
        if self._trouble:
            self._log.info("outbox available again")
            self._trouble = ""

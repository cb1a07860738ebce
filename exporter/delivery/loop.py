"""The loop around a receiver's turns, and what it says of a store that cannot be used."""

import asyncio
import math
from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from exporter.core.clock import Clock
from exporter.core.retry import CIRCUIT_CLOSED, Attempt, CircuitState
from exporter.store.errors import StoreError
from exporter.store.outbox import ReceiverState
from exporter.supervisor import pause


class RetrySchedule:
    """One receiver's health, and its pauses on the monotonic clock: another time is not waited for.

    It begins without a pause: a start tries at once, whatever was stored.
    """

    def __init__(self, clock: Clock, spacing: float) -> None:
        self.health: CircuitState = CIRCUIT_CLOSED
        self._clock = clock
        self._spacing = spacing
        self._spaced_until = 0.0
        self._paused_until = 0.0
        self._nudges: int | None = None

    def apply(self, receiver_state: ReceiverState) -> None:
        """Take over what is stored: the health at first, and later a wish to be tried at once."""
        if self._nudges is None:
            self.health = receiver_state.health
        elif self._nudges != receiver_state.retry_requests:
            self._paused_until = 0.0
        self._nudges = receiver_state.retry_requests

    def wait(self) -> float:
        """Return in how many seconds the receiver may be tried; 0 for now."""
        until = max(self._spaced_until, self._paused_until)
        return max(until - self._clock.monotonic(), 0.0)

    def resume_at(self) -> float:
        """Return the Unix time in seconds from which on it may be tried."""
        return self._clock.now() + self.wait()

    def took(self, attempt: Attempt) -> None:
        """Set health and pause behind an attempt."""
        at, now = self._clock.monotonic(), self._clock.now()
        self.health = self.health.after(attempt, now)
        self._spaced_until = at + self._spacing
        self._paused_until = at + self.health.pause(attempt, now, self._clock.random())


LOOK_SECONDS: Final = 5.0
"""How often the outbox is looked at when nobody says that it changed."""

log = structlog.get_logger()


class Loop:
    """Takes a receiver's turns: when the outbox changed, when its time has come, at least each 5 s.

    It tells once of a trouble of the store, and once of its end. ``due_at`` is the monotonic time
    by which it will have set its next turn.
    """

    def __init__(self, receiver: str, monotonic: Callable[[], float]) -> None:
        self.wakeup_deadline = math.inf
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
        self.wakeup_deadline = self._monotonic() + seconds

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

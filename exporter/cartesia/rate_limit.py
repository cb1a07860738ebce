"""Rate limiter for one account's API requests."""

import asyncio
from asyncio import sleep
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from msgspec import Struct

from exporter.cartesia.errors import POLL_TIMEOUT, CartesiaError
from exporter.core.clock import Clock

if TYPE_CHECKING:
    from anyio import CapacityLimiter


class RateLimits(Struct, frozen=True):
    """Limits of one account: requests in flight, and requests started per second (0: no limit)."""

    concurrency: int = 8
    per_second: float = 0.0


class RateLimiter:
    """Starts requests in order of arrival and within the limits.

    After a 429, no request starts for the time that the API asked for. From then on, requests are
    sent one at a time until the next poll. Deadlines are in monotonic seconds.
    """

    def __init__(self, limits: RateLimits, clock: Clock) -> None:
        self._limits = limits
        self._clock = clock
        self._next_start = 0.0
        self._resume_at = 0.0
        self._rejection: CartesiaError | None = None
        self._slots: CapacityLimiter | None = None

    def start_poll(self) -> None:
        """Restore the full concurrency. A wait that the API asked for stays in force."""
        self._slots = None

    def _current_slots(self) -> "CapacityLimiter":
        from anyio import CapacityLimiter  # noqa: PLC0415 - see http_client

        if self._slots is None:
            self._slots = CapacityLimiter(self._limits.concurrency)
        return self._slots

    @asynccontextmanager
    async def request(self, deadline: float) -> AsyncIterator[None]:
        """Hold a slot for one request within the context.

        Raises CartesiaError if the request could start only after the deadline. It is the error of
        the 429 if that is the cause.
        """
        while True:
            async with self._current_slots():
                may_start = await self._wait(deadline)
                slots = self._current_slots()
                if may_start and slots.borrowed_tokens <= slots.total_tokens:
                    yield
                    return
            # A 429 arrived while several requests held slots. Each queues again, for one slot.

    async def wait_to_start(self, deadline: float) -> None:
        """Wait until a redirect may be followed in a slot that is held; raises like ``request``."""
        while not await self._wait(deadline):
            pass

    async def _wait(self, deadline: float) -> bool:
        """Wait for the next start; return False if a 429 arrived during the wait."""
        while (pause := self._resume_at - self._clock.monotonic()) > 0:
            if self._rejection is not None and self._resume_at >= deadline:
                raise self._rejection
            await sleep(pause)
        if self._limits.per_second:
            now = self._clock.monotonic()
            start = max(self._next_start, now)
            if start >= deadline:
                raise CartesiaError("timeout", POLL_TIMEOUT)
            self._next_start = start + 1 / self._limits.per_second
            try:
                if start > now:
                    await sleep(start - now)
            except asyncio.CancelledError:
                # All waiting requests of a poll are cancelled together: the first start is free.
                self._next_start = min(self._next_start, start)
                raise
        return self._clock.monotonic() >= self._resume_at

    def slow_down(self, error: CartesiaError, seconds: float) -> None:
        """Apply a 429: start nothing for ``seconds``, then send one request at a time."""
        self._current_slots().total_tokens = 1
        self._rejection = error
        self._resume_at = max(self._resume_at, self._clock.monotonic() + seconds)

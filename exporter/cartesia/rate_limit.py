"""When the next request of an account may go out: how many at once, and how often."""

import asyncio
from asyncio import sleep
from collections import deque
from dataclasses import dataclass

from exporter.cartesia.errors import OVER, CartesiaError
from exporter.core.clock import Clock


@dataclass(frozen=True, slots=True)
class Limits:
    """How gently the API is asked.

    ``concurrency`` is how many requests may be under way at once, with 1 for one after another;
    ``per_second`` how many may begin in a second, with 0 for no limit.
    """

    concurrency: int = 8
    per_second: float = 0.0


class RateLimiter:
    """Lets requests go. Once the API has said 429, they go one after another until the next poll.

    Deadlines are in monotonic seconds.
    """

    def __init__(self, limits: Limits, clock: Clock) -> None:
        self._limits = limits
        self._clock = clock
        self._next_at = 0.0
        self._resume_at = 0.0
        self._told: CartesiaError | None = None
        self.begin()

    def begin(self) -> None:
        """Begin a poll: side by side again, but not before the time that the last one was told."""
        self._most = self._limits.concurrency
        self._under_way = 0
        self._line: deque[asyncio.Future[None]] = deque()

    async def enter(self, deadline: float) -> None:
        """Wait until one more request may be under way; it is until ``leave``.

        Raises CartesiaError, also that of a 429, when the wait ends only behind the deadline.
        """
        while True:
            await self._place()
            try:
                due = await self._due(deadline)
            except BaseException:
                self.leave()
                raise
            if due and self._under_way <= self._most:
                return
            self.leave()  # a 429 came while all these waited for their slots: now they line up

    async def _place(self) -> None:
        if self._under_way < self._most:
            self._under_way += 1
            return
        place = asyncio.get_running_loop().create_future()
        self._line.append(place)
        try:
            await place
        except asyncio.CancelledError:
            if not place.cancelled():  # it was given away just before
                self.leave()
            raise

    def leave(self) -> None:
        """Say that a request is over: the next in line may go."""
        self._under_way -= 1
        while self._line and self._under_way < self._most:
            place = self._line.popleft()
            if not place.cancelled():
                self._under_way += 1
                place.set_result(None)

    async def _heed(self, deadline: float) -> None:
        while (wait := self._resume_at - self._clock.monotonic()) > 0:
            if self._told is not None and self._resume_at >= deadline:
                raise self._told
            await sleep(wait)

    def slow_down(self, error: CartesiaError, seconds: float) -> None:
        """Heed a 429: nothing goes out for so many seconds, and then one request at a time."""
        self._most = 1
        self._told = error
        self._resume_at = max(self._resume_at, self._clock.monotonic() + seconds)

    async def slot(self, deadline: float) -> None:
        """Wait for the time of one more request; raise CartesiaError when that is too late."""
        while not await self._due(deadline):
            pass

    async def _due(self, deadline: float) -> bool:
        """Wait for a slot, and return whether no 429 has come meanwhile."""
        await self._heed(deadline)
        if self._limits.per_second:
            now = self._clock.monotonic()
            at = max(self._next_at, now)
            if at >= deadline:
                raise CartesiaError("timeout", OVER)
            self._next_at = at + 1 / self._limits.per_second
            try:
                if at > now:
                    await sleep(at - now)
            except asyncio.CancelledError:
                # All that wait are given up together: their slots are free again.
                self._next_at = min(self._next_at, at)
                raise
        return self._clock.monotonic() >= self._resume_at

"""A clock that only a test advances, with a constant random number."""

from exporter.core.clock import Clock


class FakeClock:
    """Wall and monotonic time that advance together; `slept` records every sleep.

    `set_by` is the number of seconds by which the wall clock was set forward. `chance` is the
    random number.
    """

    def __init__(self, now: float = 1_800_000_000.0, chance: float = 0.5) -> None:
        self.now = now
        self.chance = chance
        self.set_by = 0.0
        self.slept: list[float] = []
        self.clock = Clock(lambda: self.now + self.set_by, lambda: self.now, lambda: self.chance)

    async def sleep(self, seconds: float) -> None:
        """Advance the time instead of waiting; replaces asyncio.sleep."""
        self.slept.append(seconds)
        self.now += seconds

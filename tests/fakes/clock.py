"""A clock that stands still until it is told, and dice that always fall the same."""

from exporter.core.clock import Clock


class FakeClock:
    """Wall and monotonic time that move together; `slept` keeps every wait.

    `set_by` is how many seconds the wall clock was set forward.
    """

    def __init__(self, now: float = 1_800_000_000.0, chance: float = 0.5) -> None:
        self.now = now
        self.chance = chance
        self.set_by = 0.0
        self.slept: list[float] = []
        self.clock = Clock(lambda: self.now + self.set_by, lambda: self.now, lambda: self.chance)

    async def sleep(self, seconds: float) -> None:
        """In place of asyncio.sleep: time passes at once."""
        self.slept.append(seconds)
        self.now += seconds

"""When a receiver may be tried: what it asked for, its back-off, and the space between messages."""

from exporter.core.circuit import WELL, Health
from exporter.core.clock import Clock
from exporter.core.retry import Attempt
from exporter.store.receivers import Standing


class Pace:
    """One receiver's health, and its pauses on the monotonic clock: another time is not waited for.

    It begins without a pause: a start tries at once, whatever was stored.
    """

    def __init__(self, clock: Clock, spacing: float) -> None:
        self.health: Health = WELL
        self._clock = clock
        self._spacing = spacing
        self._spaced_until = 0.0
        self._paused_until = 0.0
        self._nudges: int | None = None

    def heed(self, standing: Standing) -> None:
        """Take over what is stored: the health at first, and later a wish to be tried at once."""
        if self._nudges is None:
            self.health = standing.health
        elif self._nudges != standing.nudges:
            self._paused_until = 0.0
        self._nudges = standing.nudges

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
        self._paused_until = at + self.health.pause(attempt, now, self._clock.chance())

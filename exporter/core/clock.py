"""Clock and random source, passed in so that tests control them."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Clock:
    """Wall time (Unix seconds), monotonic time (seconds) and a random number in [0, 1)."""

    now: Callable[[], float]
    monotonic: Callable[[], float]
    random: Callable[[], float]

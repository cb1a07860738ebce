"""The clock and the dice that a part is handed, so that a test can hold them."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Clock:
    """Wall time (Unix seconds), monotonic time (seconds) and a chance in [0, 1)."""

    now: Callable[[], float]
    monotonic: Callable[[], float]
    chance: Callable[[], float]

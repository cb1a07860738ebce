"""Clock and random source, passed in so that tests control them."""

from collections.abc import Callable

from msgspec import Struct


class Clock(Struct, frozen=True):
    """Wall time (Unix seconds), monotonic time (seconds) and a random number in [0, 1)."""

    now: Callable[[], float]
    monotonic: Callable[[], float]
    random: Callable[[], float]

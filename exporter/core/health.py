"""Whether each part does what it set out to do, in its own time."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf
from typing import Final

LATE_SECONDS: Final = 60.0
"""How long after the wake-up that a part set itself it counts as late."""


@dataclass(frozen=True, slots=True)
class Health:
    """How many parts there are, and by how many seconds those are late that are."""

    parts: int
    late: Mapping[str, float] = field(default_factory=dict)

    @property
    def healthy(self) -> bool:
        """Whether none is late."""
        return not self.late

    @property
    def counts(self) -> str:
        """How many parts are on time, of how many, in words."""
        return f"{self.parts - len(self.late)} of {self.parts} parts are on time"


def health(due: Mapping[str, float], now: float, running_since: float = -inf) -> Health:
    """Return who is late at ``now``; all times are monotonic, in seconds.

    ``due`` says for each part by when it will have set its next wake-up: infinity for one that
    waits for others alone. Before ``running_since`` the process stood still, and none could keep
    its time: its lateness counts from then on.
    """
    behind = {part: now - max(at, running_since) for part, at in due.items()}
    late = {part: seconds for part, seconds in behind.items() if seconds > LATE_SECONDS}
    return Health(len(due), late)

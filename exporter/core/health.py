"""Whether each part does what it set out to do, in its own time."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import inf
from typing import Final

from exporter.core.view import AccountStatus


@dataclass(frozen=True, slots=True)
class Readiness:
    """How many accounts have a fresh snapshot, of how many, and why the state can't be stored.

    ``trouble`` is empty when it can.
    """

    fresh: int
    accounts: int
    trouble: str = ""

    @property
    def ready(self) -> bool:
        """Whether some account is fresh and what happens to it can be stored."""
        return self.fresh > 0 and not self.trouble


def readiness(views: Iterable[AccountStatus], monotonic: float, *, trouble: str) -> Readiness:
    """Return the readiness at a monotonic time in seconds.

    ``trouble`` says why the state could not be written when it was tried last, if so.
    """
    views = list(views)
    if not trouble and any(view.failure == "storage" for view in views):
        trouble = "the last poll could not be stored"
    return Readiness(sum(view.is_fresh(monotonic) for view in views), len(views), trouble)


LATE_SECONDS: Final = 60.0
"""How long after the wake-up that a part set itself it counts as late."""


@dataclass(frozen=True, slots=True)
class Liveness:
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


def liveness(due: Mapping[str, float], now: float, running_since: float = -inf) -> Liveness:
    """Return who is late at ``now``; all times are monotonic, in seconds.

    ``due`` says for each part by when it will have set its next wake-up: infinity for one that
    waits for others alone. Before ``running_since`` the process stood still, and none could keep
    its time: its lateness counts from then on.
    """
    behind = {part: now - max(at, running_since) for part, at in due.items()}
    late = {part: seconds for part, seconds in behind.items() if seconds > LATE_SECONDS}
    return Liveness(len(due), late)

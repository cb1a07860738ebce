"""Whether what the page shows can be relied on."""

from collections.abc import Iterable
from dataclasses import dataclass

from exporter.core.view import AccountView


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


def readiness(views: Iterable[AccountView], monotonic: float, *, trouble: str) -> Readiness:
    """Return the readiness at a monotonic time in seconds.

    ``trouble`` says why the state could not be written when it was tried last, if so.
    """
    views = list(views)
    if not trouble and any(view.failure == "storage" for view in views):
        trouble = "the last poll could not be stored"
    return Readiness(sum(view.is_fresh(monotonic) for view in views), len(views), trouble)

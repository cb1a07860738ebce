"""Whether what the page shows can be relied on."""

from collections.abc import Iterable
from dataclasses import dataclass

from exporter.core.exposition import AccountView


@dataclass(frozen=True, slots=True)
class Readiness:
    """How many accounts have a fresh snapshot, of how many, and whether the state can be stored."""

    fresh: int
    accounts: int
    storing: bool

    @property
    def ready(self) -> bool:
        """Whether some account is fresh and what happens to it can be stored."""
        return self.fresh > 0 and self.storing


def readiness(
    views: Iterable[AccountView], now: float, stale_after: float, *, storing: bool
) -> Readiness:
    """Return the readiness at ``now`` (Unix seconds); older than ``stale_after`` s is not fresh.

    ``storing`` says whether the state could be written when it was tried last.
    """
    views = list(views)
    fresh = [
        view for view in views if view.counts is not None and now - view.succeeded_at <= stale_after
    ]
    return Readiness(len(fresh), len(views), storing)

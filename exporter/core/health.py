"""Readiness of the data and liveness of the services."""

from collections.abc import Iterable, Mapping
from math import inf
from typing import Final

from msgspec import Struct, field

from exporter.core.view import AccountStatus


class Readiness(Struct, frozen=True):
    """Number of accounts with a fresh snapshot, number of accounts, and the store's error.

    ``trouble`` is empty while the state can be stored. A ``standby`` is a replica that owns no
    account: others poll them.
    """

    fresh: int
    accounts: int
    trouble: str = ""
    standby: bool = False

    @property
    def ready(self) -> bool:
        """Whether at least one account is fresh, or none is polled here, and the store works."""
        return (self.fresh > 0 or self.standby) and not self.trouble


def readiness(
    statuses: Iterable[AccountStatus], monotonic: float, *, trouble: str, standby: bool = False
) -> Readiness:
    """Return the readiness at a monotonic time in seconds.

    ``trouble`` is the error of the last write to the store, empty if it succeeded. ``standby`` is
    whether other replicas poll all accounts.
    """
    statuses = list(statuses)
    if not trouble and any(status.failure == "storage" for status in statuses):
        trouble = "the last poll could not be stored"
    fresh = sum(status.is_fresh(monotonic) for status in statuses)
    return Readiness(fresh, len(statuses), trouble, standby)


LATE_SECONDS: Final = 60.0
"""A service is late this long after its wake-up deadline."""


class Liveness(Struct, frozen=True):
    """Number of services, and the seconds by which the late ones are late, by name."""

    services: int
    late: Mapping[str, float] = field(default_factory=dict)

    @property
    def healthy(self) -> bool:
        """Whether no service is late."""
        return not self.late

    @property
    def counts(self) -> str:
        """Number of services on time and in total, in words."""
        return f"{self.services - len(self.late)} of {self.services} parts are on time"


def liveness(deadlines: Mapping[str, float], now: float, running_since: float = -inf) -> Liveness:
    """Return which services are late at ``now``; all times are monotonic, in seconds.

    ``deadlines`` are the times by which each service sets its next wake-up: infinity for one that
    only waits for others. Before ``running_since`` the process was stopped and no service could
    run: lateness counts from then on.
    """
    behind = {name: now - max(at, running_since) for name, at in deadlines.items()}
    late = {name: seconds for name, seconds in behind.items() if seconds > LATE_SECONDS}
    return Liveness(len(deadlines), late)

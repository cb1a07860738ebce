"""What a real Prometheus has scraped from replicas."""

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil
from pathlib import Path
from typing import Any

from tests.process.agent_process import until
from tests.system.prometheus import Prometheus, prometheus

SCRAPE_SECONDS = 0.5

FAILURES = 'cartesia_fine_tune_transitions_total{to_status="failed"}'
OF_ALL_OWNERS = "max by (account, model_id, from_status, to_status)"
REQUESTS = "cartesia_exporter_notifications_total"

DOUBLED = (
    "sum(cartesia_fine_tunes) > max(sum by (instance) (cartesia_fine_tunes))",
    "sum by (store, kind, name) (cartesia_exporter_owner) > 1",
)
"""Queries with a value while two replicas serve the series of an account, or own the same."""


@dataclass
class Scrapes:
    """Queries of what was scraped from so many replicas since ``start``, in Unix seconds."""

    prometheus: Prometheus
    number: int
    start: float = 0.0

    def begin(self) -> None:
        """Wait until all are scraped: Prometheus finds its targets 5 s after its start."""
        until(lambda: self.prometheus.value("count(up == 1)") == self.number)
        until(lambda: self.prometheus.value(f"count({FAILURES})"))
        self.start = time.time()

    def check(self, failures: int, requests: int) -> None:
        """Expect sums and increases over replicas to be the true numbers."""
        until(lambda: self.prometheus.value(f"sum({FAILURES})") == failures)
        for query in DOUBLED:
            for times in self._times(query):
                gaps = [later - at for at, later in pairwise(times)]
                # Around a takeover the last scrape of one and the first of the other overlap.
                assert all(gap > 1.5 * SCRAPE_SECONDS for gap in gaps), (query, times)
        [shown] = self._times("sum(cartesia_fine_tunes)")
        assert len(shown) > 10
        # increase() extrapolates to the limits of its range. It misses what changed before the
        # first scrape of a new owner, unless those of all owners become one series before.
        assert 0 < self._increase(f"{FAILURES}[{self._seconds}s]") <= 1.05 * failures
        until(lambda: self._increase_over_owners() > 0.95 * failures)
        assert self._increase_over_owners() <= 1.05 * failures
        # The requests of a replica that is killed before the next scrape are missed.
        assert 0 < self._increase(f"{REQUESTS}[{self._seconds}s]") <= 1.05 * requests

    def _times(self, query: str) -> list[list[float]]:
        """When each series of a query had a value."""
        series = self.prometheus.series(query, self.start, time.time(), SCRAPE_SECONDS)
        return [[at for at, _ in each.points] for each in series]

    @property
    def _seconds(self) -> int:
        return ceil(time.time() - self.start)

    def _increase(self, samples: str) -> float:
        return self.prometheus.value(f"sum(increase({samples}))") or 0.0

    def _increase_over_owners(self) -> float:
        step = f"{SCRAPE_SECONDS * 1000:.0f}ms"
        return self._increase(f"({OF_ALL_OWNERS} ({FAILURES}))[{self._seconds}s:{step}]")


@contextlib.contextmanager
def scraped(folder: Path, ports: Sequence[int]) -> Iterator[Scrapes]:
    """Scrape replicas at these ports by a real Prometheus."""
    interval = f"{SCRAPE_SECONDS * 1000:.0f}ms"
    times: dict[str, Any] = {"scrape_interval": interval, "scrape_timeout": interval}
    targets = [f"127.0.0.1:{port}" for port in ports]
    with prometheus(folder, targets, **times) as server:
        yield Scrapes(server, len(targets))

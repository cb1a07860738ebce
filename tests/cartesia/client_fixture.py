"""A client of one account, with its API key, clock and metrics."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import structlog
from prometheus_client import CollectorRegistry

from exporter.cartesia.client import ApiSettings, CartesiaClient, ClientMetrics, RateLimits
from exporter.cartesia.errors import REASONS, CartesiaError
from exporter.cartesia.listing import Lister, Listing
from exporter.cartesia.pages import NONE_TRACKED
from exporter.core.clock import Clock
from exporter.core.model import TrackedFineTune
from exporter.core.secret import Secret
from exporter.http_client import HttpClient
from tests.fakes.clock import FakeClock
from tests.fakes.secret import FakeSecret

KEY = "sk_car_test.secret"
BASE_URL = "https://api.cartesia.test"
LIST_URL = f"{BASE_URL}/fine-tunes/"
EMPTY = {"data": [], "has_more": False}

REAL_CLOCK = Clock(time.time, time.monotonic, lambda: 0.0)


def new_lister() -> Lister:
    """Return a lister that knows no cursors and measures real time."""
    return Lister(time.monotonic, structlog.get_logger())


class ClientFixture:
    """A client whose key can be changed and whose metrics can be read."""

    def __init__(  # noqa: PLR0913 - each test gives what it is about
        self,
        clock: FakeClock | Clock,
        base_url: str = BASE_URL,
        *,
        ca_file: Path | None = None,
        proxy: Secret | None = None,
        limits: RateLimits = RateLimits(),  # noqa: B008 - it is frozen
        version: str = "2026-03-01",
        store_id: str = "",
    ) -> None:
        self.key = FakeSecret(KEY)
        self.registry = CollectorRegistry()
        self.client = CartesiaClient(
            HttpClient(ca_file=ca_file, proxy=proxy),
            ApiSettings("default", base_url, version, self.key, store_id=store_id),
            ClientMetrics(self.registry),
            clock.clock if isinstance(clock, FakeClock) else clock,
            limits,
        )

    async def poll(
        self, seconds: float = 60.0, tracked: Mapping[str, TrackedFineTune] = NONE_TRACKED
    ) -> Listing:
        return await self.client.list_fine_tunes(seconds, tracked)

    async def poll_ids(self, seconds: float = 60.0) -> list[str]:
        return list((await self.poll(seconds)).fine_tunes)

    async def poll_error(self, seconds: float = 60.0) -> CartesiaError:
        """Return the error of a poll that must fail, and whose text must not contain the key."""
        with pytest.raises(CartesiaError) as caught:
            await self.poll(seconds)
        texts = f"{caught.value} {caught.value!r}"
        assert self.key.value is None or self.key.value not in texts
        return caught.value

    def sample(self, name: str, **labels: str) -> Any:
        full = f"cartesia_exporter_api_{name}"
        return self.registry.get_sample_value(full, {"account": "default", **labels})

    @property
    def failures(self) -> dict[str, float]:
        """The numbers of failed requests by reason, without zeros."""
        counts = {r: self.sample("request_failures_total", reason=r) for r in REASONS}
        return {reason: count for reason, count in counts.items() if count}

    @property
    def codes(self) -> dict[str, float]:
        """The numbers of answered requests by HTTP status, without zeros."""
        return {
            sample.labels["code"]: sample.value
            for family in self.registry.collect()
            for sample in family.samples
            if sample.name == "cartesia_exporter_api_requests_total" and sample.value
        }

    @property
    def retries(self) -> float:
        return float(self.sample("request_retries_total"))

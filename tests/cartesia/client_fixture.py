"""One account and everything its client is made of."""

import asyncio
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from exporter.cartesia.client import Api, Client, ClientMetrics, Limits
from exporter.cartesia.errors import REASONS, CartesiaError
from exporter.cartesia.listing import Listing
from exporter.cartesia.pages import NOTHING
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


class Account:
    """A client whose key, clock and counts a test holds."""

    def __init__(
        self,
        clock: FakeClock | Clock,
        base_url: str = BASE_URL,
        *,
        ca_file: Path | None = None,
        proxy: Secret | None = None,
        limits: Limits = Limits(),  # noqa: B008 - it is frozen
    ) -> None:
        self.key = FakeSecret(KEY)
        self.registry = CollectorRegistry()
        self._exchange = HttpClient(ca_file=ca_file, proxy=proxy)
        self.client = Client(
            self._exchange,
            Api("default", base_url, "2026-03-01", self.key),
            ClientMetrics(self.registry),
            clock.clock if isinstance(clock, FakeClock) else clock,
            limits,
        )

    def list(
        self, seconds: float = 60.0, known: Mapping[str, TrackedFineTune] = NOTHING
    ) -> Listing:
        """Read the list in an event loop of its own."""

        async def run() -> Listing:
            try:
                return await self.client.list_fine_tunes(seconds, known)
            finally:
                await self._exchange.aclose()

        return asyncio.run(run())

    def fails(self, seconds: float = 60.0) -> CartesiaError:
        """Read the list in vain; the key must not show."""
        with pytest.raises(CartesiaError) as caught:
            self.list(seconds)
        shown = f"{caught.value} {caught.value!r}"
        assert self.key.value is None or self.key.value not in shown
        return caught.value

    def sample(self, name: str, **labels: str) -> Any:
        full = f"cartesia_exporter_api_{name}"
        return self.registry.get_sample_value(full, {"account": "default", **labels})

    @property
    def failures(self) -> dict[str, float]:
        """How many requests failed, by reason; reasons that never happened are left out."""
        counts = {r: self.sample("request_failures_total", reason=r) for r in REASONS}
        return {reason: count for reason, count in counts.items() if count}

    @property
    def codes(self) -> dict[str, float]:
        """How many requests were answered, by HTTP status."""
        return {
            sample.labels["code"]: sample.value
            for family in self.registry.collect()
            for sample in family.samples
            if sample.name == "cartesia_exporter_api_requests_total" and sample.value
        }

    @property
    def retries(self) -> float:
        return float(self.sample("request_retries_total"))

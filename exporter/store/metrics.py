"""Metrics of the store."""

from collections.abc import Iterator
from contextlib import suppress

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from exporter.store.database import Database


class StoreMetrics(Collector):
    """Size of the state and number of its errors."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def collect(self) -> Iterator[Metric]:
        """Yield the metric families of the store."""
        size = GaugeMetricFamily(
            "cartesia_exporter_store_size_bytes",
            "Size of the state in bytes: file and write-ahead log, or tables and indexes.",
        )
        with suppress(OSError):
            size.add_metric((), self._database.engine.size())
        yield size
        yield GaugeMetricFamily(
            "cartesia_exporter_store_lost",
            "Whether the state was deleted, replaced or taken over (1); the agent ends then.",
            value=self._database.lost is not None,
        )
        yield CounterMetricFamily(
            "cartesia_exporter_store_errors",
            "Failed reads and writes of the state.",
            value=self._database.errors,
        )

"""Metrics of the process: its resources, Python, the version, and its log."""

import platform
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from exporter import __version__, logs


def new_registry() -> CollectorRegistry:
    """Return a registry with the metrics of the process."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    registry.register(_LogMetrics())
    build = Gauge(
        "cartesia_exporter_build_info",
        "Version of the exporter and of Python; the value is always 1.",
        ("version", "pythonversion"),
        registry=registry,
    )
    build.labels(__version__, platform.python_version()).set(1)
    return registry


class _LogMetrics(Collector):
    def collect(self) -> Iterator[Metric]:
        yield CounterMetricFamily(
            "cartesia_exporter_log_lines_dropped",
            "Log lines dropped because standard error could not be written.",
            value=logs.dropped_lines(),
        )

"""What is counted of the deliveries, for all receivers of a registry."""

from collections.abc import Iterator
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from exporter.core.retry import CircuitState
from exporter.store.outbox import Backlog

_REASONS: Final = ("throttled", "transient", "endpoint", "payload", "expired")
_LABEL: Final = ("receiver",)


class DeliveryMetrics(Collector):
    """Counts of the requests to the receivers, and what each of them is owed."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._shown: dict[str, tuple[Backlog, CircuitState]] = {}
        self.tried = Counter(
            "cartesia_exporter_notifications_total",
            "Requests to a receiver that were tried.",
            _LABEL,
            registry=registry,
        )
        self.failed = Counter(
            "cartesia_exporter_notifications_failed_total",
            "Requests to a receiver that failed, by reason; expired are events that were given up.",
            (*_LABEL, "reason"),
            registry=registry,
        )
        self.duration = Histogram(
            "cartesia_exporter_notification_duration_seconds",
            "Time of one request to a receiver.",
            _LABEL,
            buckets=(0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0),
            registry=registry,
        )
        self.delay = Histogram(
            "cartesia_exporter_notification_delay_seconds",
            "Time from the observation of an event until a receiver had taken it.",
            _LABEL,
            buckets=(1, 2.5, 5, 10, 30, 60, 300, 900, 3600, 4 * 3600, 24 * 3600, 72 * 3600),
            registry=registry,
        )
        registry.register(self)

    def initialise(self, receiver: str) -> None:
        """Show a receiver's counters before anything happens."""
        self.tried.labels(receiver)
        for reason in _REASONS:
            self.failed.labels(receiver, reason)
        self.duration.labels(receiver)
        self.delay.labels(receiver)

    def forget(self, receiver: str) -> None:
        """Show nothing of a receiver any more."""
        for metric in (self.tried, self.failed, self.duration, self.delay):
            metric.remove_by_labels({"receiver": receiver})
        self._shown = {name: shown for name, shown in self._shown.items() if name != receiver}

    def shows(self, receiver: str) -> bool:
        """Whether it is known what a receiver is owed; until then nothing is said of it."""
        return receiver in self._shown

    def show(self, receiver: str, backlog: Backlog, health: CircuitState) -> None:
        """Show what a receiver is owed now, and how it is doing."""
        self._shown = {**self._shown, receiver: (backlog, health)}

    def collect(self) -> Iterator[Metric]:
        """Yield what is owed, for all receivers."""
        pending = _gauge("deliveries_pending", "Events that a receiver is still owed.")
        dead = _gauge(
            "deliveries_dead", "Events that a receiver refused for good or that grew too old."
        )
        oldest = _gauge(
            "delivery_oldest_pending_timestamp_seconds",
            "Unix time since when the oldest of the pending events is owed; absent without one.",
        )
        up = _gauge(
            "receiver_up",
            "Whether the last request did not fail for the receiver's sake.",
        )
        for receiver, (backlog, health) in self._shown.items():
            pending.add_metric((receiver,), backlog.pending)
            dead.add_metric((receiver,), backlog.dead)
            if backlog.oldest is not None:
                oldest.add_metric((receiver,), backlog.oldest)
            up.add_metric((receiver,), health.failures == 0)
        yield from (pending, dead, oldest, up)


def _gauge(name: str, text: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"cartesia_exporter_{name}", text, labels=_LABEL)

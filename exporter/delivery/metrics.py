"""Metrics of the delivery services: requests, failures, delays and backlogs."""

from collections.abc import Iterable, Iterator
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from exporter.core.retry import CircuitState
from exporter.store.receiver_outbox import Backlog

_REASONS: Final = ("throttled", "transient", "endpoint", "payload")
_LABEL: Final = ("receiver",)

_SAME_SECONDS: Final = 1.0
"""A smaller change of a timestamp is not shown: the wall clock is corrected all the time, and each
change has the page rendered anew."""


class DeliveryMetrics(Collector):
    """Metrics of all receivers."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._backlogs: dict[str, tuple[Backlog, float | None, CircuitState]] = {}
        self._requests = Counter(
            "cartesia_exporter_notifications_total",
            "Requests to a receiver, successful or failed.",
            _LABEL,
            registry=registry,
        )
        self._failures = Counter(
            "cartesia_exporter_notifications_failed_total",
            "Failed requests to a receiver, by reason.",
            (*_LABEL, "reason"),
            registry=registry,
        )
        self._expired = Counter(
            "cartesia_exporter_deliveries_expired_total",
            "Deliveries that became dead because they were not delivered within max_age.",
            _LABEL,
            registry=registry,
        )
        self._duration = Histogram(
            "cartesia_exporter_notification_duration_seconds",
            "Duration of requests to a receiver in seconds.",
            _LABEL,
            buckets=(0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0),
            registry=registry,
        )
        self._delay = Histogram(
            "cartesia_exporter_notification_delay_seconds",
            "Time in seconds from the observation of an event to its delivery.",
            _LABEL,
            buckets=(1, 2.5, 5, 10, 30, 60, 300, 900, 3600, 4 * 3600, 24 * 3600, 72 * 3600),
            registry=registry,
        )
        registry.register(self)

    def initialise(self, receiver: str) -> None:
        """Create a receiver's counters, so that they are served as 0 from the start."""
        self._requests.labels(receiver)
        for reason in _REASONS:
            self._failures.labels(receiver, reason)
        self._expired.labels(receiver)
        self._duration.labels(receiver)
        self._delay.labels(receiver)

    def forget(self, receiver: str) -> None:
        """Remove a receiver's series."""
        counters = self._requests, self._failures, self._expired
        for metric in (*counters, self._duration, self._delay):
            metric.remove_by_labels({"receiver": receiver})
        self._backlogs = {name: each for name, each in self._backlogs.items() if name != receiver}

    def record_request(self, receiver: str, seconds: float) -> None:
        """Count a request that took ``seconds``."""
        self._requests.labels(receiver).inc()
        self._duration.labels(receiver).observe(seconds)

    def record_failure(self, receiver: str, reason: str) -> None:
        """Count a failed request."""
        self._failures.labels(receiver, reason).inc()

    def record_expired(self, receiver: str, number: int) -> None:
        """Count events whose deliveries became dead because of their age."""
        self._expired.labels(receiver).inc(number)

    def record_delays(self, receiver: str, delays: Iterable[float]) -> None:
        """Count delivered events by the seconds from observation to delivery."""
        for delay in delays:
            self._delay.labels(receiver).observe(delay)

    def has(self, receiver: str) -> bool:
        """Return whether a receiver's backlog is known; its gauges are absent until then."""
        return receiver in self._backlogs

    def update(self, receiver: str, backlog: Backlog, circuit: CircuitState, now: float) -> None:
        """Replace the gauges of a receiver at ``now`` (Unix seconds)."""
        oldest = None if backlog.oldest_age is None else now - backlog.oldest_age
        before = self._backlogs[receiver][1] if self.has(receiver) else None
        if oldest is not None and before is not None and abs(oldest - before) < _SAME_SECONDS:
            oldest = before
        self._backlogs = {**self._backlogs, receiver: (backlog, oldest, circuit)}

    def collect(self) -> Iterator[Metric]:
        """Yield the gauges of all receivers."""
        pending = _gauge(
            "deliveries_pending", "Pending deliveries of a receiver, without muted ones."
        )
        dead = _gauge(
            "deliveries_dead", "Dead deliveries of a receiver: refused for good, or expired."
        )
        oldest = _gauge(
            "delivery_oldest_pending_timestamp_seconds",
            "Unix time from which the oldest pending delivery could be sent; absent without one. "
            "Held and muted deliveries are not counted, nor is time while the agent was stopped.",
        )
        held = GaugeMetricFamily(
            "cartesia_exporter_deliveries_held",
            "Pending deliveries that may not be sent yet, by reason.",
            labels=(*_LABEL, "reason"),
        )
        muted = _gauge("deliveries_muted", "Deliveries that a mute holds; they are not pending.")
        up = _gauge(
            "receiver_up",
            "Whether the last request was delivered, or refused for its content only (1); 0 after "
            "any other failure.",
        )
        for receiver, (backlog, queued_at, circuit) in self._backlogs.items():
            pending.add_metric((receiver,), backlog.pending)
            dead.add_metric((receiver,), backlog.dead)
            held.add_metric((receiver, "group_interval"), backlog.held)
            muted.add_metric((receiver,), backlog.muted)
            if queued_at is not None:
                oldest.add_metric((receiver,), queued_at)
            up.add_metric((receiver,), circuit.failures == 0)
        yield from (pending, held, muted, dead, oldest, up)


def _gauge(name: str, text: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"cartesia_exporter_{name}", text, labels=_LABEL)

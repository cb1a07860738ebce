"""Metrics of the pollers."""

from typing import Final

from prometheus_client import CollectorRegistry, Counter

from exporter.cartesia.errors import REASONS

_REASONS: Final = (*REASONS, "storage")


class PollMetrics:
    """Counters of all pollers, by account."""

    def __init__(self, registry: CollectorRegistry) -> None:
        label = ("account",)
        self.polls = Counter(
            "cartesia_exporter_polls_total", "Polls started.", label, registry=registry
        )
        self.failures = Counter(
            "cartesia_exporter_poll_failures_total",
            "Failed polls, by reason.",
            (*label, "reason"),
            registry=registry,
        )
        self.skipped = Counter(
            "cartesia_exporter_polls_skipped_total",
            "Polls skipped because the API asked to wait or refused the key.",
            label,
            registry=registry,
        )
        self.folded = Counter(
            "cartesia_exporter_label_values_folded_total",
            "Label values counted as other because metrics.max_models was reached.",
            registry=registry,
        )

    def initialise(self, account: str) -> None:
        """Create an account's series with the value 0."""
        self.polls.labels(account)
        for reason in _REASONS:
            self.failures.labels(account, reason)
        self.skipped.labels(account)

    def forget(self, account: str) -> None:
        """Remove an account's series."""
        # One by one: remove_by_labels() looks at the series of all accounts.
        self.polls.remove(account)
        for reason in _REASONS:
            self.failures.remove(account, reason)
        self.skipped.remove(account)

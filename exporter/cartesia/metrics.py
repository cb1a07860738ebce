"""Metrics of the requests to the API."""

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram

from exporter.cartesia.errors import REASONS

_OK: Final = "200"


class ClientMetrics:
    """Request metrics of all accounts of a registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        label = ("account",)
        self._codes = {_OK}
        self._requests = Counter(
            "cartesia_exporter_api_requests_total",
            "Requests to the Cartesia API that were answered, by HTTP status.",
            (*label, "code"),
            registry=registry,
        )
        self.failures = Counter(
            "cartesia_exporter_api_request_failures_total",
            "Requests to the Cartesia API that failed, by reason.",
            (*label, "reason"),
            registry=registry,
        )
        self.retries = Counter(
            "cartesia_exporter_api_request_retries_total",
            "Requests to the Cartesia API that were retries of a failed request.",
            label,
            registry=registry,
        )
        self.duration = Histogram(
            "cartesia_exporter_api_request_duration_seconds",
            "Duration of requests to the Cartesia API in seconds, until the body was read.",
            label,
            buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0),
            registry=registry,
        )

    def initialise(self, account: str) -> None:
        """Create an account's series with the value zero."""
        self._requests.labels(account, _OK)
        for reason in REASONS:
            self.failures.labels(account, reason)
        self.retries.labels(account)
        self.duration.labels(account)

    def record_answer(self, account: str, status: int) -> None:
        """Count an answered request by its HTTP status."""
        code = str(status)
        self._codes.add(code)
        self._requests.labels(account, code).inc()

    def forget(self, account: str) -> None:
        """Remove an account's series."""
        # One by one: remove_by_labels() looks at the series of all accounts.
        for code in self._codes:
            self._requests.remove(account, code)
        for reason in REASONS:
            self.failures.remove(account, reason)
        self.retries.remove(account)
        self.duration.remove(account)

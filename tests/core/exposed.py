"""The page that follows from views of accounts, as Prometheus and a person read it."""

from collections.abc import Sequence

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.registry import Collector

from exporter.core.exposition import AccountView, families


class _Given(Collector):
    def __init__(self, views: Sequence[AccountView]) -> None:
        self._views = views

    def collect(self) -> list[Metric]:
        return list(families(self._views))


def text(*views: AccountView) -> str:
    return str(generate_latest(_registry(views)), "utf-8")


def openmetrics(*views: AccountView) -> str:
    return str(generate_openmetrics(_registry(views)), "utf-8")


def _registry(views: Sequence[AccountView]) -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(_Given(views))
    return registry

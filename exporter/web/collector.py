"""What the metrics page shows of the accounts: the newest view of each, whatever thread asks."""

from collections.abc import Iterator

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from exporter.core.exposition import AccountView, families


class Views(Collector):
    """The newest view of each account. A view is frozen and replaced as a whole."""

    def __init__(self) -> None:
        self._views: dict[str, AccountView] = {}

    def publish(self, view: AccountView) -> None:
        """Show ``view`` in place of the account's last one."""
        self._views = {**self._views, view.account: view}

    def newest(self) -> list[AccountView]:
        """Return the newest view of each account."""
        return list(self._views.values())

    def collect(self) -> Iterator[Metric]:
        """Yield the metric families of all accounts."""
        return families(self.newest())

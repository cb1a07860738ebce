"""Lines of the page that are kept as long as what they show does not change.

With hundreds of accounts most of the page stays as it was from poll to poll, and the thread that
writes it all anew holds up the event loop.
"""

from collections.abc import Sequence

from prometheus_client.core import Metric

from exporter.core.exposition import history_families
from exporter.core.series import Lines, family_of, head, joined, lines, rows
from exporter.core.view import AccountView


class HistoryLines:
    """What was ever counted of the accounts; of each account, written where it changed."""

    def __init__(self) -> None:
        self._kept: dict[str, tuple[object, list[Lines]]] = {}

    def of(self, views: Sequence[AccountView]) -> Lines:
        """Return the lines of these accounts; what is known of others is forgotten."""
        self._kept = {view.account: self._rows(view) for view in views}
        every = [found for _, found in self._kept.values()]
        return joined(
            line
            for place, family in enumerate(history_families([]))
            for line in (head(family), *(found[place] for found in every))
        )

    def _rows(self, view: AccountView) -> tuple[object, list[Lines]]:
        shown = (view.shape, view.labels, view.counts, view.tallies, view.examples)
        before = self._kept.get(view.account)
        if before is not None and before[0] == shown:
            return before
        return shown, [rows(family) for family in history_families([view])]


class MetricLines:
    """The lines of metrics of the library, each written where its samples changed."""

    def __init__(self) -> None:
        self._kept: dict[str, tuple[Metric, Lines]] = {}

    def of(self, metrics: Sequence[Metric]) -> Lines:
        """Return the lines of these metrics, each of which has a name of its own."""
        self._kept = {metric.name: self._lines(metric) for metric in metrics}
        return joined(each for _, each in self._kept.values())

    def _lines(self, metric: Metric) -> tuple[Metric, Lines]:
        before = self._kept.get(metric.name)
        if before is not None and before[0] == metric:
            return before
        return metric, lines([family_of(metric)])

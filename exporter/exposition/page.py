"""The metrics page, kept ready: rendered in a thread when something changed, joined by a scrape."""

import asyncio
import math
import operator
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, Protocol, TypeVar

from prometheus_client.core import Metric

from exporter.core.view import AccountStatus
from exporter.exposition.families import data_families, history_families, poll_families
from exporter.exposition.gzip import Body, GzipPrefix, beginning, body
from exporter.exposition.text_format import ExpositionText, family_of, head, joined, lines, rows
from exporter.supervisor import DefaultService, pause


class HistoryLines:
    """What was ever counted of the accounts; of each account, written where it changed."""

    def __init__(self) -> None:
        self._kept: dict[str, tuple[object, list[ExpositionText]]] = {}

    def of(self, views: Sequence[AccountStatus]) -> ExpositionText:
        """Return the lines of these accounts; what is known of others is forgotten."""
        self._kept = {view.account: self._rows(view) for view in views}
        every = [found for _, found in self._kept.values()]
        return joined(
            line
            for place, family in enumerate(history_families([]))
            for line in (head(family), *(found[place] for found in every))
        )

    def _rows(self, view: AccountStatus) -> tuple[object, list[ExpositionText]]:
        shown = (view.options, view.labels, view.counts, view.counters, view.examples)
        before = self._kept.get(view.account)
        if before is not None and before[0] == shown:
            return before
        return shown, [rows(family) for family in history_families([view])]


class MetricLines:
    """The lines of metrics of the library, each written where its samples changed."""

    def __init__(self) -> None:
        self._kept: dict[str, tuple[Metric, ExpositionText]] = {}

    def of(self, metrics: Sequence[Metric]) -> ExpositionText:
        """Return the lines of these metrics, each of which has a name of its own."""
        self._kept = {metric.name: self._lines(metric) for metric in metrics}
        return joined(each for _, each in self._kept.values())

    def _lines(self, metric: Metric) -> tuple[Metric, ExpositionText]:
        before = self._kept.get(metric.name)
        if before is not None and before[0] == metric:
            return before
        return metric, lines([family_of(metric)])


class StatusRegistry:
    """The newest view of each account. A view is frozen and replaced as a whole."""

    def __init__(self) -> None:
        self._views: dict[str, AccountStatus] = {}

    def publish(self, view: AccountStatus) -> None:
        """Show ``view`` in place of the account's last one."""
        self._views = {**self._views, view.account: view}

    def forget(self, account: str) -> None:
        """Show nothing of an account any more."""
        self._views = {name: view for name, view in self._views.items() if name != account}

    def newest(self) -> list[AccountStatus]:
        """Return the newest view of each account."""
        return list(self._views.values())


_TICK_SECONDS: Final = 0.25
"""How often it is looked whether something changed, and how old a counter on the page can be."""

_REST: Final = 9.0
_LONGEST_REST_SECONDS: Final = 2.0
"""With hundreds of accounts to look over a tenth of a core must do: it looks less often."""

_PROCESS_SECONDS: Final = 1.0
"""How old the figures of the process can be: they change always, and alone are no reason before."""

_PROCESS: Final = ("process_", "python_")
_END: Final = b"# EOF\n"

Monotonic = Callable[[], float]
_T = TypeVar("_T")


class Source(Protocol):
    """What has metrics of the library."""

    def collect(self) -> Iterable[Metric]:
        """Yield them."""


@dataclass(frozen=True, slots=True)
class RenderedPage:
    """The whole page in both formats, and the views that it shows.

    From ``until`` on, in monotonic seconds, one more of them is too old.
    """

    text: Body
    openmetrics: Body
    views: Sequence[AccountStatus] = ()
    until: float = math.inf


class Renderer:
    """Makes the page out of the newest views and a registry; for one thread at a time."""

    def __init__(
        self, registry: Source, views: Callable[[], Sequence[AccountStatus]], monotonic: Monotonic
    ) -> None:
        self._registry = registry
        self._views = views
        self.monotonic = monotonic
        self._fresh: list[AccountStatus] = []
        self._data = beginning(b"")
        self._seen: Sequence[AccountStatus] = ()
        self._until = math.inf
        self._accounts = ExpositionText("", "")
        self._history = HistoryLines()
        self._metrics: list[Metric] = []
        self._metric_lines = MetricLines()
        self._rendered_at = 0.0
        self._bodies: RenderedPage | None = None

    def render(self) -> RenderedPage:
        """Return the page as it is now; what did not change since the last time is as it was."""
        now, views = self.monotonic(), self._views()
        changed = self._see_accounts(views, now)
        metrics = list(self._registry.collect())
        changed |= _own(metrics) != _own(self._metrics)
        if self._bodies is None or changed or now - self._rendered_at >= _PROCESS_SECONDS:
            self._metrics, self._rendered_at = metrics, now
            self._bodies = self._new_bodies()
        return self._bodies

    def shows_newest(self, bodies: RenderedPage) -> bool:
        """Whether the accounts are still as this page shows them; for any thread."""
        return self.monotonic() < bodies.until and _are_same(self._views(), bodies.views)

    def _see_accounts(self, views: Sequence[AccountStatus], now: float) -> bool:
        if self._bodies is not None and now < self._until and _are_same(views, self._seen):
            return False
        fresh = [view for view in views if view.is_fresh(now)]
        if self._bodies is None or _data(fresh) != _data(self._fresh):
            self._data = beginning(lines(data_families(fresh)).text.encode())
        self._accounts = joined((lines(poll_families(views, now)), self._history.of(views)))
        self._until = min((v.stale_at for v in views if not v.is_stale(now)), default=math.inf)
        self._seen, self._fresh = views, fresh
        return True

    def _new_bodies(self) -> RenderedPage:
        rest = joined((self._accounts, self._metric_lines.of(self._metrics)))
        # The data series are gauges without exemplars, which both formats write alike.
        return RenderedPage(*_behind(self._data, rest), self._seen, self._until)

    def only(self, names: Collection[str]) -> RenderedPage:
        """Return the samples and families of these names, as they are now."""
        now, views = self.monotonic(), self._views()
        fresh = [view for view in views if view.is_fresh(now)]
        own = (*data_families(fresh), *poll_families(views, now), *history_families(views))
        every = (*own, *map(family_of, self._registry.collect()))
        asked = (family.only(names) for family in every)
        found = lines(family for family in asked if family.blocks)
        return RenderedPage(*_behind(beginning(b""), found))


def _behind(first: GzipPrefix, rest: ExpositionText) -> tuple[Body, Body]:
    return body(first, rest.text.encode()), body(first, rest.openmetrics.encode() + _END)


def _are_same(some: Sequence[AccountStatus], others: Sequence[AccountStatus]) -> bool:
    # By identity: a view is replaced, never changed, and to compare its counters takes long.
    return len(some) == len(others) and all(map(operator.is_, some, others))


def _data(views: list[AccountStatus]) -> list[object]:
    return [(view.account, view.options, view.counts, view.oldest, view.series) for view in views]


def _own(metrics: Sequence[Metric]) -> list[Metric]:
    return [metric for metric in metrics if not metric.name.startswith(_PROCESS)]


def pause_after(taken: float) -> float:
    """Return the seconds until it is looked again, when that took so many seconds."""
    return max(_TICK_SECONDS, min(_REST * taken, _LONGEST_REST_SECONDS))


class Page(DefaultService):
    """The page that scrapes are answered with, and the part that renews it.

    ``due_at`` is the monotonic time by which it will be ready, or begin to renew it.
    """

    def __init__(self, renderer: Renderer) -> None:
        self.wakeup_deadline = math.inf
        self._renderer = renderer
        # Not the loop's own threads: a few names that DNS does not answer would hold them all.
        self._thread = ThreadPoolExecutor(1, "page")
        self._bodies: RenderedPage | None = None

    async def run(self, stop: asyncio.Event) -> None:
        """Renew the page, four times a second at most, until ``stop`` is set.

        An error while it is rendered is a bug, and leaves here.
        """
        monotonic = self._renderer.monotonic
        while not stop.is_set():
            began = self.wakeup_deadline = monotonic()
            self._bodies = await self._in_thread(self._renderer.render)
            wait = pause_after(monotonic() - began)
            self.wakeup_deadline = monotonic() + wait
            await pause(stop, wait)

    async def newest(self) -> RenderedPage:
        """Return the page.

        Who is told of a failure finds it there, and nobody what is too old: when an account changed
        since the page was rendered, at most a moment ago, it is rendered first.
        """
        bodies = self._bodies
        if bodies is None or not self._renderer.shows_newest(bodies):
            bodies = self._bodies = await self._in_thread(self._renderer.render)
        return bodies

    async def only(self, names: Collection[str]) -> RenderedPage:
        """Return a part of the page, rendered for this request."""
        return await self._in_thread(lambda: self._renderer.only(names))

    async def _in_thread(self, work: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

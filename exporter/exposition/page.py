"""The metrics page: rendered in a thread when something changed, and kept ready for scrapes."""

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
from exporter.exposition.gzip import Body, GzipPrefix, append, compress_prefix
from exporter.exposition.text_format import (
    ExpositionText,
    concatenate,
    render_families,
    render_header,
    render_samples,
    to_family,
)
from exporter.supervisor import DefaultService, pause

_CHECK_SECONDS: Final = 0.25
"""Interval between checks for changes, and so the maximum age of a counter on the page."""

_PAUSE_PER_SECOND: Final = 9.0
_MAX_PAUSE_SECONDS: Final = 2.0
"""With hundreds of accounts, checks are less frequent, so that they use a tenth of a core."""

_PROCESS_SECONDS: Final = 1.0
"""Maximum age of process metrics. They always change, so they alone do not cause a rendering."""

_PROCESS_PREFIXES: Final = ("process_", "python_")
_EOF: Final = b"# EOF\n"

Monotonic = Callable[[], float]
_T = TypeVar("_T")


class Registry(Protocol):
    """A registry of ``prometheus_client``."""

    def collect(self) -> Iterable[Metric]:
        """Yield the metrics."""


class StatusRegistry:
    """The newest status of each account."""

    def __init__(self) -> None:
        self._statuses: dict[str, AccountStatus] = {}

    def publish(self, status: AccountStatus) -> None:
        """Replace the account's status."""
        self._statuses = {**self._statuses, status.account: status}

    def forget(self, account: str) -> None:
        """Remove the account's status."""
        self._statuses = {n: status for n, status in self._statuses.items() if n != account}

    def newest(self) -> list[AccountStatus]:
        """Return the newest status of each account."""
        return list(self._statuses.values())


@dataclass(frozen=True, slots=True)
class RenderedPage:
    """The page in both formats, and the statuses that it shows.

    At ``valid_until`` (monotonic seconds) the data of another account becomes stale.
    """

    text: Body
    openmetrics: Body
    statuses: Sequence[AccountStatus] = ()
    valid_until: float = math.inf


class Page(DefaultService):
    """Service that renders the page when something changed, and serves the newest one to scrapes.

    ``wakeup_deadline`` is the monotonic time by which it will have started the next check.
    """

    def __init__(self, renderer: "Renderer") -> None:
        self.wakeup_deadline = math.inf
        self._renderer = renderer
        # Not the loop's default executor: name lookups that get no answer could fill all of it.
        self._thread = ThreadPoolExecutor(1, "page")
        self._rendered: RenderedPage | None = None

    async def run(self, stop: asyncio.Event) -> None:
        """Render the page at most four times a second until ``stop`` is set.

        An exception from rendering is a bug; it is raised from here.
        """
        monotonic = self._renderer.monotonic
        while not stop.is_set():
            began = self.wakeup_deadline = monotonic()
            self._rendered = await self._in_thread(self._renderer.render)
            wait = pause_after(monotonic() - began)
            self.wakeup_deadline = monotonic() + wait
            await pause(stop, wait)

    async def newest(self) -> RenderedPage:
        """Return the page, rendered first if a status changed or became stale since.

        So the page shows each failure that a receiver was notified of, and never stale data.
        """
        rendered = self._rendered
        if rendered is None or not self._renderer.is_current(rendered):
            rendered = self._rendered = await self._in_thread(self._renderer.render)
        return rendered

    async def only(self, names: Collection[str]) -> RenderedPage:
        """Render a page with only the samples whose own or family name is in ``names``."""
        return await self._in_thread(lambda: self._renderer.render_only(names))

    async def _in_thread(self, work: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)


def pause_after(seconds: float) -> float:
    """Return the pause before the next check, in seconds, after a check that took ``seconds``."""
    return max(_CHECK_SECONDS, min(_PAUSE_PER_SECOND * seconds, _MAX_PAUSE_SECONDS))


class Renderer:
    """Renders the page from the newest statuses and a registry. For one thread at a time.

    Text whose source did not change is reused. The data series are also compressed only when they
    change: they are the largest part of the page.
    """

    def __init__(
        self,
        registry: Registry,
        statuses: Callable[[], Sequence[AccountStatus]],
        monotonic: Monotonic,
    ) -> None:
        self._registry = registry
        self._get_statuses = statuses
        self.monotonic = monotonic
        self._statuses: Sequence[AccountStatus] = ()
        self._valid_until = math.inf
        self._fresh: list[AccountStatus] = []
        self._data = compress_prefix(b"")
        self._account_text = ExpositionText("", "")
        self._history = HistoryCache()
        self._metrics: list[Metric] = []
        self._metric_cache = MetricCache()
        self._rendered_at = 0.0
        self._rendered: RenderedPage | None = None

    def render(self) -> RenderedPage:
        """Return the current page: the last one if nothing changed since."""
        now, statuses = self.monotonic(), self._get_statuses()
        changed = self._update_accounts(statuses, now)
        metrics = list(self._registry.collect())
        changed |= _without_process(metrics) != _without_process(self._metrics)
        if self._rendered is None or changed or now - self._rendered_at >= _PROCESS_SECONDS:
            self._metrics, self._rendered_at = metrics, now
            rest = concatenate((self._account_text, self._metric_cache.render(metrics)))
            self._rendered = RenderedPage(
                *_both_formats(self._data, rest), self._statuses, self._valid_until
            )
        return self._rendered

    def is_current(self, page: RenderedPage) -> bool:
        """Whether ``page`` shows the newest statuses and no stale data. For any thread."""
        return self.monotonic() < page.valid_until and _same_objects(
            self._get_statuses(), page.statuses
        )

    def render_only(self, names: Collection[str]) -> RenderedPage:
        """Render a page with only the samples whose own or family name is in ``names``."""
        now, statuses = self.monotonic(), self._get_statuses()
        families = (
            *data_families(status for status in statuses if status.is_fresh(now)),
            *poll_families(statuses, now),
            *history_families(statuses),
            *map(to_family, self._registry.collect()),
        )
        filtered = (family.only(names) for family in families)
        text = render_families(family for family in filtered if family.blocks)
        return RenderedPage(*_both_formats(compress_prefix(b""), text))

    def _update_accounts(self, statuses: Sequence[AccountStatus], now: float) -> bool:
        """Render the accounts' series if one of them changed; return whether it did."""
        unchanged = self._rendered is not None and _same_objects(statuses, self._statuses)
        if unchanged and now < self._valid_until:
            return False
        fresh = [status for status in statuses if status.is_fresh(now)]
        if self._rendered is None or _data_inputs(fresh) != _data_inputs(self._fresh):
            # Gauges without exemplars: the text is the same in both formats.
            self._data = compress_prefix(render_families(data_families(fresh)).text.encode())
        self._account_text = concatenate(
            (render_families(poll_families(statuses, now)), self._history.render(statuses))
        )
        self._valid_until = min(
            (s.stale_at for s in statuses if not s.is_stale(now)), default=math.inf
        )
        self._statuses, self._fresh = statuses, fresh
        return True


class HistoryCache:
    """Text of the accounts' counters, rendered per account when they change."""

    def __init__(self) -> None:
        self._cache: dict[str, tuple[object, list[ExpositionText]]] = {}

    def render(self, statuses: Sequence[AccountStatus]) -> ExpositionText:
        """Return the text for these accounts, and drop all others from the cache."""
        self._cache = {status.account: self._entry(status) for status in statuses}
        return concatenate(
            text
            for index, family in enumerate(history_families([]))
            for text in (
                render_header(family),
                *(samples[index] for _, samples in self._cache.values()),
            )
        )

    def _entry(self, status: AccountStatus) -> tuple[object, list[ExpositionText]]:
        inputs = (status.options, status.labels, status.counts, status.counters, status.examples)
        cached = self._cache.get(status.account)
        if cached is not None and cached[0] == inputs:
            return cached
        return inputs, [render_samples(family) for family in history_families([status])]


class MetricCache:
    """Text of the registry's metrics, rendered per metric when its samples change."""

    def __init__(self) -> None:
        self._cache: dict[str, tuple[Metric, ExpositionText]] = {}

    def render(self, metrics: Sequence[Metric]) -> ExpositionText:
        """Return the text of these metrics, and drop all others from the cache."""
        self._cache = {metric.name: self._entry(metric) for metric in metrics}
        return concatenate(text for _, text in self._cache.values())

    def _entry(self, metric: Metric) -> tuple[Metric, ExpositionText]:
        cached = self._cache.get(metric.name)
        if cached is not None and cached[0] == metric:
            return cached
        return metric, render_families([to_family(metric)])


def _both_formats(prefix: GzipPrefix, rest: ExpositionText) -> tuple[Body, Body]:
    return append(prefix, rest.text.encode()), append(prefix, rest.openmetrics.encode() + _EOF)


def _same_objects(some: Sequence[AccountStatus], others: Sequence[AccountStatus]) -> bool:
    # By identity: a status is replaced, never changed, and comparing its counters is slow.
    return len(some) == len(others) and all(map(operator.is_, some, others))


def _data_inputs(statuses: list[AccountStatus]) -> list[object]:
    return [(s.account, s.options, s.counts, s.oldest, s.series) for s in statuses]


def _without_process(metrics: Sequence[Metric]) -> list[Metric]:
    return [metric for metric in metrics if not metric.name.startswith(_PROCESS_PREFIXES)]

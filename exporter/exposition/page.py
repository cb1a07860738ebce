"""The metrics page: rendered in a thread when something changed, and kept ready for scrapes."""

import asyncio
import math
import operator
from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import chain
from typing import Final

from msgspec import Struct
from prometheus_client.core import CollectorRegistry, Metric

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
from exporter.supervisor import Service, pause
from exporter.threads import start_executor

_CHECK_SECONDS: Final = 0.25
"""Interval between checks for changes, and so the maximum age of a counter on the page."""

_PAUSE_PER_SECOND: Final = 9.0
_MAX_PAUSE_SECONDS: Final = 2.0
"""With hundreds of accounts, checks are less frequent, so that they use a tenth of a core."""

_PROCESS_SECONDS: Final = 1.0
"""Maximum age of process metrics. They always change, so they alone do not cause a rendering."""

_PROCESS_PREFIXES: Final = ("process_", "python_")
_EOF: Final = b"# EOF\n"


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


class RenderedPage(Struct, frozen=True):
    """The page in both formats, and the statuses that it shows.

    At ``valid_until`` (monotonic seconds) the data of another account becomes stale.
    """

    text: Body
    openmetrics: Body
    statuses: Sequence[AccountStatus] = ()
    valid_until: float = math.inf

    def is_current(self, statuses: Sequence[AccountStatus], monotonic: float) -> bool:
        """Whether the page shows these very statuses and no stale data."""
        # By identity: a status is replaced, never changed, and comparing its counters is slow.
        same = len(statuses) == len(self.statuses) and all(
            map(operator.is_, statuses, self.statuses)
        )
        return same and monotonic < self.valid_until


class Page(Service):
    """Service that renders the page when something changed, and serves the newest one to scrapes.

    ``wakeup_deadline`` is the monotonic time by which it will have started the next check.
    """

    wakeup_deadline: float = math.inf

    def __init__(self, renderer: "Renderer") -> None:
        self._renderer = renderer
        # Not the loop's default executor: name lookups that get no answer could fill all of it.
        self._thread = start_executor("page")
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
        return await self._in_thread(self._renderer.render_only, names)

    async def _in_thread(
        self, render: Callable[..., RenderedPage], *arguments: Collection[str]
    ) -> RenderedPage:
        return await asyncio.get_running_loop().run_in_executor(self._thread, render, *arguments)


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
        registry: CollectorRegistry,
        statuses: Callable[[], Sequence[AccountStatus]],
        monotonic: Callable[[], float],
    ) -> None:
        self._registry = registry
        self._get_statuses = statuses
        self.monotonic = monotonic
        self._data_inputs: list[object] | None = None
        self._data = compress_prefix(b"")
        self._account_text = ExpositionText("", "")
        self._history = TextCache()
        self._stable_metrics: list[Metric] = []
        self._metric_texts = TextCache()
        self._rendered_at = 0.0
        self._rendered: RenderedPage | None = None

    def render(self) -> RenderedPage:
        """Return the current page: the last one if nothing changed since."""
        now, statuses = self.monotonic(), self._get_statuses()
        metrics = list(self._registry.collect())
        stable = [each for each in metrics if not each.name.startswith(_PROCESS_PREFIXES)]
        last = self._rendered
        if last is None or not last.is_current(statuses, now):
            self._render_accounts(statuses, now)
        elif stable == self._stable_metrics and now - self._rendered_at < _PROCESS_SECONDS:
            return last
        self._stable_metrics, self._rendered_at = stable, now
        rest = concatenate((self._account_text, render_metrics(metrics, self._metric_texts)))
        valid_until = min((s.stale_at for s in statuses if not s.is_stale(now)), default=math.inf)
        self._rendered = RenderedPage(*_both_formats(self._data, rest), statuses, valid_until)
        return self._rendered

    def is_current(self, page: RenderedPage) -> bool:
        """Whether ``page`` shows the newest statuses and no stale data. For any thread."""
        return page.is_current(self._get_statuses(), self.monotonic())

    def render_only(self, names: Collection[str]) -> RenderedPage:
        """Render a page with only the samples whose own or family name is in ``names``."""
        now, statuses = self.monotonic(), self._get_statuses()
        families = (
            *data_families(statuses, now),
            *poll_families(statuses, now),
            *history_families(statuses),
            *map(to_family, self._registry.collect()),
        )
        filtered = (family.only(names) for family in families)
        text = render_families(family for family in filtered if family.blocks)
        return RenderedPage(*_both_formats(compress_prefix(b""), text))

    def _render_accounts(self, statuses: Sequence[AccountStatus], now: float) -> None:
        inputs: list[object] = [
            (s.account, s.options, s.counts, s.oldest, s.series)
            for s in statuses
            if s.is_fresh(now)
        ]
        if inputs != self._data_inputs:
            # Gauges without exemplars: the text is the same in both formats.
            text = render_families(data_families(statuses, now)).text
            self._data_inputs, self._data = inputs, compress_prefix(text.encode())
        polls = render_families(poll_families(statuses, now))
        self._account_text = concatenate((polls, render_history(statuses, self._history)))


class TextCache:
    """Texts by name, each rendered again when its input changes."""

    def __init__(self) -> None:
        self._entries: dict[str, tuple[object, list[ExpositionText]]] = {}

    def render(
        self, inputs: Mapping[str, object], render: Callable[[str], list[ExpositionText]]
    ) -> list[list[ExpositionText]]:
        """Return the texts of all names in ``inputs``, and drop all others from the cache."""
        old = self._entries
        self._entries = {
            name: old[name] if name in old and old[name][0] == new else (new, render(name))
            for name, new in inputs.items()
        }
        return [texts for _, texts in self._entries.values()]


def render_history(statuses: Sequence[AccountStatus], cache: TextCache) -> ExpositionText:
    """Return the text of the accounts' counters, rendered per account when they change."""
    by_account = {status.account: status for status in statuses}
    inputs = {
        s.account: (s.options, s.labels, s.counts, s.counters, s.examples, s.moves)
        for s in statuses
    }
    accounts = cache.render(
        inputs, lambda account: list(map(render_samples, history_families([by_account[account]])))
    )
    return concatenate(
        text
        for index, family in enumerate(history_families([]))
        for text in (render_header(family), *(samples[index] for samples in accounts))
    )


def render_metrics(metrics: Sequence[Metric], cache: TextCache) -> ExpositionText:
    """Return the text of the registry's metrics, rendered per metric when its samples change."""
    by_name = {metric.name: metric for metric in metrics}
    texts = cache.render(by_name, lambda name: [render_families([to_family(by_name[name])])])
    return concatenate(chain.from_iterable(texts))


def _both_formats(prefix: GzipPrefix, rest: ExpositionText) -> tuple[Body, Body]:
    return append(prefix, rest.text.encode()), append(prefix, rest.openmetrics.encode() + _EOF)

"""A metrics page whose statuses, registry and clock a test controls."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from msgspec.structs import replace
from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.parser import text_string_to_metric_families as parse_text

from exporter.exposition.page import Page, RenderedPage, Renderer, StatusRegistry
from tests.core.sample_account import EVERYTHING


class PageFixture:
    """A page over a registry and published statuses, with a clock that stands still."""

    def __init__(self) -> None:
        self.now = 100.0
        self.registry = CollectorRegistry()
        self.counter = Counter("cartesia_exporter_polls", "Polls.", registry=self.registry)
        self.process = Gauge("process_open_fds", "Always another.", registry=self.registry)
        self.statuses = StatusRegistry()
        self.renderer = Renderer(self.registry, self.statuses.newest, lambda: self.now)
        self.page = Page(self.renderer)

    def publish(self, **fields) -> None:
        """Publish the sample status with these fields replaced."""
        self.statuses.publish(replace(EVERYTHING, **fields))

    def render(self) -> RenderedPage:
        return self.renderer.render()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Page]:
        """Run the page's service."""
        stop = asyncio.Event()
        async with asyncio.timeout(20), asyncio.TaskGroup() as group:
            group.create_task(self.page.run(stop))
            try:
                yield self.page
            finally:
                stop.set()


def sample_names(content: bytes) -> set[str]:
    """Return the names of the samples in a page in text format."""
    return {s.name for family in parse_text(content.decode()) for s in family.samples}

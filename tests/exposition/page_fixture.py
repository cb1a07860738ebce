"""A page under a test's control."""

from dataclasses import replace

from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.parser import text_string_to_metric_families as text

from exporter.exposition.page import Page, RenderedPage, Renderer, StatusRegistry
from tests.core.sample_account import EVERYTHING


class Prefetcher:
    """A renderer of views and a registry under a test's control, and a clock that is held."""

    def __init__(self) -> None:
        self.now = 100.0
        self.registry = CollectorRegistry()
        self.counter = Counter("cartesia_exporter_polls", "Polls.", registry=self.registry)
        self.process = Gauge("process_open_fds", "Always another.", registry=self.registry)
        self.views = StatusRegistry()
        self.renderer = Renderer(self.registry, self.views.newest, lambda: self.now)
        self.page = Page(self.renderer)

    def publish(self, **fields) -> None:
        self.views.publish(replace(EVERYTHING, **fields))

    def render(self) -> RenderedPage:
        return self.renderer.render()


def names(content: bytes) -> set[str]:
    return {s.name for family in text(content.decode()) for s in family.samples}

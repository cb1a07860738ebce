"""The web application over sample statuses, and requests to it without a socket."""

import httpx
from prometheus_client import CollectorRegistry, Counter, Gauge

from exporter.core.counters import Counters
from exporter.core.health import Readiness
from exporter.core.labels import Labels
from exporter.core.view import AccountStatus
from exporter.exposition.page import Page, Renderer, StatusRegistry
from exporter.web.application import Application, WebContext

HOSTILE = "<script>alert(1)</script>&\"'\\\n\u2028"


def sample_status(**fields) -> AccountStatus:
    defaults = {
        "account": "main",
        "up": True,
        "polled_at": 1_800_000_000.0,
        "succeeded_at": 1_800_000_000.0,
        "labels": Labels(("sonic", HOSTILE)),
        "counts": {("sonic", "failed"): 2, (HOSTILE, "failed"): 1, ("sonic", "completed"): 40},
        "counters": Counters({(HOSTILE, "training", "failed"): 1}, {}),
    }
    return AccountStatus(**{**defaults, **fields})


def web_context(*statuses: AccountStatus, **fields) -> WebContext:
    """Return a context with these statuses, or one sample status."""
    registry, status_registry = CollectorRegistry(), StatusRegistry()
    for each in statuses or (sample_status(),):
        status_registry.publish(each)
    Gauge("hostile", HOSTILE, ("value",), registry=registry).labels(HOSTILE).set(1)
    Counter("counted", "A counter.", registry=registry).inc(exemplar={"fine_tune_id": "x"})
    readiness = fields.pop("readiness", Readiness(1, 1))
    page = Page(Renderer(registry, status_registry.newest, lambda: 0.0))
    return WebContext(page, lambda: readiness, statuses=status_registry.newest, **fields)


async def request(method: str, path: str, context: WebContext, *accept: str) -> httpx.Response:
    """Send a request with these Accept headers to the application."""
    transport = httpx.ASGITransport(Application(context))
    async with httpx.AsyncClient(transport=transport, base_url="http://agent") as client:
        client.headers.pop("accept")
        headers = [("Accept", value) for value in accept]
        return await client.request(method, path, headers=headers)

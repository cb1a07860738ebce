"""The two compared servers of /metrics: the agent's, and prometheus_client's own.

Both serve the same series, `cartesia_fine_tune_status` of SERIES fine-tunes, and the metrics of
their process. Run as `metrics_servers.py {ours|peer} SERIES`; it prints its port.
"""

import asyncio
import sys
import threading
import time

from prometheus_client import CollectorRegistry, Gauge, start_http_server
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from exporter import http_server
from exporter.agent.registry import new_registry
from exporter.core.health import Readiness
from exporter.core.view import AccountStatus, SeriesOptions
from exporter.exposition.page import Page, Renderer, StatusRegistry
from exporter.web.application import Application, WebContext

STATUSES = ("created", "training", "completed", "failed")


def fine_tunes(number: int, turn: int = 0) -> tuple[tuple[str, str, str], ...]:
    return tuple(
        (f"fine_tune_{n:022d}", f"sonic-{n % 20}", STATUSES[(n + turn) % 4]) for n in range(number)
    )


def account_status(number: int, turn: int = 0) -> AccountStatus:
    return AccountStatus(
        "default",
        up=True,
        counts={},
        options=SeriesOptions(most_fine_tunes=number),
        series=fine_tunes(number, turn),
    )


def page_of(statuses: StatusRegistry) -> Page:
    return Page(Renderer(new_registry(), statuses.newest, time.monotonic))


def peer_registry(number: int) -> CollectorRegistry:
    registry = CollectorRegistry()
    for collector in (ProcessCollector, PlatformCollector, GCCollector):
        collector(registry=registry)
    labels = ("account", "fine_tune_id", "model_id", "status")
    gauge = Gauge("cartesia_fine_tune_status", "Always 1.", labels, registry=registry)
    for values in fine_tunes(number):
        gauge.labels("default", *values).set(1)
    return registry


async def ours(number: int) -> None:
    statuses = StatusRegistry()
    statuses.publish(account_status(number))
    page = page_of(statuses)
    listener = await http_server.listen("127.0.0.1", 0)
    stop = asyncio.Event()
    print(listener.getsockname()[1], flush=True)
    app = Application(WebContext(page, lambda: Readiness(1, 1)))
    await asyncio.gather(http_server.serve(app, [listener], stop), page.run(stop))


def peer(number: int) -> None:
    server, _ = start_http_server(0, "127.0.0.1", peer_registry(number))
    print(server.server_port, flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    if sys.argv[1] == "ours":
        asyncio.run(ours(int(sys.argv[2])))
    else:
        peer(int(sys.argv[2]))

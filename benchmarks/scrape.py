"""Cost of a scrape, compared with prometheus_client's own server and the same series.

Prints the tables of docs/performance.md. The servers alternate in each round, so that a temporarily
slow machine affects both. The results are ratios and medians over the rounds.
"""

import asyncio
import contextlib
import http.client
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from metrics_servers import account_status, page_of, peer_registry
from prometheus_client import generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics

from exporter.exposition.page import Renderer, StatusRegistry

HERE = Path(__file__).parent
ROUNDS = 7
SERIES = (16, 1_000, 10_000)
REQUESTS = {16: (300, 150), 1_000: (300, 30), 10_000: (200, 8)}
"""Scrapes per round, of our server and of the peer."""

# The headers of Prometheus 2.42.
HEADERS = {
    "Accept": "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5",
    "Accept-Encoding": "gzip",
}


@contextlib.contextmanager
def server(name: str, number: int) -> Iterator[int]:
    command = [sys.executable, str(HERE / "metrics_servers.py"), name, str(number)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.terminate()


def scrapes(port: int, number: int) -> list[float]:
    """Return the seconds of each scrape, over one connection if the server keeps it open."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    durations = []
    for _ in range(number):
        began = time.perf_counter()
        connection.request("GET", "/metrics", headers=HEADERS)
        answer = connection.getresponse()
        content = answer.read()
        durations.append(time.perf_counter() - began)
        assert answer.status == 200
        assert answer.getheader("Content-Encoding") == "gzip", content[:100]
    connection.close()
    return durations


def summary(durations: list[float]) -> tuple[float, float, float]:
    """Return p50 and p99 in milliseconds, and scrapes per second."""
    percentiles = statistics.quantiles(durations, n=100, method="inclusive")
    return percentiles[49] * 1e3, percentiles[98] * 1e3, len(durations) / sum(durations)


def compare(number: int) -> str:
    found: dict[str, list[tuple[float, float, float]]] = {"ours": [], "peer": []}
    with server("ours", number) as ours, server("peer", number) as peer:
        for port in (ours, peer):
            scrapes(port, 3)
        for _ in range(ROUNDS):
            for name, port, many in zip(found, (ours, peer), REQUESTS[number], strict=True):
                found[name].append(summary(scrapes(port, many)))
    medians = {
        name: [statistics.median(column) for column in zip(*rounds, strict=True)]
        for name, rounds in found.items()
    }
    ratios = [b[0] / a[0] for a, b in zip(found["ours"], found["peer"], strict=True)]
    cells = [
        f"{mine:,.{digits}f} / {other:,.{digits}f}"
        for mine, other, digits in zip(medians["ours"], medians["peer"], (2, 2, 0), strict=True)
    ]
    return f"| {number:,} | {' | '.join(cells)} | {statistics.median(ratios):,.0f} x |"


def rendering(number: int = 10_000) -> tuple[float, float]:
    """Return the milliseconds to render both formats: ours with gzip, and the peer's."""
    statuses = StatusRegistry()
    registry = peer_registry(number)
    renderer = Renderer(peer_registry(0), statuses.newest, time.monotonic)
    mine, other = [], []
    for turn in range(ROUNDS):
        statuses.publish(account_status(number, turn))
        began = time.perf_counter()
        renderer.render()
        between = time.perf_counter()
        generate_latest(registry)
        generate_openmetrics(registry)
        mine.append(between - began)
        other.append(time.perf_counter() - between)
    return statistics.median(mine) * 1e3, statistics.median(other) * 1e3


async def longest_block(number: int = 10_000, seconds: float = 6.0) -> float:
    """Return the longest block of the event loop while a page is rendered, in milliseconds."""
    statuses, stop = StatusRegistry(), asyncio.Event()
    statuses.publish(account_status(number))
    page = page_of(statuses)
    running = asyncio.create_task(page.run(stop))
    await page.newest()
    worst, turn, until = 0.0, 0, time.perf_counter() + seconds
    upcoming = [account_status(number, turn) for turn in range(4)]
    changed = 0.0
    while (began := time.perf_counter()) < until:
        if began - changed > 0.2:
            turn, changed = turn + 1, began
            statuses.publish(upcoming[turn % 4])
        await asyncio.sleep(0.001)
        worst = max(worst, time.perf_counter() - began - 0.001)
    stop.set()
    await running
    return worst * 1e3


def machine() -> str:
    info = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    model = next(line.split(": ")[1] for line in info.splitlines() if line.startswith("model name"))
    return f"{os.cpu_count()} x {model}, Python {sys.version.split()[0]}"


def main() -> None:
    print(f"{machine()}; medians of {ROUNDS} rounds, ours / prometheus_client.start_http_server\n")
    print("| series | p50 ms | p99 ms | scrapes/s, one after another | p50, ratio |")
    print("|---|---|---|---|---|")
    for number in SERIES:
        print(compare(number), flush=True)
    mine, other = rendering()
    worst = asyncio.run(longest_block())
    print("\n| | |\n|---|---|")
    print(f"| 10,000 series rendered in both formats | {mine:.0f} ms with gzip / {other:.0f} ms |")
    print(f"| the event loop stood still meanwhile, at most | {worst:.0f} ms |")


if __name__ == "__main__":
    main()

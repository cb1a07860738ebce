"""Cost of a poll, compared with the official SDK's `list(limit=100)` and a naive httpx loop.

Prints the tables of docs/performance.md. All clients read the same pages from api_server.py and
alternate in each round, so that a temporarily slow machine affects all. The results are ratios and
medians over the rounds. Our client has the cursors of an earlier poll.
"""

import asyncio
import contextlib
import os
import random
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import ceil
from pathlib import Path

import httpx
from cartesia import Cartesia
from prometheus_client import CollectorRegistry

from exporter.cartesia.client import ApiSettings, CartesiaClient, ClientMetrics, RateLimits
from exporter.core.clock import Clock
from exporter.http_client import HttpClient

SERVER = Path(__file__).parent / "api_server.py"
ROUNDS = 5
KEY = "sk_car_benchmark.key"
CLOCK = Clock(time.time, time.monotonic, random.random)


class _Key:
    source = "the benchmark"

    def __call__(self) -> str:
        return KEY


@contextlib.contextmanager
def served_list(number: int, latency: float) -> Iterator[str]:
    command = [sys.executable, str(SERVER), str(number), str(latency)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.terminate()


def requests(base_url: str) -> int:
    with urllib.request.urlopen(f"{base_url}/requests") as response:
        return int(response.read())


class OurClient:
    """The exporter's client with its own event loop."""

    def __init__(self, base_url: str, concurrency: int) -> None:
        self._runner = asyncio.Runner()
        api = ApiSettings("default", base_url, "2026-03-01", _Key())
        metrics = ClientMetrics(CollectorRegistry())
        self._client = CartesiaClient(HttpClient(), api, metrics, CLOCK, RateLimits(concurrency))

    def __call__(self) -> int:
        return self._runner.run(self._read())

    async def _read(self) -> int:
        # The length only: asyncio's runner calls repr() on the result of a coroutine.
        return len((await self._client.list_fine_tunes(600)).fine_tunes)

    def close(self) -> None:
        self._runner.close()


def sdk(base_url: str) -> Callable[[], int]:
    client = Cartesia(api_key=KEY, base_url=base_url)
    return lambda: len({item.id: item.status for item in client.fine_tunes.list(limit=100)})


def naive_client() -> httpx.Client:
    return httpx.Client(headers={"Authorization": f"Bearer {KEY}"}, trust_env=False)


def naive_items(client: httpx.Client, base_url: str) -> Iterator[dict[str, str]]:
    params = {"limit": "100"}
    while True:
        body = client.get(f"{base_url}/fine-tunes/", params=params).json()
        yield from body["data"]
        if not body["has_more"]:
            return
        params["starting_after"] = body["data"][-1]["id"]


def naive(base_url: str) -> Callable[[], int]:
    client = naive_client()
    return lambda: len({item["id"]: item["status"] for item in naive_items(client, base_url)})


@dataclass(frozen=True)
class Cost:
    wall: float
    cpu: float


def cost(read: Callable[[], int], number: int) -> Cost:
    wall, cpu = time.perf_counter(), time.process_time()
    found = read()
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    assert found == number
    return Cost(wall, cpu)


def alternate(readers: dict[str, Callable[[], int]], number: int) -> dict[str, list[Cost]]:
    for read in readers.values():
        read()
    found: dict[str, list[Cost]] = {name: [] for name in readers}
    for _ in range(ROUNDS):
        for name, read in readers.items():
            found[name].append(cost(read, number))
    return found


def median(costs: list[Cost]) -> float:
    return statistics.median(each.wall for each in costs)


def ratio(costs: list[Cost], base: list[Cost]) -> float:
    return statistics.median(a.wall / b.wall for a, b in zip(costs, base, strict=True))


def steady(number: int, latency: float) -> str:
    with served_list(number, latency) as base_url:
        eight, sixteen = OurClient(base_url, 8), OurClient(base_url, 16)
        readers = {"8": eight, "16": sixteen, "sdk": sdk(base_url), "naive": naive(base_url)}
        found = alternate(readers, number)
        eight.close()
        sixteen.close()
    walls = " | ".join(f"{median(found[name]) * 1e3:,.0f}" for name in readers)
    ratios = " | ".join(
        f"{ratio(found[other], found[ours]):.1f} x"
        for other in ("sdk", "naive")
        for ours in ("8", "16")
    )
    bound = [max(1.0, number / 100 / connections) * latency * 1e3 for connections in (8, 16)]
    ratio_to_bound = (
        " | ".join(
            f"{median(found[name]) * 1e3 / least:.2f}"
            for name, least in zip(("8", "16"), bound, strict=True)
        )
        if latency
        else "- | -"
    )
    return f"| {number:,} | {latency * 1e3:.0f} ms | {walls} | {ratios} | {ratio_to_bound} |"


def processor(number: int = 10_000) -> str:
    """Return microseconds of CPU time per page: our first and unchanged poll, and the others."""
    found: dict[str, list[float]] = {name: [] for name in ("first", "unchanged", "sdk", "naive")}
    with served_list(number, 0) as base_url:
        others = {"sdk": sdk(base_url), "naive": naive(base_url)}
        for _ in range(ROUNDS):
            ours = OurClient(base_url, 8)
            costs = {"first": cost(ours, number)}
            ours()
            costs["unchanged"] = cost(ours, number)
            costs |= {name: cost(read, number) for name, read in others.items()}
            ours.close()
            for name, each in costs.items():
                found[name].append(each.cpu / ceil(number / 100) * 1e6)
    cells = " | ".join(f"{statistics.median(each):,.0f}" for each in found.values())
    shares = [a / b for a, b in zip(found["unchanged"], found["sdk"], strict=True)]
    return f"| {cells} | {statistics.median(shares):.2f} |"


def request_counts() -> Iterator[str]:
    """Yield the number of requests of a poll, for several numbers of fine-tunes."""
    for number in (50, 100, 1_000, 10_000):
        with served_list(number, 0) as base_url:
            ours = OurClient(base_url, 8)
            counts = []
            for read in (ours, ours, sdk(base_url), naive(base_url)):
                read()
                counts.append(requests(base_url))
            ours.close()
        yield f"| {number:,} | {' | '.join(f'{each:,}' for each in counts)} |"


def main() -> None:
    if len(os.sched_getaffinity(0)) > 1:
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    print(f"Steady polls, milliseconds, medians of {ROUNDS} rounds in turns\n")
    print("| fine-tunes | latency | ours, 8 connections | 16 | SDK | httpx loop ", end="")
    print("| SDK / 8 | SDK / 16 | httpx / 8 | httpx / 16 | / bound of 8 | of 16 |")
    print("|--:|--:" + "|--:" * 10 + "|")
    for number in (1_000, 10_000):
        for latency in (0.0, 0.02, 0.05):
            print(steady(number, latency), flush=True)
    print("\nProcessor time per page of 100, microseconds\n")
    print(
        "| first poll | unchanged poll | SDK | httpx loop | unchanged / SDK |\n" + "|--:" * 5 + "|"
    )
    print(processor(), flush=True)
    print("\nRequests of one poll\n")
    print("| fine-tunes | first | unchanged | SDK | httpx loop |\n" + "|--:" * 5 + "|")
    for line in request_counts():
        print(line, flush=True)


if __name__ == "__main__":
    main()

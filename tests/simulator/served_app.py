"""An application served on a loopback socket, and a client for it."""

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import httpx
from starlette.types import ASGIApp

from exporter.simulator.serve import serving
from tests.process.agent_process import NO_AUTHORITIES

KEY = "sk_car_test.secret"
HEADERS = {"Authorization": f"Bearer {KEY}", "Cartesia-Version": "2026-03-01"}


@contextlib.contextmanager
def served(app: ASGIApp) -> Iterator[str]:
    """Serve `app` in a thread with its own event loop, and yield its base URL."""
    address: Future[str] = Future()
    stop = threading.Event()

    async def run() -> None:
        async with serving(app, "127.0.0.1", 0) as base_url:
            address.set_result(base_url)
            await asyncio.to_thread(stop.wait)

    with ThreadPoolExecutor(max_workers=1) as pool:
        ended = pool.submit(asyncio.run, run())
        try:
            yield address.result(timeout=10)
        finally:
            stop.set()
            ended.result(timeout=10)


def client(base_url: str) -> httpx.Client:
    """Return a client that sends a key and a version, and uses no proxy."""
    return httpx.Client(
        base_url=base_url, headers=HEADERS, verify=NO_AUTHORITIES, trust_env=False, timeout=10
    )

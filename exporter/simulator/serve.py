"""Serve the simulated API or the receiver inside a running event loop, and let its world live."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from starlette.types import ASGIApp

from exporter import http_server as asgi
from exporter.simulator.api import Faults, Simulation, create_app
from exporter.simulator.world import Population, World


@dataclass(frozen=True, slots=True)
class SimulateOptions:
    """What `simulate` is asked for: where to listen, seconds between ticks, the world, its faults.

    Port 0 takes a free one; a tick of 0 seconds stops the world's time.
    """

    host: str = "127.0.0.1"
    port: int = 0
    tick: float = 2.0
    population: Population = field(default_factory=Population)
    faults: Faults = field(default_factory=Faults)


async def simulate(
    options: SimulateOptions, stop: asyncio.Event, announce: Callable[[str], None]
) -> None:
    """Serve a simulated API until `stop` is set; `announce` gets its base URL once it listens.

    Raise OSError when the address cannot be listened on.
    """
    simulation = Simulation(World(options.population), options.faults)
    async with serving(create_app(simulation), options.host, options.port) as base_url:
        announce(base_url)
        await keep_ticking(simulation.world, options.tick, stop)


async def keep_ticking(world: World, seconds: float, stop: asyncio.Event) -> None:
    """Tick the world every so many seconds until `stop` is set; 0 seconds: never."""
    while not stop.is_set():
        try:
            async with asyncio.timeout(seconds if seconds > 0 else None):
                await stop.wait()
        except TimeoutError:
            world.tick()


@contextlib.asynccontextmanager
async def serving(app: ASGIApp, host: str, port: int) -> AsyncIterator[str]:
    """Serve an application and yield its base URL, without a slash at the end.

    It listens already when this yields, and no longer when it has ended; what is in flight then has
    a second to finish. Raise OSError when the address cannot be listened on.
    """
    stop = asyncio.Event()
    with await asgi.listen(host, port) as listener:
        task = asyncio.create_task(asgi.serve(app, [listener], stop))
        try:
            yield asgi.base_url(listener)
        finally:
            stop.set()
            await task

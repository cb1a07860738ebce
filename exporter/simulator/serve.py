"""Servers of the simulated API and of the receiver, and the clock of the simulated world."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from starlette.types import ASGIApp

from exporter import http_server
from exporter.simulator.api import Faults, Simulation, create_app
from exporter.simulator.world import Population, World


@dataclass(frozen=True, slots=True)
class SimulateOptions:
    """Options of `simulate`; `tick` is in seconds, and with 0 the world does not change.

    Port 0 means a free port.
    """

    host: str = "127.0.0.1"
    port: int = 0
    tick: float = 2.0
    population: Population = field(default_factory=Population)
    faults: Faults = field(default_factory=Faults)


async def simulate(
    options: SimulateOptions, stop: asyncio.Event, announce: Callable[[str], None]
) -> None:
    """Serve a simulated API until `stop` is set; call `announce` with its base URL.

    Raises OSError when the server cannot listen on the address.
    """
    simulation = Simulation(World(options.population), options.faults)
    async with serving(create_app(simulation), options.host, options.port) as base_url:
        announce(base_url)
        await keep_ticking(simulation.world, options.tick, stop)


async def keep_ticking(world: World, seconds: float, stop: asyncio.Event) -> None:
    """Tick the world every `seconds` until `stop` is set; 0 means never."""
    while not stop.is_set():
        try:
            async with asyncio.timeout(seconds if seconds > 0 else None):
                await stop.wait()
        except TimeoutError:
            world.tick()


@contextlib.asynccontextmanager
async def serving(app: ASGIApp, host: str, port: int) -> AsyncIterator[str]:
    """Serve an application and yield its base URL, without a slash at the end.

    The server listens before this yields. At the end, requests in flight have a second to finish.
    Raises OSError when the server cannot listen on the address.
    """
    stop = asyncio.Event()
    with await http_server.listen(host, port) as listener:
        task = asyncio.create_task(http_server.serve(app, [listener], stop))
        try:
            yield http_server.base_url(listener)
        finally:
            stop.set()
            await task

"""Build the parts, run them together, stop them together."""

import asyncio
import math
import socket
import ssl
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import ClassVar

import structlog
from prometheus_client import disable_created_metrics
from starlette.types import ASGIApp

from exporter import __version__, asgi
from exporter.agent import Agent, Surface
from exporter.config import Config
from exporter.parts import SYSTEM_CLOCK
from exporter.reload import Reloader, Reloading
from exporter.store.database import Database
from exporter.supervisor import Running, Supervisor

log = structlog.get_logger()


async def run(config: Config, surface: Surface, stop: asyncio.Event) -> None:
    """Run the agent until ``stop`` is set, then stop it within 10 s.

    Raises OSError when an address or a certificate file can't be used, StoreError when the state
    can't. A part that dies of a bug takes the others with it, and its error leaves here in a group.
    """
    disable_created_metrics()  # type: ignore[no-untyped-call]  # the library has no types here
    _tell_what_has_no_effect(surface)
    async with AsyncExitStack() as resources:
        # First: who starts twice is told who holds the state, not that the port is taken.
        database = await resources.enter_async_context(Database(config.storage.path))
        listeners = await _listeners(surface, resources)
        supervisor = Supervisor()
        agent = Agent(config, surface, database, supervisor)
        reloading = surface.reloading or Reloading(lambda: config)
        reloader = Reloader(reloading, agent.reload, agent.registry, SYSTEM_CLOCK)
        await agent.prepare()
        tls = None if surface.web is None else surface.web.listening_tls
        server = Server(agent.application(reloader.reload), listeners, tls)
        log.info("listening", addresses=" ".join(server.urls), version=__version__)
        if surface.on_listening is not None:
            surface.on_listening(server.urls)
        async with supervisor:
            agent.start()
            supervisor.start("web", Running(server))
            supervisor.start("reload", Running(reloader))
            surface.manager.ready("running")
            await stop.wait()
            log.info("stopping")
            surface.manager.stopping()
            await supervisor.stop_all()
    log.info("stopped")


@dataclass(frozen=True, slots=True)
class Server:
    """The part that answers requests."""

    app: ASGIApp
    listeners: Sequence[socket.socket]
    tls: ssl.SSLContext | None = None

    due_at: ClassVar[float] = math.inf  # it waits for requests

    @property
    def urls(self) -> list[str]:
        """The URLs that answer."""
        return [asgi.base_url(listener, tls=self.tls is not None) for listener in self.listeners]

    async def run(self, stop: asyncio.Event) -> None:
        """Answer until ``stop`` is set."""
        await asgi.serve(self.app, self.listeners, stop, self.tls)


def _tell_what_has_no_effect(surface: Surface) -> None:
    for note in () if surface.web is None else surface.web.first.notes:
        log.warning("a key of the web configuration has no effect", note=note)


async def _listeners(surface: Surface, resources: AsyncExitStack) -> list[socket.socket]:
    listeners = list(surface.passed)
    for listener in listeners:
        resources.callback(listener.close)
    for address in () if listeners else surface.addresses:
        listeners.append(await asgi.listen(*address))
        resources.callback(listeners[-1].close)
    return listeners

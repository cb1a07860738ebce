"""Build the parts, run them together, stop them together."""

import asyncio
import socket
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from functools import partial
from typing import Final

import structlog
from prometheus_client import disable_created_metrics

from exporter import __version__, asgi
from exporter.agent import Agent, Builder, Surface
from exporter.config import Config
from exporter.store.database import Database

_GRACE_SECONDS: Final = 8.0
"""How long what is in flight may go on after the signal to stop."""

log = structlog.get_logger()


async def run(config: Config, surface: Surface, stop: asyncio.Event) -> None:
    """Run the agent until ``stop`` is set, then stop it within 10 s.

    Raises OSError when an address or a certificate file can't be used, StoreError when the state
    can't. A part that dies of a bug takes the others with it, and its error leaves here: a
    half-dead exporter that still answers /metrics is worse than none.
    """
    disable_created_metrics()  # type: ignore[no-untyped-call]  # the library has no types here
    for path in config.without_effect():
        log.warning("this key has no effect in this version", key=path)
    for note in () if surface.web is None else surface.web.first.notes:
        log.warning("a key of the web configuration has no effect", note=note)
    async with AsyncExitStack() as resources:
        # First: who starts twice is told who holds the state, not that the port is taken.
        database = await resources.enter_async_context(Database(config.storage.path))
        listeners = [await _listener(resources, *address) for address in surface.addresses]
        agent = await Builder(config, surface, database, resources).build()
        for poller in agent.pollers:
            await poller.restore()
        tls = None if surface.web is None else surface.web.listening_tls
        urls = [asgi.base_url(listener, tls=tls is not None) for listener in listeners]
        log.info("listening", addresses=" ".join(urls), version=__version__)
        if surface.on_listening is not None:
            surface.on_listening(urls)
        await _run_together(agent, partial(asgi.serve, agent.page, listeners, stop, tls), stop)
    log.info("stopped")


async def _listener(resources: AsyncExitStack, host: str, port: int) -> socket.socket:
    listener = await asgi.listen(host, port)
    resources.callback(listener.close)
    return listener


async def _run_together(
    agent: Agent, serve: Callable[[], Coroutine[None, None, None]], stop: asyncio.Event
) -> None:
    async with asyncio.TaskGroup() as group:
        parts = {
            "web": serve(),
            **{f"poll {poller.account}": poller.run(stop) for poller in agent.pollers},
            **{f"deliver {each.name}": each.run(stop) for each in agent.deliverers},
            **{name: part.run(stop) for name, part in agent.others.items()},
        }
        tasks = [
            group.create_task(_watched(part, work, stop), name=part) for part, work in parts.items()
        ]
        await stop.wait()
        log.info("stopping")
        agent.wake()
        _, late = await asyncio.wait(tasks, timeout=_GRACE_SECONDS)
        for task in late:
            log.warning("cut off by the end of the process, nothing is lost", part=task.get_name())
            task.cancel()


async def _watched(part: str, work: Coroutine[None, None, None], stop: asyncio.Event) -> None:
    task = asyncio.current_task()
    try:
        await work
    except asyncio.CancelledError as error:
        # A task group takes a cancellation that nobody asked for as a quiet end of the part.
        if task is not None and not task.cancelling():
            raise RuntimeError(f"This part was cancelled by a bug: {part}") from error
        raise
    except Exception as error:
        error.add_note(f"This ended the part: {part}")
        raise
    if not stop.is_set():
        raise RuntimeError(f"This part ended by itself: {part}")

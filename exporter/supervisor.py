"""Runs the parts of the agent beside each other: each until it is stopped, none beside a bug."""

import asyncio
from collections.abc import Collection
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Protocol, Self

import structlog


async def pause(event: asyncio.Event, seconds: float) -> None:
    """Wait until ``event`` is set, ``seconds`` at the most."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        pass


_GRACE_SECONDS: Final = 8.0
"""How long what is in flight may go on when its part is stopped."""

log = structlog.get_logger()


class Service(Protocol):
    """What runs beside the others."""

    @property
    def wakeup_deadline(self) -> float:
        """The monotonic time by which it will have set its next wake-up.

        Infinite while it waits for others alone.
        """
        ...

    async def run(self, stop: asyncio.Event) -> None:
        """Do its work until ``stop`` is set."""


@dataclass(frozen=True, slots=True)
class Running:
    """A part, and what it holds open: closed when the part has ended."""

    part: Service
    resources: AsyncExitStack = field(default_factory=AsyncExitStack)


@dataclass(frozen=True, slots=True)
class _Started:
    part: Service
    task: asyncio.Task[None]
    stop: asyncio.Event


class Supervisor:
    """Starts and stops parts, by their names.

    A context manager. A part that dies of a bug, or ends by itself, ends the others too, and its
    error leaves the context in a group: a half-dead exporter that still answers is worse than none.
    """

    def __init__(self) -> None:
        self._group = asyncio.TaskGroup()
        self._started: dict[str, _Started] = {}
        self._ending = False

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._group.__aexit__(kind, error, trace)

    def start(self, name: str, running: Running) -> None:
        """Start a part."""
        stop = asyncio.Event()
        if self._ending:  # a reload that the end overtakes
            stop.set()
        task = self._group.create_task(_watched(name, running, stop), name=name)
        self._started[name] = _Started(running.part, task, stop)

    def due(self) -> dict[str, float]:
        """Return by when each part that runs will have set its next wake-up."""
        return {name: started.part.wakeup_deadline for name, started in self._started.items()}

    async def stop(self, names: Collection[str]) -> None:
        """Stop parts; what is in flight then has 8 s, and is cut off behind them.

        Those that are stopped already are left alone: the end may overtake a reload.
        """
        leaving = [self._started.pop(name) for name in names if name in self._started]
        for each in leaving:
            each.stop.set()
        if not leaving:
            return
        _, late = await asyncio.wait([each.task for each in leaving], timeout=_GRACE_SECONDS)
        for task in late:
            log.warning("cut off because it has to stop, nothing is lost", part=task.get_name())
            task.cancel()
        if late:
            await asyncio.wait(late, timeout=_GRACE_SECONDS)

    async def stop_all(self) -> None:
        """Stop every part, for good."""
        self._ending = True
        await self.stop(list(self._started))


async def _watched(name: str, running: Running, stop: asyncio.Event) -> None:
    task = asyncio.current_task()
    try:
        async with running.resources:
            await running.part.run(stop)
    except asyncio.CancelledError as error:
        # A task group takes a cancellation that nobody asked for as a quiet end of the part.
        if task is not None and not task.cancelling():
            raise RuntimeError(f"This part was cancelled by a bug: {name}") from error
        raise
    except Exception as error:
        error.add_note(f"This ended the part: {name}")
        raise
    if not stop.is_set():
        raise RuntimeError(f"This part ended by itself: {name}")

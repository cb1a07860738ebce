"""Supervision of services: tasks that run concurrently and are started and stopped by name."""

import asyncio
from collections.abc import Collection
from contextlib import AsyncExitStack, suppress
from math import inf
from typing import Any, Final, NamedTuple

import structlog

_GRACE_SECONDS: Final = 8.0
"""How long a stopped service may take to finish its work before it is cancelled."""

log = structlog.get_logger()


class Service:
    """A long-running task of the agent; by default, all methods but `run` do nothing."""

    @property
    def wakeup_deadline(self) -> float:
        """Monotonic time by which the service will have set its next deadline.

        Infinite while it only waits for events.
        """
        return inf

    async def prepare(self, previous: Any) -> None:
        """Load the stored state before `run`; raise StoreError.

        ``previous`` is the stopped service of the same name that this one replaces, or None.
        """

    async def run(self, stop: asyncio.Event) -> None:
        """Work until ``stop`` is set."""
        raise NotImplementedError

    def wake(self) -> None:
        """Wake the service: the outbox changed."""

    def reloaded(self) -> None:
        """Notify the service that the configuration was reloaded."""

    def forget(self) -> None:
        """Remove the service's series from the page: it left the configuration."""


class _Running(NamedTuple):
    service: Service
    task: asyncio.Task[None]
    stop: asyncio.Event


class Supervisor(asyncio.TaskGroup):
    """Task group of services that are started and stopped by name.

    A service that raises, or that ends without being stopped, ends all others. Its error leaves the
    context in an exception group: a process that still answers while a service is gone would hide
    the failure.
    """

    def __init__(self) -> None:
        super().__init__()
        self._running: dict[str, _Running] = {}
        self._stopping = False

    def start(
        self, name: str, service: Service, resources: AsyncExitStack | None = None, delay: float = 0
    ) -> None:
        """Run a service after ``delay`` seconds; close its ``resources`` when it has ended."""
        stop = asyncio.Event()
        if self._stopping:  # a reload that is still in progress at shutdown
            stop.set()
        run = _supervise(name, service, resources or AsyncExitStack(), stop, delay)
        self._running[name] = _Running(service, self.create_task(run, name=name), stop)

    def wakeup_deadlines(self) -> dict[str, float]:
        """Return the wake-up deadline of each running service, by name."""
        return {name: each.service.wakeup_deadline for name, each in self._running.items()}

    async def stop(self, names: Collection[str]) -> None:
        """Stop services and wait until they ended; cancel those that take longer than 8 s.

        Names that are not running are ignored: shutdown may overtake a reload.
        """
        stopped = [self._running.pop(name) for name in names if name in self._running]
        for each in stopped:
            each.stop.set()
        if not stopped:
            return
        _, late = await asyncio.wait([each.task for each in stopped], timeout=_GRACE_SECONDS)
        for task in late:
            log.warning(
                "service cancelled, it did not stop in time; pending deliveries are kept",
                service=task.get_name(),
                after=f"{_GRACE_SECONDS:.0f}s",
            )
            task.cancel()
        if late:
            await asyncio.wait(late, timeout=_GRACE_SECONDS)

    async def stop_all(self, *, last: str = "") -> None:
        """Stop every service, and those that are started from now on; the ``last`` one at last."""
        self._stopping = True
        await self.stop([name for name in self._running if name != last])
        await self.stop([last])


async def _supervise(
    name: str, service: Service, resources: AsyncExitStack, stop: asyncio.Event, delay: float
) -> None:
    task = asyncio.current_task()
    try:
        async with resources:
            if delay:
                await pause(stop, delay)
            await service.run(stop)
    except asyncio.CancelledError as error:
        # A task group ignores a task that is cancelled by anything but the group itself.
        if task is not None and not task.cancelling():
            raise RuntimeError(f"Service was cancelled by a bug: {name}") from error
        raise
    except Exception as error:
        error.add_note(f"Raised in service: {name}")
        raise
    if not stop.is_set():
        raise RuntimeError(f"Service ended without being stopped: {name}")


async def pause(event: asyncio.Event, seconds: float) -> None:
    """Wait until ``event`` is set, at most ``seconds``."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()

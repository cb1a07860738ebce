"""Guard of the state: ends the agent when the state is deleted, replaced or used by another one."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from math import inf
from typing import Final

import structlog

from exporter.core.clock import Clock
from exporter.store.database import Database
from exporter.store.errors import StoreError, StoreTakenError
from exporter.supervisor import Service, pause

_LOOK_SECONDS: Final = 5.0
_SHARED_LOOK_SECONDS: Final = 60.0
"""With replicas, each renewal of the lease looks at the state, too."""

_SHOWN_SECONDS: Final = 5.0
"""How long a lost state is shown by metrics and readiness before the agent ends. What the agent
stores meanwhile is in the rescue copy too."""

_LAST_LOOK_SECONDS: Final = 2.0
_RESCUE_SECONDS: Final = 60.0

log = structlog.get_logger()


class StoreGuard(Service):
    """Looks at the state every 5 s; if it is lost, ends the agent by ``end``.

    ``finish`` is called when all other services have ended.
    """

    wakeup_deadline: float = inf

    def __init__(self, database: Database, clock: Clock, end: Callable[[], object]) -> None:
        self._database = database
        self._clock = clock
        self._end = end
        self._look_seconds = _SHARED_LOOK_SECONDS if database.engine.is_shared else _LOOK_SECONDS
        self._wake = asyncio.Event()
        self._error = ""
        database.on_lost = self._wake.set

    async def run(self, stop: asyncio.Event) -> None:
        """Look at the state until ``stop`` is set."""
        stopping = asyncio.ensure_future(stop.wait())
        stopping.add_done_callback(lambda _: self._wake.set())
        try:
            while not stop.is_set() and self._database.lost is None:
                self.wakeup_deadline = self._clock.monotonic()
                await self._look()
                self.wakeup_deadline = self._clock.monotonic() + self._look_seconds
                await pause(self._wake, self._look_seconds)
            self.wakeup_deadline = inf
            if (lost := self._database.lost) is not None and not stop.is_set():
                log.error("state lost, the agent ends", error=str(lost))
                # Beside another agent on the same state this one must not send any more.
                await pause(stop, 0 if isinstance(lost, StoreTakenError) else _SHOWN_SECONDS)
                self._end()
            await stop.wait()
        finally:
            stopping.cancel()

    async def finish(self) -> None:
        """Look once more, and write a rescue copy of a state file that was deleted or replaced."""
        if self._database.engine.is_shared:
            return  # there is nothing to rescue, and the database may not answer
        with suppress(TimeoutError):  # a disk that hangs must not delay the end
            async with asyncio.timeout(_LAST_LOOK_SECONDS):
                await self._look()
        if self._database.lost is None or isinstance(self._database.lost, StoreTakenError):
            return
        try:
            async with asyncio.timeout(_RESCUE_SECONDS):
                copy = await self._database.run(self._database.engine.rescue, self._clock.now())
        except (StoreError, TimeoutError) as error:
            log.error(  # noqa: TRY400 - no bug
                "no rescue copy of the state, pending deliveries may be lost",
                error=str(error) or f"no answer of the disk for {_RESCUE_SECONDS:.0f} s",
            )
        else:
            log.warning("rescue copy written; the next start adopts it", copy=copy)

    async def _look(self) -> None:
        """Check the state; an error that leaves open whether it is lost is logged once."""
        try:
            await self._database.run(self._database.engine.verify)
        except StoreError as error:
            if self._database.lost is None and str(error) != self._error:
                log.error("cannot check the state", error=str(error))  # noqa: TRY400 - no bug
            self._error = str(error)
        else:
            self._error = ""

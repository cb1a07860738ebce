"""An event loop whose clock jumps to the next timer instead of waiting for it.

A test module runs in virtual time with:

    @pytest.fixture
    def anyio_backend():
        return VIRTUAL_TIME
"""

import asyncio
import selectors
from collections.abc import Mapping
from typing import Any

from exporter.core.clock import Clock


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """Sleeps take no time. The clock stands still while a thread works for the loop."""

    def __init__(self) -> None:
        self._now = 0.0
        self.working = 0
        super().__init__(_JumpingSelector(self))

    def time(self) -> float:
        return self._now

    def jump(self, seconds: float) -> None:
        self._now += seconds

    def run_in_executor(self, *arguments: Any) -> asyncio.Future[Any]:  # type: ignore[override]  # asyncio's is generic
        self.working += 1
        future = super().run_in_executor(*arguments)
        future.add_done_callback(self._worked)
        return future

    def _worked(self, _: object) -> None:
        self.working -= 1

    async def shutdown_default_executor(
        self,
        timeout: float | None = None,  # noqa: ASYNC109 - asyncio's name
    ) -> None:
        """Wait for the threads; since Python 3.12 with a timeout, which a jump would exceed."""
        self.working += 1
        await super().shutdown_default_executor()
        self.working -= 1


VIRTUAL_TIME = "asyncio", {"loop_factory": VirtualTimeLoop}


def loop_clock() -> Clock:
    """A clock that shows the time of the running loop."""
    loop = asyncio.get_running_loop()
    return Clock(now=loop.time, monotonic=loop.time, random=lambda: 0.5)


class _JumpingSelector(selectors.BaseSelector):
    def __init__(self, loop: VirtualTimeLoop) -> None:
        self._loop = loop
        self._real = selectors.DefaultSelector()

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        waits = timeout is None or (timeout > 0 and self._loop.working > 0)
        ready = self._real.select(None if waits else 0)
        if not ready and timeout is not None:
            self._loop.jump(max(timeout, 0))
        return ready

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._real.register(fileobj, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._real.unregister(fileobj)

    def close(self) -> None:
        self._real.close()

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._real.get_map()

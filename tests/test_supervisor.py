"""Start, stop and failure of supervised services."""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

import pytest

from exporter import supervisor as module
from exporter.supervisor import DefaultService, Supervisor
from tests.polling.virtual_time import VIRTUAL_TIME


@dataclass
class FakeService(DefaultService):
    """Runs until it is stopped, and then calls ``at_stop``."""

    at_stop: Callable[[], Coroutine[None, None, None]] | None = None
    started: asyncio.Event = field(default_factory=asyncio.Event)
    ended: bool = False
    closed: bool = False
    wakeup_deadline: float = 100.0

    async def run(self, stop: asyncio.Event) -> None:
        self.started.set()
        try:
            await stop.wait()
            if self.at_stop is not None:
                await self.at_stop()
        finally:
            self.ended = True

    def resources(self) -> AsyncExitStack:
        resources = AsyncExitStack()
        resources.callback(lambda: setattr(self, "closed", True))
        return resources


async def forever() -> None:
    await asyncio.Event().wait()


async def test_a_stopped_service_ends_alone_and_its_resources_are_closed():
    first, second = FakeService(), FakeService()
    async with Supervisor() as supervisor:
        supervisor.start("first", first, first.resources())
        supervisor.start("second", second, second.resources())
        await supervisor.stop(["first"])
        assert (first.ended, first.closed) == (True, True)
        assert (second.ended, second.closed) == (False, False)
        await supervisor.stop_all()
    assert (second.ended, second.closed) == (True, True)


async def test_wakeup_deadlines_are_those_of_running_services():
    first, second = FakeService(), FakeService(wakeup_deadline=200.0)
    async with Supervisor() as supervisor:
        supervisor.start("first", first)
        supervisor.start("second", second)
        assert supervisor.wakeup_deadlines() == {"first": 100.0, "second": 200.0}
        first.wakeup_deadline = 300.0
        assert supervisor.wakeup_deadlines()["first"] == 300.0
        await supervisor.stop(["second"])
        assert supervisor.wakeup_deadlines() == {"first": 300.0}
        await supervisor.stop_all()


async def test_a_service_that_does_not_end_is_cancelled(monkeypatch):
    monkeypatch.setattr(module, "_GRACE_SECONDS", 0.05)
    hanging = FakeService(forever)
    async with Supervisor() as supervisor:
        supervisor.start("hanging", hanging, hanging.resources())
        await hanging.started.wait()
        await supervisor.stop(["hanging"])
        assert (hanging.ended, hanging.closed) == (True, True)


async def test_a_service_that_a_reload_starts_during_shutdown_ends():
    late = FakeService()
    async with Supervisor() as supervisor:
        await supervisor.stop_all()
        supervisor.start("late", late, late.resources())
    assert (late.ended, late.closed) == (True, True)


async def test_a_service_that_a_reload_stops_during_shutdown_is_stopped_once(monkeypatch):
    monkeypatch.setattr(module, "_GRACE_SECONDS", 0.05)
    hanging = FakeService(forever)
    async with Supervisor() as supervisor:
        supervisor.start("hanging", hanging, hanging.resources())
        await hanging.started.wait()
        ending = asyncio.create_task(supervisor.stop_all())
        await asyncio.sleep(0)
        await supervisor.stop(["hanging"])
        await ending
    assert (hanging.ended, hanging.closed) == (True, True)


class TestDelay:
    @pytest.fixture
    def anyio_backend(self):
        return VIRTUAL_TIME

    async def test_a_delayed_service_runs_after_the_delay(self):
        service, loop = FakeService(), asyncio.get_running_loop()
        async with Supervisor() as supervisor:
            supervisor.start("delayed", service, delay=2.5)
            await service.started.wait()
            assert loop.time() == pytest.approx(2.5)
            await supervisor.stop_all()

    async def test_a_stop_ends_the_delay(self):
        service, loop = FakeService(), asyncio.get_running_loop()
        async with Supervisor() as supervisor:
            supervisor.start("delayed", service, service.resources(), delay=2.5)
            await asyncio.sleep(1)
            await supervisor.stop_all()
            assert loop.time() == pytest.approx(1)
            assert (service.ended, service.closed) == (True, True)


class EndingService(FakeService):
    async def run(self, stop: asyncio.Event) -> None:
        pass


class FailingService(FakeService):
    async def run(self, stop: asyncio.Event) -> None:
        raise ValueError("a bug")


class CancelledService(FakeService):
    async def run(self, stop: asyncio.Event) -> None:
        raise asyncio.CancelledError


@pytest.mark.parametrize(
    ("service", "message"),
    [
        (EndingService(), "ended without being stopped: odd"),
        (FailingService(), "a bug"),
        (CancelledService(), "cancelled by a bug: odd"),
    ],
)
async def test_a_bug_in_one_service_ends_all_and_names_it(service, message):
    other = FakeService()

    async def run_both() -> None:
        async with Supervisor() as supervisor:
            supervisor.start("other", other, other.resources())
            await other.started.wait()
            supervisor.start("odd", service)
            await forever()

    with pytest.raises(ExceptionGroup) as raised:
        await run_both()
    (error,) = raised.value.exceptions
    assert message in str(error)
    assert "odd" in " ".join([str(error), *getattr(error, "__notes__", [])])
    assert (other.ended, other.closed) == (True, True)

"""Parts run beside each other: each is stopped by itself, and a bug in one ends all."""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

import pytest

from exporter import supervisor as module
from exporter.supervisor import Running, Supervisor


@dataclass
class Service:
    """Runs until it is stopped, then does ``at_the_end``; notes when it has ended."""

    at_the_end: Callable[[], Coroutine[None, None, None]] | None = None
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    ended: bool = False
    closed: bool = False
    wakeup_deadline: float = 100.0

    async def run(self, stop: asyncio.Event) -> None:
        self.begun.set()
        try:
            await stop.wait()
            if self.at_the_end is not None:
                await self.at_the_end()
        finally:
            self.ended = True

    def running(self) -> Running:
        resources = AsyncExitStack()
        resources.callback(lambda: setattr(self, "closed", True))
        return Running(self, resources)


async def forever() -> None:
    await asyncio.Event().wait()


def test_a_part_that_is_stopped_ends_alone_and_what_it_held_open_is_closed():
    async def run() -> None:
        first, second = Service(), Service()
        async with Supervisor() as supervisor:
            supervisor.start("first", first.running())
            supervisor.start("second", second.running())
            await supervisor.stop(["first"])
            assert (first.ended, first.closed) == (True, True)
            assert (second.ended, second.closed) == (False, False)
            await supervisor.stop_all()
        assert (second.ended, second.closed) == (True, True)

    asyncio.run(run())


def test_it_says_by_when_the_parts_that_run_will_wake_up_and_nothing_of_those_that_left():
    async def run() -> None:
        first, second = Service(), Service(wakeup_deadline=200.0)
        async with Supervisor() as supervisor:
            supervisor.start("first", first.running())
            supervisor.start("second", second.running())
            assert supervisor.due() == {"first": 100.0, "second": 200.0}
            first.wakeup_deadline = 300.0
            assert supervisor.due()["first"] == 300.0
            await supervisor.stop(["second"])
            assert supervisor.due() == {"first": 300.0}
            await supervisor.stop_all()

    asyncio.run(run())


def test_a_part_that_does_not_end_is_cut_off(monkeypatch):
    monkeypatch.setattr(module, "_GRACE_SECONDS", 0.05)

    async def run() -> None:
        hung = Service(forever)
        async with Supervisor() as supervisor:
            supervisor.start("hung", hung.running())
            await hung.begun.wait()
            await supervisor.stop(["hung"])
            assert (hung.ended, hung.closed) == (True, True)

    asyncio.run(run())


def test_a_part_that_a_reload_starts_while_all_are_ending_ends_too():
    async def run() -> None:
        late = Service()
        async with Supervisor() as supervisor:
            await supervisor.stop_all()
            supervisor.start("late", late.running())
        assert (late.ended, late.closed) == (True, True)

    asyncio.run(run())


def test_a_part_that_a_reload_stops_while_all_are_ending_is_stopped_once(monkeypatch):
    monkeypatch.setattr(module, "_GRACE_SECONDS", 0.05)

    async def run() -> None:
        hung = Service(forever)
        async with Supervisor() as supervisor:
            supervisor.start("hung", hung.running())
            await hung.begun.wait()
            ending = asyncio.create_task(supervisor.stop_all())
            await asyncio.sleep(0)
            await supervisor.stop(["hung"])
            await ending
        assert (hung.ended, hung.closed) == (True, True)

    asyncio.run(run())


class Ends:
    async def run(self, stop: asyncio.Event) -> None:
        pass


class Dies:
    async def run(self, stop: asyncio.Event) -> None:
        raise ValueError("a bug")


class IsCancelled:
    async def run(self, stop: asyncio.Event) -> None:
        raise asyncio.CancelledError


@pytest.mark.parametrize(
    ("part", "says"),
    [
        (Ends(), "ended by itself: odd"),
        (Dies(), "a bug"),
        (IsCancelled(), "cancelled by a bug: odd"),
    ],
)
def test_a_bug_in_one_ends_all_and_names_the_part(part, says):
    async def beside(other: Service) -> None:
        async with Supervisor() as supervisor:
            supervisor.start("other", other.running())
            await other.begun.wait()
            supervisor.start("odd", Running(part))
            await forever()

    async def run() -> None:
        other = Service()
        with pytest.raises(ExceptionGroup) as raised:
            await beside(other)
        (error,) = raised.value.exceptions
        assert says in str(error)
        assert "odd" in " ".join([str(error), *getattr(error, "__notes__", [])])
        assert (other.ended, other.closed) == (True, True)

    asyncio.run(run())

"""A stop or a reload while a reading is compared in a thread: nothing is lost, nothing repeated."""

import asyncio
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from exporter.core.account import PollResult, apply_snapshot
from exporter.core.events import Event
from exporter.polling import poller
from exporter.store.accounts import Accounts
from exporter.store.database import Database
from tests.polling.poller_fixture import STALE_AFTER, Bench, bench, listing
from tests.store.sample_polls import KEY, fine_tune

TRAINS = listing(fine_tune("a"))
FAILED = listing(fine_tune("a", "failed"))
SECONDS = 30.0


class Held:
    """Compares, but holds the second reading until it is let go."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.free = threading.Event()
        self.ended = threading.Event()
        self.found: list[PollResult] = []

    def compare(self, *arguments: Any) -> PollResult:
        if len(self.found) == 1:
            self.begun.set()
            assert self.free.wait(SECONDS)
        self.found.append(apply_snapshot(*arguments))
        if len(self.found) == 2:
            self.ended.set()
        return self.found[-1]

    async def until_begun(self) -> None:
        assert await asyncio.to_thread(self.begun.wait, SECONDS)

    async def let_go(self) -> None:
        """Return when the thread is through, whether somebody waits for it or not."""
        self.free.set()
        assert await asyncio.to_thread(self.ended.wait, SECONDS)


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[Held]:
    made = Held()
    monkeypatch.setattr(poller, "apply_snapshot", made.compare)
    yield made
    made.free.set()


async def polling(b: Bench, held: Held, stop: asyncio.Event) -> asyncio.Task[None]:
    """Return the running poller, at work on the reading of a failure."""
    await b.poller.poll()
    b.then(FAILED)
    running = asyncio.create_task(b.poller.run(stop))
    await held.until_begun()
    return running


async def cut_off(b: Bench, held: Held) -> None:
    """Have the poller cut off at work on the reading of a failure; its thread goes on."""
    running = await polling(b, held, asyncio.Event())
    running.cancel()
    await asyncio.wait([running])


async def after_a_restart(path: Path) -> list[Event]:
    """Return what is owed once another process has polled."""
    async with bench(path, FAILED) as b:
        await b.poller.poll()
        return await b.owed()


def test_a_stop_waits_for_what_was_read_to_be_stored(tmp_path, held):
    path = tmp_path / "state.db"

    async def run() -> None:
        async with asyncio.timeout(SECONDS), bench(path, TRAINS) as b:
            stop = asyncio.Event()
            running = await polling(b, held, stop)
            stop.set()
            await held.let_go()
            await running
            assert [event.type for event in await b.owed()] == ["fine_tune.failed"]
            assert len(b.wakes) == 1
        assert [event.type for event in await after_a_restart(path)] == ["fine_tune.failed"]

    asyncio.run(run())


def test_what_is_cut_off_was_not_read_and_is_told_once_after_a_restart(tmp_path, held):
    path = tmp_path / "state.db"

    async def run() -> None:
        async with asyncio.timeout(SECONDS), bench(path, TRAINS) as b:
            await cut_off(b, held)
            await held.let_go()
            assert (await b.owed(), b.wakes, len(b.views)) == ([], [], 2)
        assert [event.type for event in await after_a_restart(path)] == ["fine_tune.failed"]

    asyncio.run(run())


def test_a_reload_that_cuts_it_off_has_it_told_once(tmp_path, held):
    """By the new poller, while the thread of the one that it replaces is still at work."""

    async def run() -> None:
        async with asyncio.timeout(SECONDS), bench(tmp_path / "state.db", TRAINS) as b:
            await cut_off(b, held)
            await b.reload(interval=30)
            polled = asyncio.create_task(b.poller.poll())
            await asyncio.sleep(0)
            await held.let_go()
            await polled
            await b.poller.poll()
            assert [event.type for event in await b.owed()] == ["fine_tune.failed"]
            assert len(b.wakes) == 1

    asyncio.run(run())


STORE_CALLS = 4
"""Those of a poll behind one that could not be stored: three to load the state, and its commit."""


@pytest.mark.parametrize("call", range(1, STORE_CALLS + 2))
def test_what_is_cut_off_at_any_call_of_the_store_is_told_once(tmp_path, monkeypatch, call):
    """Whether the call has an effect or not, which nobody waits to see."""
    real, left = Database.run, [call]

    async def cutting(database: Database, *arguments: Any) -> Any:
        left[0] -= 1
        if left[0] == 0:
            task = asyncio.current_task()
            assert task is not None
            asyncio.get_running_loop().call_soon(task.cancel)
        return await real(database, *arguments)

    async def run() -> None:
        async with asyncio.timeout(SECONDS), bench(tmp_path / "state.db", TRAINS) as b:
            await b.poller.poll()
            b.then(FAILED)
            await b.forbid()
            await b.poller.poll()
            await b.allow()
            with monkeypatch.context() as patch:
                patch.setattr(Database, "run", cutting)
                polled = asyncio.create_task(b.poller.poll())
                await asyncio.wait([polled])
            assert polled.cancelled() == (call <= STORE_CALLS)
            await b.reload(interval=30)
            await b.poller.poll()
            await b.poller.poll()
            assert [event.type for event in await b.owed()] == ["fine_tune.failed"]
            assert await Accounts(b.database).load(KEY) == b.poller._state

    asyncio.run(run())


def test_what_was_cut_off_had_found_the_same_events(tmp_path, held):
    """So that neither would repeat the other, had both been stored."""

    async def run() -> None:
        async with asyncio.timeout(SECONDS), bench(tmp_path / "state.db", TRAINS) as b:
            await cut_off(b, held)
            await held.let_go()
            await b.poller.poll()
            _, dropped, stored = held.found
            assert dropped.events == stored.events
            assert [event for event, _ in stored.events] == await b.owed()

    asyncio.run(run())


def test_what_was_read_ages_from_when_it_was_read(tmp_path, held):
    """Not from when it was compared, which others' readings may have to wait for."""

    async def run() -> None:
        async with asyncio.timeout(SECONDS), bench(tmp_path / "state.db", TRAINS) as b:
            stop, read_at = asyncio.Event(), b.clock.now
            running = await polling(b, held, stop)
            stop.set()
            b.clock.now += 5
            await held.let_go()
            await running
            assert (b.view.polled_at, b.view.duration) == (read_at, 0)
            assert b.view.stale_at == read_at + STALE_AFTER

    asyncio.run(run())


def test_readings_of_several_accounts_are_compared_one_after_another(tmp_path, monkeypatch):
    """Each thread beside the loop would take the interpreter from it in turn."""
    busy = threading.Lock()

    def compare(*arguments: Any) -> PollResult:
        assert busy.acquire(blocking=False)
        time.sleep(0.05)  # so that another would meet it
        busy.release()
        return apply_snapshot(*arguments)

    monkeypatch.setattr(poller, "apply_snapshot", compare)

    async def run() -> None:
        async with bench(tmp_path / "a.db", TRAINS) as a, bench(tmp_path / "b.db", TRAINS) as b:
            await asyncio.gather(a.poller.poll(), b.poller.poll())
            assert (a.view.up, b.view.up) == (True, True)

    asyncio.run(run())


def test_a_bug_in_the_thread_ends_the_poller(tmp_path, monkeypatch):
    def broken(*_: Any) -> PollResult:
        raise KeyError("a bug")

    async def run() -> None:
        async with bench(tmp_path / "state.db", TRAINS) as b:
            monkeypatch.setattr(poller, "apply_snapshot", broken)
            with pytest.raises(KeyError, match="a bug"):
                await b.poller.run(asyncio.Event())

    asyncio.run(run())

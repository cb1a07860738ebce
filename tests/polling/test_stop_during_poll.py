"""A stop or reload while a snapshot is compared in a thread loses and repeats nothing."""

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from exporter.core.account import PollResult, apply_snapshot
from exporter.core.events import Event
from exporter.polling import poller
from exporter.store.accounts import Accounts
from exporter.store.database import Database
from tests.polling.poller_fixture import STALE_AFTER, PollerFixture, listing, open_poller
from tests.store.sample_polls import KEY, fine_tune

TRAINS = listing(fine_tune("a"))
FAILED = listing(fine_tune("a", "failed"))
TIMEOUT_SECONDS = 30.0


class HeldComparison:
    """Compares snapshots; the second comparison blocks until `release`."""

    def __init__(self) -> None:
        self.started = threading.Event()
        self.may_end = threading.Event()
        self.ended = threading.Event()
        self.results: list[PollResult] = []

    def compare(self, *arguments: Any) -> PollResult:
        if len(self.results) == 1:
            self.started.set()
            assert self.may_end.wait(TIMEOUT_SECONDS)
        self.results.append(apply_snapshot(*arguments))
        if len(self.results) == 2:
            self.ended.set()
        return self.results[-1]

    async def until_started(self) -> None:
        assert await asyncio.to_thread(self.started.wait, TIMEOUT_SECONDS)

    async def release(self) -> None:
        """Let the comparison end, and wait until its thread has ended."""
        self.may_end.set()
        assert await asyncio.to_thread(self.ended.wait, TIMEOUT_SECONDS)


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[HeldComparison]:
    comparison = HeldComparison()
    monkeypatch.setattr(poller, "apply_snapshot", comparison.compare)
    yield comparison
    comparison.may_end.set()


async def start_held_poll(
    p: PollerFixture, held: HeldComparison, stop: asyncio.Event
) -> asyncio.Task[None]:
    """Return the task of the running poller, which compares the snapshot of a failure."""
    await p.poller.poll()
    p.answer(FAILED)
    running = asyncio.create_task(p.poller.run(stop))
    await held.until_started()
    return running


async def cancel_held_poll(p: PollerFixture, held: HeldComparison) -> None:
    """Cancel the poller during the comparison of a failure; its thread continues."""
    running = await start_held_poll(p, held, asyncio.Event())
    running.cancel()
    await asyncio.wait([running])


async def queued_after_restart(path: Path) -> list[Event]:
    """Return the queued events after a poll of another process."""
    async with open_poller(path, FAILED) as p:
        await p.poller.poll()
        return await p.queued()


async def test_a_stop_waits_until_the_poll_is_committed(tmp_path, held):
    path = tmp_path / "state.db"
    async with asyncio.timeout(TIMEOUT_SECONDS), open_poller(path, TRAINS) as p:
        stop = asyncio.Event()
        running = await start_held_poll(p, held, stop)
        stop.set()
        await held.release()
        await running
        assert [event.type for event in await p.queued()] == ["fine_tune.failed"]
        assert len(p.wakes) == 1
    assert [event.type for event in await queued_after_restart(path)] == ["fine_tune.failed"]


async def test_a_cancelled_poll_stores_nothing_and_is_repeated_after_a_restart(tmp_path, held):
    path = tmp_path / "state.db"
    async with asyncio.timeout(TIMEOUT_SECONDS), open_poller(path, TRAINS) as p:
        await cancel_held_poll(p, held)
        await held.release()
        assert (await p.queued(), p.wakes, len(p.statuses)) == ([], [], 2)
    assert [event.type for event in await queued_after_restart(path)] == ["fine_tune.failed"]


async def test_a_poll_cancelled_by_a_reload_is_repeated_once(tmp_path, held):
    """By the new poller, while the thread of the old one is still running."""
    async with asyncio.timeout(TIMEOUT_SECONDS), open_poller(tmp_path / "state.db", TRAINS) as p:
        await cancel_held_poll(p, held)
        await p.reload(interval=30)
        polled = asyncio.create_task(p.poller.poll())
        await asyncio.sleep(0)
        await held.release()
        await polled
        await p.poller.poll()
        assert [event.type for event in await p.queued()] == ["fine_tune.failed"]
        assert len(p.wakes) == 1


STORE_CALLS = 4
"""Of a poll after one that could not be stored: three to load the state, and its commit."""


@pytest.mark.parametrize("call", range(1, STORE_CALLS + 2))
async def test_a_poll_cancelled_at_any_store_call_queues_its_event_once(
    tmp_path, monkeypatch, call
):
    """Whether or not the cancelled call takes effect."""
    real, calls_left = Database.run, [call]

    async def cancelling(database: Database, *arguments: Any) -> Any:
        calls_left[0] -= 1
        if calls_left[0] == 0:
            task = asyncio.current_task()
            assert task is not None
            asyncio.get_running_loop().call_soon(task.cancel)
        return await real(database, *arguments)

    async with asyncio.timeout(TIMEOUT_SECONDS), open_poller(tmp_path / "state.db", TRAINS) as p:
        await p.poller.poll()
        p.answer(FAILED)
        await p.refuse_events()
        await p.poller.poll()
        await p.accept_events()
        with monkeypatch.context() as patch:
            patch.setattr(Database, "run", cancelling)
            polled = asyncio.create_task(p.poller.poll())
            await asyncio.wait([polled])
        assert polled.cancelled() == (call <= STORE_CALLS)
        await p.reload(interval=30)
        await p.poller.poll()
        await p.poller.poll()
        assert [event.type for event in await p.queued()] == ["fine_tune.failed"]
        assert await Accounts(p.database).load(KEY) == p.poller._state


async def test_a_cancelled_poll_and_its_repeat_have_the_same_events(tmp_path, held):
    """So that no event is repeated if both are stored."""
    async with asyncio.timeout(TIMEOUT_SECONDS), open_poller(tmp_path / "state.db", TRAINS) as p:
        await cancel_held_poll(p, held)
        await held.release()
        await p.poller.poll()
        _, cancelled, stored = held.results
        assert cancelled.events == stored.events
        assert [event for event, _ in stored.events] == await p.queued()


async def test_the_age_of_a_snapshot_counts_from_when_it_was_read(tmp_path, held):
    """Not from its comparison, which may wait for other accounts."""
    async with asyncio.timeout(TIMEOUT_SECONDS), open_poller(tmp_path / "state.db", TRAINS) as p:
        stop, read_at = asyncio.Event(), p.clock.now
        running = await start_held_poll(p, held, stop)
        stop.set()
        p.clock.now += 5
        await held.release()
        await running
        assert (p.status.polled_at, p.status.duration) == (read_at, 0)
        assert p.status.stale_at == read_at + STALE_AFTER


async def test_a_bug_in_the_comparison_is_raised_by_run(tmp_path, monkeypatch):
    def broken(*_: Any) -> PollResult:
        raise KeyError("a bug")

    async with open_poller(tmp_path / "state.db", TRAINS) as p:
        monkeypatch.setattr(poller, "apply_snapshot", broken)
        with pytest.raises(KeyError, match="a bug"):
            await p.poller.run(asyncio.Event())

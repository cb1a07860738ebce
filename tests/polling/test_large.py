"""An account of 100,000 fine-tunes: the event loop is not blocked, and memory does not grow."""

import asyncio
import gc
import sys
from collections.abc import Iterator

import pytest

from tests.polling.large_account import LargeList, open_large_account, watched_loop
from tests.polling.poller_fixture import POLLS

FINE_TUNES = 100_000
FEW_FINE_TUNES = 3_000
CHANGED = 100


@pytest.fixture
def _frozen() -> Iterator[None]:
    """Exclude all imported modules from garbage collection, as the command does: it takes long."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.no_cover  # three times as long, of lines that other tests run
@pytest.mark.usefixtures("_frozen")
async def test_a_large_account_does_not_block_the_event_loop(tmp_path, monkeypatch):
    """At the baseline, without changes, with many changes, and after a restart."""
    path, pages = tmp_path / "state.db", LargeList(FINE_TUNES)
    async with watched_loop(monkeypatch) as loop:
        async with open_large_account(path, pages) as p:
            await p.poller.poll()
            await p.poller.poll()
            every_tenth = range(0, FINE_TUNES, 10)
            await asyncio.to_thread(pages.change, every_tenth, "again", status="training")
            await p.poller.poll()
        async with open_large_account(path, pages) as p:
            await p.poller.poll()
            assert p.metric(POLLS) == 1
            assert p.status.counts is not None
            assert sum(p.status.counts.values()) == FINE_TUNES
    assert loop.longest_turn < 0.1
    assert len(loop.turns_per_comparison) == 4
    assert all(loop.turns_per_comparison), "the event loop was blocked during a comparison"


@pytest.mark.soak
@pytest.mark.usefixtures("_frozen")
async def test_a_large_account_does_not_delay_the_event_loop(tmp_path, monkeypatch):
    """Including long library calls in a thread that hold the interpreter lock."""
    pages = LargeList(FINE_TUNES)
    late = []
    async with (
        watched_loop(monkeypatch) as loop,
        open_large_account(tmp_path / "state.db", pages) as p,
    ):
        for number in range(5):
            loop.latest_turn = 0.0
            await p.poller.poll()
            late.append(loop.latest_turn)
            status = ("failed", "training", "completed")[number % 3]
            every = range(FINE_TUNES)
            await asyncio.to_thread(pages.change, every, f"poll {number}", status=status)
    assert min(late) < 0.1, "even the best of five: the machine may be busy"


def allocated_blocks() -> int:
    gc.collect()
    return sys.getallocatedblocks()


@pytest.mark.usefixtures("_frozen")
@pytest.mark.parametrize("changed", [0, CHANGED], ids=["unchanged", "changing"])
async def test_memory_does_not_grow_from_poll_to_poll(tmp_path, changed):
    pages = LargeList(FEW_FINE_TUNES)
    async with open_large_account(tmp_path / "state.db", pages) as p:
        blocks = []
        for number in range(25):
            begin = number * changed % FEW_FINE_TUNES
            pages.change(range(begin, begin + changed), f"poll {number}")
            await p.poller.poll()
            del p.statuses[:-1], p.wakes[:]
            blocks.append(allocated_blocks())
        # One leaked block per change would be 2,000.
        assert blocks[-1] - blocks[4] < 500, blocks

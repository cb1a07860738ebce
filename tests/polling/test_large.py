"""100,000 fine-tunes: the loop goes on beside all of them, and memory stays as it is."""

import asyncio
import gc
import sys
from collections.abc import Iterator

import pytest

from tests.polling.large_account import LargeList, large, watched
from tests.polling.poller_fixture import POLLS

MANY = 100_000
FEW = 3_000
CHANGED = 100


@pytest.fixture
def _frozen() -> Iterator[None]:
    """As the command does: a collection that looks at all that pytest has imported takes long."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.no_cover  # three times as long, of lines that other tests run
@pytest.mark.usefixtures("_frozen")
def test_a_large_account_never_holds_up_the_loop(tmp_path, monkeypatch):
    """At the baseline, when nothing changed, when much did, and after a restart."""
    path, pages = tmp_path / "state.db", LargeList(MANY)

    async def run() -> None:
        async with watched(monkeypatch) as loop:
            async with large(path, pages) as b:
                await b.poller.poll()
                await b.poller.poll()
                tenth = range(0, MANY, 10)
                await asyncio.to_thread(pages.change, tenth, "again", status="training")
                await b.poller.poll()
            async with large(path, pages) as b:
                await b.poller.poll()
                assert b.metric(POLLS) == 1
                assert b.view.counts is not None
                assert sum(b.view.counts.values()) == MANY
        assert loop.longest < 0.1
        assert len(loop.beside) == 4
        assert all(loop.beside), "it stood still while a reading was compared"

    asyncio.run(run())


@pytest.mark.soak
@pytest.mark.usefixtures("_frozen")
def test_a_large_account_never_holds_up_the_loop_by_the_clock(tmp_path, monkeypatch):
    """Also not by a long call of the library's in a thread, which lets no other thread go on."""
    pages = LargeList(MANY)
    late = []

    async def run() -> None:
        async with watched(monkeypatch) as loop, large(tmp_path / "state.db", pages) as b:
            for number in range(5):
                loop.latest = 0.0
                await b.poller.poll()
                late.append(loop.latest)
                status = ("failed", "training", "completed")[number % 3]
                every = range(MANY)
                await asyncio.to_thread(pages.change, every, f"poll {number}", status=status)

    asyncio.run(run())
    assert min(late) < 0.1, "the best of five: the machine may be busy"


def blocks() -> int:
    gc.collect()
    return sys.getallocatedblocks()


@pytest.mark.usefixtures("_frozen")
@pytest.mark.parametrize("changed", [0, CHANGED], ids=["unchanged", "changing"])
def test_memory_stays_as_it_is_from_poll_to_poll(tmp_path, changed):
    pages = LargeList(FEW)

    async def run() -> None:
        async with large(tmp_path / "state.db", pages) as b:
            taken = []
            for number in range(25):
                begin = number * changed % FEW
                pages.change(range(begin, begin + changed), f"poll {number}")
                await b.poller.poll()
                del b.views[:-1], b.wakes[:]
                taken.append(blocks())
            # One block more for each that changed would be 2,000.
            assert taken[-1] - taken[4] < 500, taken

    asyncio.run(run())

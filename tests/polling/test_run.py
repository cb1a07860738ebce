"""When polls are made: from start to start, one at a time, and not when the API asked to wait."""

import asyncio
from collections.abc import Callable, Coroutine

import pytest

from exporter.agent.build import first_polls
from exporter.cartesia.errors import CartesiaError
from exporter.cartesia.listing import Listing
from exporter.core.clock import Clock
from tests.polling.poller_fixture import POLLS, SKIPPED, Answer, Bench, bench, listing
from tests.polling.virtual_time import VirtualTimeLoop

REFUSED = CartesiaError("unauthorized", "the API answered 401", status=401)
NOTHING = listing()


class Starts:
    """Answers as it is told and keeps when each poll began, in seconds of the loop."""

    def __init__(self, *lasting: float) -> None:
        self.lasting = list(lasting)
        self.at: list[float] = []
        self.now = 0

    async def __call__(self) -> Listing:
        self.at.append(asyncio.get_running_loop().time())
        self.now += 1
        assert self.now == 1, "two polls at once"
        await asyncio.sleep(self.lasting.pop(0) if self.lasting else 0)
        self.now -= 1
        return NOTHING


def in_virtual_time(
    path, test: Callable[[Bench], Coroutine[None, None, None]], *answers: Answer
) -> None:
    """Run a test with a poller whose interval of 60 s takes no time."""

    async def run() -> None:
        loop = asyncio.get_running_loop()
        clock = Clock(now=loop.time, monotonic=loop.time, random=lambda: 0.5)
        async with bench(path, *answers, interval=60, clock=clock) as made:
            await test(made)

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        runner.run(run())


async def run_for(b: Bench, seconds: float) -> None:
    """Run the poller for so long, and then until it has ended."""
    stop = asyncio.Event()
    asyncio.get_running_loop().call_later(seconds, stop.set)
    await b.poller.run(stop)


@pytest.mark.parametrize(
    ("lasting", "starts"),
    [
        ([], [0, 60, 120, 180]),
        ([20, 59, 0], [0, 60, 120, 180]),  # from start to start
        ([90, 0, 0], [0, 90, 150, 210]),  # a late one is followed at once, and none is made up for
        ([60, 60, 60], [0, 60, 120, 180]),
    ],
)
def test_polls_begin_an_interval_apart_and_never_two_at_once(tmp_path, lasting, starts):
    source = Starts(*lasting)

    async def test(b: Bench) -> None:
        await run_for(b, 239)
        assert source.at == pytest.approx(starts)
        assert b.metric(SKIPPED) == 0

    in_virtual_time(tmp_path / "state.db", test, source)


@pytest.mark.parametrize(
    ("accounts", "interval", "delays"),
    [
        (1, 60, [0]),
        (2, 60, [0, 2.5]),
        (5, 60, [0, 1, 2, 3, 4]),
        (4, 1, [0, 0.25, 0.5, 0.75]),
    ],
)
def test_the_first_account_is_polled_at_once_and_the_others_soon(accounts, interval, delays):
    assert first_polls(accounts, interval) == delays


def test_an_account_whose_first_poll_waits_keeps_its_distance(tmp_path):
    source = Starts()

    async def test(b: Bench) -> None:
        b.poller.begin_after(2.5)
        await run_for(b, 150)
        assert source.at == pytest.approx([2.5, 62.5, 122.5])

    in_virtual_time(tmp_path / "state.db", test, source)


def test_a_stop_before_the_first_poll_begins_none(tmp_path):
    async def test(b: Bench) -> None:
        b.poller.begin_after(2.5)
        await run_for(b, 1)
        assert b.source.asked == 0
        assert asyncio.get_running_loop().time() == pytest.approx(1)

    in_virtual_time(tmp_path / "state.db", test, NOTHING)


def test_a_stop_before_the_start_is_not_lost(tmp_path):
    async def test(b: Bench) -> None:
        stop = asyncio.Event()
        stop.set()
        await b.poller.run(stop)
        assert b.source.asked == 0

    in_virtual_time(tmp_path / "state.db", test, NOTHING)


def test_a_stop_ends_the_rest_at_once(tmp_path):
    async def test(b: Bench) -> None:
        await run_for(b, 30)
        assert b.source.asked == 1
        assert asyncio.get_running_loop().time() == pytest.approx(30)

    in_virtual_time(tmp_path / "state.db", test, NOTHING)


def test_a_stop_during_a_poll_lets_it_finish_and_begins_no_other(tmp_path):
    source = Starts(50)

    async def test(b: Bench) -> None:
        await run_for(b, 20)
        assert source.at == [0]
        assert b.view.up

    in_virtual_time(tmp_path / "state.db", test, source)


def test_retry_after_is_honoured_across_polls_and_the_turns_are_counted(tmp_path):
    source = Starts()

    async def test(b: Bench) -> None:
        await run_for(b, 359)
        assert source.at == pytest.approx([240, 300])
        assert b.metric(SKIPPED) == 3  # at 60, 120 and 180
        assert b.metric(POLLS) == 3

    wait = CartesiaError("rate_limited", "429", status=429, retry_after=181)
    in_virtual_time(tmp_path / "state.db", test, wait, source)


def test_a_refused_key_is_asked_with_in_every_tenth_turn_only(tmp_path):
    async def test(b: Bench) -> None:
        b.source.refused = True
        await run_for(b, 60 * 25)
        assert b.source.asked == 3  # at 0, 10 and 20 intervals
        assert b.metric(SKIPPED) == 22

    in_virtual_time(tmp_path / "state.db", test, REFUSED)


def test_a_new_key_is_tried_at_the_next_turn(tmp_path):
    source = Starts()

    async def test(b: Bench) -> None:
        b.source.refused = True
        asyncio.get_running_loop().call_later(130, setattr, b.source, "refused", False)
        await run_for(b, 250)
        assert source.at == pytest.approx([180, 240])
        assert b.metric(SKIPPED) == 2

    in_virtual_time(tmp_path / "state.db", test, REFUSED, source)


def test_other_trouble_does_not_end_the_slow_down(tmp_path):
    async def test(b: Bench) -> None:
        b.source.refused = True
        await run_for(b, 60 * 25)
        assert b.source.asked == 3  # at 0, 10 and 20 intervals

    trouble = CartesiaError("server_error", "the API answered 500", status=500)
    in_virtual_time(tmp_path / "state.db", test, REFUSED, trouble, trouble)


def test_a_success_ends_the_slow_down_for_good(tmp_path):
    source = Starts()

    async def test(b: Bench) -> None:
        b.source.refused = True
        loop = asyncio.get_running_loop()
        loop.call_later(130, setattr, b.source, "refused", False)
        loop.call_later(190, setattr, b.source, "refused", True)  # whatever it says of old trouble
        await run_for(b, 359)
        assert source.at == pytest.approx([180, 240, 300])

    in_virtual_time(tmp_path / "state.db", test, REFUSED, source)


def test_a_bug_ends_the_loop_with_its_error(tmp_path):
    async def bug() -> Listing:
        raise KeyError("a bug")

    async def test(b: Bench) -> None:
        with pytest.raises(KeyError, match="a bug"):
            await b.poller.run(asyncio.Event())

    in_virtual_time(tmp_path / "state.db", test, bug)
